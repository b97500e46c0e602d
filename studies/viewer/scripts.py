"""What is changed in OHIF's scripts between its npm package and ``/viewer/`` (docs/performance.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

# The first chunks' script, which stands before the entry script, and the first styles.
CHUNKS, STYLE = "app.chunks.js", "app.bundle.css"
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
# OHIF's viewport, and that around it which keeps measurements: each is asked for when it's first shown.
_LAZY = r"/\*#__PURE__\*/react\.lazy\(\(\) => \{\n(?P<body>[^\n]*)\n\}\);"
_VIEWPORTS = (
    re.compile(f"const src_Component = {_LAZY}"),
    re.compile(f"const Component = {_LAZY}\nconst OHIFCornerstoneViewport = "),
)
_MODULE = re.compile(r'if \(module === "(?P<name>[^"]+)"\) \{(?P<body>.*?)\n  \}', re.DOTALL)
_CHUNK = re.compile(r"__webpack_require__\.e\((?:/\* import\(\) \*/ )?(\d+)\)")
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
    # What the graphics can is asked with one drawing context, where each asked with its own (boot.js).
    (
        "  const canvas = document.createElement('canvas');\n  const gl = canvas.getContext('webgl2');\n"
        "  if (gl) {\n    const max3DTextureSize = gl.getParameter(gl.MAX_3D_TEXTURE_SIZE);\n",
        "  const max3DTextureSize = window.atriumMax3DTextureSize();\n  if (max3DTextureSize) {\n",
    ),
    ("        const gl2 = canvas.getContext('webgl2');\n", "        const gl2 = window.atriumProbe();\n"),
    (
        "supportsNorm16LinearCache = supportsNorm16Linear();",
        "supportsNorm16LinearCache = window.atriumNorm16Linear() ?? supportsNorm16Linear();",
    ),
    # A worker that is ended when it's idle is begun when it's needed.
    (
        """            const worker = workerFn();
            workerProperties.instances.push(comlink/* .wrap */.LV(worker));
""",
        """            const worker = autoTerminateOnIdle.enabled ? null : workerFn();
            workerProperties.instances.push(worker && comlink/* .wrap */.LV(worker));
""",
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
_ICONS = "node_modules/lucide-react/dist/esm/icons/"
_FREE_OF_EFFECTS = re.compile(r"/node_modules/(date-fns|date-fns-jalali|lucide-react|react-day-picker)/")
# An object made of another one's properties; a namespace, which is named three times where it's made.
_SPREAD = re.compile(r"^((?:const|var|let) [\w$]+ = )(\{\n\s+\.\.\..*?\n\});\n", re.MULTILINE | re.DOTALL)
_NAMESPACE = re.compile(
    r"^var (\w+) = \{\};\n__webpack_require__\.r\(\1\);\n__webpack_require__\.d\(\1, \{.*?\n\}\);\n",
    re.MULTILINE | re.DOTALL,
)
_NAMESPACE_MADE = 3
_FACTORY = re.compile(r"^(\d+)(\([a-zA-Z_, $]*\)) \{\n", re.MULTILINE)
_FACTORY_END = re.compile(r"\n\},\n(?=\d+\([a-zA-Z_, $]*\) \{\n|\n\}\]?\);)")


class BuildFailed(RuntimeError):
    """OHIF could not be fetched, or isn't what the lock file says."""


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


def first_chunks(built: Path, entry: str) -> list[str]:
    """Give the numbers of the chunks that are there before an image is. Raises BuildFailed."""
    chunks = chunks_of((built / entry).read_text())
    texts = [path.read_text() for chunk in chunks for path in built.glob(f"{chunk}.bundle.*.js")]
    for viewport in _VIEWPORTS:
        named = [match for text in texts if (match := viewport.search(text))]
        if len(named) != 1:
            raise BuildFailed("OHIF's viewport isn't where it was expected")
        chunks += _CHUNK.findall(named[0]["body"])
    return list(dict.fromkeys(chunks))


def files_of(built: Path, chunks: list[str], ending: str) -> list[str]:
    """Give the names of the chunks' files that end so."""
    return [path.name for chunk in chunks for path in built.glob(f"{chunk}.{ending}")]


