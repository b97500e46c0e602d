"""The headers that middleware gives every answer, for answers that don't pass through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers
from django.utils.module_loading import import_string

from portal.threads import Headers, Scope

_HEADER_MIDDLEWARE = {
    "corsheaders.middleware.CorsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
}
View = Callable[[HttpRequest], HttpResponseBase]


def single_headers(scope: Scope) -> dict[str, str] | None:
    """Give the headers by name; None where one comes twice or isn't what Django would take (RFC 9110 §5.3)."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    is_plain = len(headers) == len(scope["headers"]) and not any("_" in name for name in headers)
    return headers if is_plain else None


def plain(request: HttpRequest) -> HttpResponseBase:
    """Give an empty answer, with no policy of its own."""
    return HttpResponse()


def common_headers(scope: Scope, headers: Mapping[str, str], view: View = plain) -> Headers:
    """Give the headers of an answer to the request; ``view`` gives an empty one. Raises DisallowedHost."""
    return headers_by_middleware(
        view,
        scope["path"].split("/")[1],
        str(scope.get("scheme", "http")),
        headers.get("host", ""),
        headers.get("x-forwarded-proto", ""),
        headers.get("x-forwarded-host", ""),
        headers.get("origin", ""),
    )


def put_headers(response: HttpResponseBase, headers: Headers) -> None:
    """Put headers into a response, which may vary already."""
    for name, value in ((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers):
        if name == "Vary":
            patch_vary_headers(response, [value])
        else:
            response[name] = value


@lru_cache(256)
def headers_by_middleware(
    view: View, root: str, scheme: str, host: str, forwarded_scheme: str, forwarded_host: str, origin: str
) -> Headers:
    """Let the middleware that sets headers set them on an empty answer. Raises DisallowedHost."""
    request = HttpRequest()
    request.method, request.path, request.path_info = "GET", f"/{root}/", f"/{root}/"
    request.META = {"HTTP_HOST": host, "wsgi.url_scheme": scheme, "SERVER_NAME": "", "SERVER_PORT": "0"}
    given = {
        "HTTP_X_FORWARDED_PROTO": forwarded_scheme,
        "HTTP_X_FORWARDED_HOST": forwarded_host,
        "HTTP_ORIGIN": origin,
    }
    request.META |= {name: value for name, value in given.items() if value}
    request._get_scheme = lambda: scheme  # type: ignore[attr-defined]
    request.get_host()
    respond: Any = view
    for name in reversed(settings.MIDDLEWARE):
        if name in _HEADER_MIDDLEWARE:
            respond = import_string(name)(respond)
    response = respond(request)
    return [(n.encode("latin-1"), v.encode("latin-1")) for n, v in response.items() if n != "Content-Type"]
