"""The native libraries under WeasyPrint on a machine where nobody may install them.

``python -m portal.pdf_libraries FOLDER`` unpacks Debian's own packages into FOLDER, as any user; ``load`` uses them.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

# As the dynamic linker knows them; each brings its own dependencies.
WANTED = (
    "libgobject-2.0.so.0",
    "libpango-1.0.so.0",
    "libharfbuzz.so.0",
    "libfontconfig.so.1",
    "libpangoft2-1.0.so.0",
)
PACKAGES = ("libpangoft2-1.0-0", "libharfbuzz-subset0")
BY_HAND = "Reports as PDF need Pango. On Debian or Ubuntu: apt-get install " + " ".join(PACKAGES)


class LibrariesMissing(RuntimeError):
    """Neither the system nor our folder has what WeasyPrint needs; the message says what to install."""


def on_system() -> bool:
    """Say whether the system's own libraries can be loaded."""
    try:
        for name in WANTED:
            ctypes.CDLL(name)
    except OSError:
        return False
    return True


def load(folder: Path) -> None:
    """Make WeasyPrint importable: by the system's libraries, else by those in ``folder``. Raises LibrariesMissing."""
    if on_system():
        return
    waiting = sorted(path for path in folder.glob("**/lib*.so.*") if path.is_file() and path.name.count(".so.") == 1)
    # A library loads once those it needs are there; the linker then finds it by its name, wherever it lies.
    progress = True
    while waiting and progress:
        left = [path for path in waiting if not _loads(path)]
        progress, waiting = len(left) < len(waiting), left
    if not on_system():
        raise LibrariesMissing(BY_HAND)
    if not Path("/etc/fonts/fonts.conf").exists():
        os.environ.setdefault("FONTCONFIG_FILE", str(folder / "fonts.conf"))


def _loads(path: Path) -> bool:
    try:
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


def unpack(folder: Path) -> None:
    """Fetch Debian's packages that the machine lacks and unpack them into ``folder``. Raises LibrariesMissing."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as downloads:
        try:
            plan = _run(["apt-get", "--simulate", "--no-install-recommends", "install", *PACKAGES], downloads)
            names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
            _run(["apt-get", "--quiet", "download", *names], downloads)
            for package in Path(downloads).glob("*.deb"):
                _run(["dpkg-deb", "--extract", str(package), str(folder)], downloads)
        except (OSError, subprocess.CalledProcessError) as error:
            raise LibrariesMissing(BY_HAND) from error
    fonts = "".join(f"<dir>{escape(str(path))}</dir>" for path in (folder / "usr/share/fonts", "/usr/share/fonts"))
    cache = escape(str(folder / "cache"))
    (folder / "fonts.conf").write_text(
        f'<?xml version="1.0"?>\n<fontconfig>{fonts}<cachedir>{cache}</cachedir></fontconfig>\n'
    )


def _run(command: list[str], folder: str) -> str:
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)  # noqa: S603  fixed words
    return done.stdout


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    if not on_system() and not (target / "fonts.conf").exists():
        print("• libraries for PDF")
        try:
            unpack(target)
        except LibrariesMissing as reason:
            # Everything but the PDF works without them.
            print(f"  {reason}")
