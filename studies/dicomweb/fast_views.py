"""Searches, and whole studies and series, ahead of Django's middleware, for a credential that was checked seconds ago.

Measured, two thirds of a search's time went into middleware and into reading again who asks, and half of what passes
until a study's first byte. The answers are the views' own. Whatever isn't a plain GET by somebody who may search, and
every error, is left to them.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

from django.core.exceptions import SuspiciousOperation
from django.db import close_old_connections
from django.http import HttpRequest, QueryDict
from django.http.response import HttpResponseBase

from accounts.capabilities import Capability
from accounts.credentials import credential_of, principal_of_credential
from accounts.principals import Principal
from portal.bodies import BrokenOff
from portal.common_headers import common_headers, put_headers, single_headers
from portal.middleware import acceptable_request_id, request_id
from portal.threads import Answer, Scope, headers_of
from studies.archive.errors import ObjectMissing
from studies.dicomweb import qido, wado
from studies.dicomweb.errors import DicomWebError
from studies.dicomweb.retrieval import MAY_RETRIEVE
from studies.models import Study

_UID = r"([0-9.]{1,64})"
View = Callable[..., HttpResponseBase]
# Each with the capabilities of which one is enough.
_VIEWS: list[tuple[re.Pattern[str], View, tuple[Capability, ...]]] = [
    (re.compile(rf"/dicom-web/{path}"), view, capabilities)
    for path, view, capabilities in (
        ("studies", qido.find_studies, qido.MAY_SEARCH),
        (rf"(?:studies/{_UID}/)?series", qido.find_series, qido.MAY_SEARCH),
        (rf"(?:studies/{_UID}/(?:series/{_UID}/)?)?instances", qido.find_instances, qido.MAY_SEARCH),
        (rf"studies/{_UID}(?:/series/{_UID})?", wado.retrieved, MAY_RETRIEVE),
    )
]


def answer(scope: Scope) -> Answer | HttpResponseBase | None:
    """Answer a search or a retrieval, or give None. Called in a thread."""
    path: str = scope["path"]
    found = next(((match, view, may) for pattern, view, may in _VIEWS if (match := pattern.fullmatch(path))), None)
    if scope["method"] != "GET" or found is None:
        return None
    match, view, capabilities = found
    headers = single_headers(scope)
    client = scope.get("client")
    credential = credential_of(headers, client[0] if client else None) if headers is not None else None
    if headers is None or credential is None:
        return None
    close_old_connections()
    try:
        principal = principal_of_credential(credential)
        if principal is None or not any(principal.may(capability) for capability in capabilities):
            return None
        return _answered(scope, headers, principal, view, *match.groups(default=""))
    except (DicomWebError, Study.DoesNotExist, BrokenOff, ObjectMissing, SuspiciousOperation):
        return None
    finally:
        close_old_connections()


def _answered(
    scope: Scope, headers: dict[str, str], principal: Principal, view: View, *uids: str
) -> Answer | HttpResponseBase:
    scheme = str(scope.get("scheme", "http"))
    common = common_headers(scope, headers)
    given = headers.get("x-request-id", "")
    current = given if acceptable_request_id(given) else uuid.uuid4().hex
    # So that it's the same where the views have to say what is wrong.
    others = (header for header in scope["headers"] if header[0] != b"x-request-id")
    scope["headers"] = [*others, (b"x-request-id", current.encode())]
    token = request_id.set(current)
    try:
        response = view(_request(scope, headers, scheme, principal), *uids)
    finally:
        request_id.reset(token)
    response["X-Request-ID"] = current
    put_headers(response, common)
    if response.streaming:
        return response
    content: bytes = response.content  # type: ignore[attr-defined]
    response["Content-Length"] = str(len(content))
    return Answer(response.status_code, headers_of(response), content)


def _request(scope: Scope, headers: dict[str, str], scheme: str, principal: Principal) -> HttpRequest:
    request, path = HttpRequest(), scope["path"]
    request.method, request.path, request.path_info = "GET", path, path
    request.META = {"SERVER_NAME": "", "SERVER_PORT": "0"}
    request.META |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    request._get_scheme = lambda: scheme  # type: ignore[attr-defined]
    query = scope.get("query_string", b"")
    request.META["QUERY_STRING"] = query.decode("latin-1")
    request.GET = QueryDict(query)
    request.principal = principal  # type: ignore[attr-defined]
    return request