def hasten(built: Path, scripts: list[str], chunks: list[str], shake: Callable[[str], str]) -> None:
    """Put off or leave out what the first image doesn't need, and let scripts be compiled while they come.

    ``scripts`` are the first ones, the entry last, ``chunks`` theirs; ``shake`` gives a module's script without the
    declarations that nothing in it uses. A function in parentheses is compiled at once, beside the main thread; one
    that isn't is compiled when it's called, on the main thread, after having been read once already. Raises BuildFailed
    when a place isn't found.
    """
    texts = {name: (built / name).read_text() for name in scripts}
    styled = STYLES_THERE + "".join(f"{chunk}: 0, " for chunk in chunks)
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
    components = [name for name, text in texts.items() if _ICONS in text]
    if len(components) != 1:
        raise BuildFailed("OHIF's components aren't where they were expected")
    texts[components[0]] = _without_unused(texts[components[0]], shake)
    for name, text in texts.items():
        (built / name).write_text(text)
    for path in built.glob("*.bundle.*.js"):
        text = path.read_text()
        if len(_FACTORY.findall(text)) != len(_FACTORY_END.findall(text)):
            raise BuildFailed(f"{path.name} doesn't hold its modules as expected")
        text = _FACTORY.sub(r"\1: (function\2 {\n", _FACTORY_END.sub("\n}),\n", text))
        path.write_text(text)


def _without_unused(script: str, shake: Callable[[str], str]) -> str:
    """Leave out the icons, calendars and languages of dates that no component of OHIF uses: an eighth of all.

    Their packages say of themselves that nothing happens when they're loaded (``sideEffects`` in package.json), but
    OHIF's bundler, which isn't told to minify, keeps them.
    """
    start = next(match.end() for match in reversed(list(_FACTORY.finditer(script, 0, script.index(_ICONS)))))
    end = _FACTORY_END.search(script, start)
    assert end is not None
    parts = re.split(r"(?=^;// )", script[start : end.start()], flags=re.MULTILINE)
    module = "".join(_marked(part) if _FREE_OF_EFFECTS.search(part.split("\n")[0]) else part for part in parts)
    module = shake(module)
    for namespace in _NAMESPACE.finditer(module):
        if len(re.findall(rf"(?<![\w$]){re.escape(namespace[1])}(?![\w$])", module)) == _NAMESPACE_MADE:
            module = module.replace(namespace[0], "")
    return f'{script[:start]}"use strict";\n{shake(module)}{script[end.start() :]}'


def _marked(part: str) -> str:
    """Say of each value that is made when a package is loaded that making it does nothing else."""
    part = re.sub(r"^((?:const|var|let) [\w$]+ = )([\w$.]+\()", r"\1/* @__PURE__ */ \2", part, flags=re.MULTILINE)
    part = re.sub(r"^(  (?!default\b)\w+: )([\w$]+\()", r"\1/* @__PURE__ */ \2", part, flags=re.MULTILINE)
    return _SPREAD.sub(r"\1/* @__PURE__ */ (() => (\2))();\n", part)


def join(built: Path, scripts: list[str], styles: list[str]) -> None:
    """Put the first scripts but the last, the entry, into one, and the first styles into another.

    Each file that a browser has kept costs it some milliseconds to find, in four processes. Two scripts are compiled
    side by side. A chunk's own file stays: workers ask for some. What's strict stays by itself; a function around all
    the rest would be read twice.
    """
    *chunks, entry = ((built / name).read_text().rstrip().rstrip(";") for name in scripts)
    chunks = [f"(function(){{{part}}})()" if part.startswith('"use strict"') else part for part in chunks]
    (built / CHUNKS).write_text(_in_ascii(";\n".join(chunks)))
    (built / scripts[-1]).write_text(_in_ascii(entry))
    sheets = [(built / name).read_text() for name in (STYLE, *styles)]
    (built / STYLE).write_text("\n".join(sheets))


def _in_ascii(script: str) -> str:
    """Write out what the minifier leaves in regular expressions: one such letter doubles what a browser keeps."""
    return re.sub(r"[^\x00-\x7f]", lambda letter: json.dumps(letter[0])[1:-1], script)
