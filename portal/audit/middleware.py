"""Refusals leave a trace too."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from portal.audit.models import AuditEvent
from portal.audit.services import record


class RefusalMiddleware:
    """Records every 401, 403 and 404 of a route that exists: what isn't theirs is answered as not found."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        match = request.resolver_match
        if response.status_code in {401, 403, 404} and match is not None and not match.kwargs.get("asset"):
            record(
                AuditEvent.Action.REFUSAL,
                principal=request.principal,  # type: ignore[attr-defined]
                outcome=AuditEvent.Outcome.REFUSED,
                study_instance_uid=str(match.kwargs.get("study_instance_uid", "")),
                details={"route": match.route[:200], "method": request.method, "status": response.status_code},
            )
        return response
