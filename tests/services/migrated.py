"""A database as our migrations make it: made once, then copied, until one of them changes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = ROOT / ".pytest_cache" / "migrated"


@cache
def migrated() -> Path:
    """Give a SQLite file with every table, trigger and row that our migrations make."""
    KEPT.mkdir(parents=True, exist_ok=True)
    wanted = KEPT / f"{_fingerprint()}.sqlite3"
    # Of several processes one makes it and the others wait.
    with (KEPT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not wanted.exists():
            for outdated in KEPT.glob("*.sqlite3"):
                outdated.unlink()
            _make(wanted)
    return wanted


def _fingerprint() -> str:
    """Give a digest of our migrations' text and of the versions of all packages, whose migrations run as well."""
    digest = hashlib.sha256()
    for path in sorted(ROOT.glob("[!.]*/**/migrations/*.py")):
        digest.update(f"{path.relative_to(ROOT)}\n{path.read_text()}".encode())
    for name, version in sorted((one.name, one.version) for one in distributions()):
        digest.update(f"{name}=={version}\n".encode())
    return digest.hexdigest()[:20]


def _make(wanted: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="atrium-test-") as folder:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ATRIUM_")},
            "ATRIUM_DATA": folder,
        }
        command = [sys.executable, str(ROOT / "manage.py"), "migrate", "--verbosity", "0"]
        subprocess.run(command, env=environment, cwd=ROOT, check=True)
        made = wanted.with_suffix(".new")
        shutil.copyfile(Path(folder) / "atrium.sqlite3", made)
        made.rename(wanted)
