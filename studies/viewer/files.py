"""The built viewer's files. Opening a study asks for dozens: they're answered ahead of Django's middleware.

They are the same for everybody and no secret. What a browser may keep, it asks for once.
"""

from __future__ import annotations

import re
import uuid
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path

from csp.constants import SELF
from csp.decorators import csp
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from whitenoise import WhiteNoise
from whitenoise.responders import StaticFile

from portal.common_headers import common_headers
from portal.middleware import acceptable_request_id
from portal.threads import Answer, Scope

# OHIF compiles WebAssembly codecs, makes workers from blobs and sets style attributes; scripts stay ours. Its
# segmentations need eval: the library ndarray writes its accessors at run time.
POLICY = {
    "default-src": [SELF],
    "script-src": [SELF, "'wasm-unsafe-eval'", "'unsafe-eval'", "blob:"],
    "worker-src": [SELF, "blob:"],
    "style-src": [SELF, "'unsafe-inline'"],
    "img-src": [SELF, "data:", "blob:"],
    "font-src": [SELF, "data:"],
    "connect-src": [SELF, "blob:", "data:"],
    "frame-ancestors": [SELF],
    # Encapsulated PDFs, which the browser's own reader shows.
    "object-src": [SELF, "blob:"],
    "frame-src": [SELF, "blob:"],
    "base-uri": [SELF],
}
PAGE = "/viewer/index.html"
_KEPT = re.compile(r"/viewer/[0-9a-f]{8}/")
# OHIF's router has no page whose address ends like a file's name.
_FILE_NAME = re.compile(r"\.[0-9]*[a-z][0-9a-z]*$", re.IGNORECASE)
_NAMED = re.compile(r'(?:src|href)="(/viewer/[0-9a-f]{8}/[^"]+)"')
# What whitenoise reads of a request; a range is left to the view.
_READ = {"accept-encoding", "if-none-match", "if-modified-since"}


class ViewerFiles(WhiteNoise):
    """The build's files; those below its fingerprint never change."""

    def immutable_file_test(self, path: str, url: str) -> bool:
        return _KEPT.match(url) is not None


@lru_cache(maxsize=1)
def _files(root: Path) -> ViewerFiles:
    files = ViewerFiles(application=None, max_age=3600)
    if root.is_dir():
        files.add_files(str(root), prefix="viewer/")
    return files


def file_at(path: str) -> StaticFile | None:
    """Give the build's file at an address, but for the page, which is gated."""
    return _files(settings.ATRIUM.viewer_root).files.get(path) if path != PAGE else None


def names_file(path: str) -> bool:
    """Say whether the address can only be that of a file, not of OHIF's page."""
    return path != PAGE and _FILE_NAME.search(path) is not None


@lru_cache(maxsize=1)
def first_files(root: Path) -> tuple[str, ...]:
    """Give the addresses of the scripts and styles that opening a study asks for; none where OHIF isn't built."""
    page = root / "index.html"
    return tuple(dict.fromkeys(_NAMED.findall(page.read_text()))) if page.exists() else ()


@csp(POLICY)
def _empty(request: HttpRequest) -> HttpResponseBase:
    return HttpResponse()


def answer(scope: Scope) -> Answer | None:
    """Answer a request for a file of the build, or give None. Called in a thread."""
    path: str = scope["path"]
    if not path.startswith("/viewer/") or scope["method"] != "GET":
        return None
    file = file_at(path)
    if file is None:
        return None
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    if "range" in headers:
        return None
    read = {f"HTTP_{name.upper().replace('-', '_')}": headers[name] for name in _READ & headers.keys()}
    given = headers.get("x-request-id", "")
    common = [
        *common_headers(scope, headers, _empty),
        (b"X-Request-ID", (given if acceptable_request_id(given) else uuid.uuid4().hex).encode()),
    ]
    if file.is_not_modified(read):
        status, source, found = HTTPStatus.NOT_MODIFIED, "", file.not_modified_response.headers
    else:
        source, found = file.get_path_and_headers(read)
        status = HTTPStatus.OK
    sent = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in found]
    return Answer(status, [*sent, *common], path=source)
