"""The trail's review screen and its export."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from accounts.capabilities import Capability
from accounts.gates import capability_required
from portal.audit.forms import AuditFilterForm
from portal.audit.models import AuditEvent, AuditEventQuerySet
from portal.audit.selectors import events_visible_to, filtered, verify_chain
from portal.audit.services import record

PAGE = 100
COLUMNS = [
    "sequence",
    "occurred_at",
    "action",
    "outcome",
    "username",
    "site",
    "patient_id",
    "patient_name",
    "study_instance_uid",
    "ip_address",
    "user_agent",
    "request_id",
    "details",
    "digest",
]


@require_GET
@capability_required(Capability.AUDIT_VIEW)
def audit(request: HttpRequest) -> HttpResponse:
    """Show the newest events that match the filter, a page at a time, from ``before`` downwards."""
    form = AuditFilterForm(request.GET)
    principal = request.principal  # type: ignore[attr-defined]
    events = events_visible_to(principal)
    events = filtered(events, form.cleaned_data) if form.is_valid() else events.none()
    before = request.GET.get("before", "")
    if before.isdigit() and len(before) < 19:
        events = events.filter(sequence__lt=int(before))
    page = list(events.order_by("-sequence")[: PAGE + 1])
    query = {name: value for name, value in request.GET.items() if name in form.fields and value}
    context = {
        "form": form,
        "events": page[:PAGE],
        "query": urlencode(query),
        "is_filtered": bool(query),
        "next_before": page[PAGE - 1].sequence if len(page) > PAGE else None,
        "is_first_page": not before,
        "may_export": principal.may(Capability.AUDIT_EXPORT),
    }
    template = "audit/_events.html" if request.headers.get("HX-Request") else "audit/audit.html"
    response = render(request, template, context)
    response["Vary"] = "HX-Request"
    return response


@require_POST
@capability_required(Capability.AUDIT_VIEW)
def verify(request: HttpRequest) -> HttpResponse:
    """Recompute the chain and show the verdict."""
    return render(request, "audit/_verdict.html", {"verdict": verify_chain(), "now": timezone.now()})


@require_GET
@capability_required(Capability.AUDIT_EXPORT)
def export(request: HttpRequest) -> StreamingHttpResponse:
    """Give the filtered events as CSV, oldest first; the export is itself recorded."""
    form = AuditFilterForm(request.GET)
    principal = request.principal  # type: ignore[attr-defined]
    events = events_visible_to(principal, Capability.AUDIT_EXPORT)
    events = filtered(events, form.cleaned_data) if form.is_valid() else events.none()
    record(
        AuditEvent.Action.EXPORT,
        principal=principal,
        details={"what": "audit trail", "filter": {k: str(v) for k, v in form.cleaned_data.items() if v}},
    )
    response = StreamingHttpResponse(_csv(events.order_by("sequence")), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="audit-{timezone.now():%Y%m%d-%H%M%S}.csv"'
    return response


class _Echo:
    def write(self, line: str) -> str:
        return line


def _csv(events: AuditEventQuerySet) -> Iterator[str]:
    writer = csv.writer(_Echo())
    yield "\ufeff" + writer.writerow(COLUMNS)
    for event in events.iterator(chunk_size=1000):
        yield writer.writerow([_cell(event, column) for column in COLUMNS])


def _cell(event: AuditEvent, column: str) -> str:
    value = getattr(event, column)
    if column == "occurred_at":
        return str(value.isoformat())
    if column == "details":
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    text = "" if value is None else str(value)
    # A cell that begins like a formula is run by spreadsheets.
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text
