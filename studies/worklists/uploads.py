"""Upload from the browser, and the quarantine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_POST

from accounts.capabilities import Capability
from accounts.gates import capability_required, principal_of, problem, program_capability_required
from accounts.models import Site
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.access import sites_where
from studies.archive import objects
from studies.ingest.models import QuarantinedFile
from studies.ingest.services import Outcome, Source, StagedFile, Status, WayIn, ingest, stage
from studies.ingest.sources import UnacceptableZip, is_skipped, members_of

CHUNK = 1 << 18
BATCH = 20
PAGE = 200


@require_GET
@capability_required(Capability.STUDY_UPLOAD)
def upload(request: HttpRequest) -> HttpResponse:
    """Show the place to drop files, folders and ZIPs."""
    sites = sites_where(principal_of(request), Capability.STUDY_UPLOAD).order_by("pk")
    return render(request, "worklists/upload.html", {"sites": sites})


@require_POST
@program_capability_required(Capability.STUDY_UPLOAD)
def upload_file(request: HttpRequest) -> HttpResponseBase:
    """Take one file as the raw body, its name in ``?name=``; answer each instance's outcome as JSON."""
    site = _site(request)
    if site is None:
        return problem(403, "This account may not upload to that site.")
    name = request.GET.get("name", "")[-300:]
    if is_skipped(name):
        return JsonResponse({"files": [{"name": name, "status": "skipped", "reason": ""}]})
    source = Source(WayIn.UPLOAD, site, principal_of(request))
    try:
        outcomes = _ingest_body(request, name, source)
    except UnacceptableZip as error:
        return problem(422, str(error))
    except OSError:
        return problem(507, "The archive has no room to take this now; try again later.")
    return JsonResponse({"files": [_result(o) for o in outcomes]})


def _site(request: HttpRequest) -> Site | None:
    sites = sites_where(principal_of(request), Capability.STUDY_UPLOAD).order_by("pk")
    slug = request.GET.get("site")
    return sites.filter(slug=slug).first() if slug else sites.first()


def _body(request: HttpRequest) -> Iterator[bytes]:
    while chunk := request.read(CHUNK):
        yield chunk


def _ingest_body(request: HttpRequest, name: str, source: Source) -> list[Outcome]:
    if not name.lower().endswith(".zip"):
        return ingest([stage(_body(request), file_name=name)], source)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryFile() as archive:
        for chunk in _body(request):
            archive.write(chunk)
        archive.seek(0)
        batch: list[StagedFile] = []
        try:
            for member in members_of(archive):
                batch.append(stage(member.chunks, file_name=member.name))
                if len(batch) == BATCH:
                    outcomes += ingest(batch, source)
                    batch = []
        except UnacceptableZip as error:
            if not outcomes and not batch:
                raise
            return [*outcomes, *ingest(batch, source), Outcome(Status.REFUSED, name, reason=str(error))]
        outcomes += ingest(batch, source)
    return outcomes


def _result(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.file_name,
        "status": outcome.status,
        "reason": outcome.reason,
        "study_instance_uid": outcome.study_instance_uid if outcome.is_in else "",
    }


@require_GET
@capability_required(Capability.QUARANTINE_VIEW)
def quarantine(request: HttpRequest) -> HttpResponse:
    """Show the refused files of the person's sites, the newest first."""
    sites = sites_where(principal_of(request), Capability.QUARANTINE_VIEW)
    files = QuarantinedFile.objects.filter(site__in=sites).select_related("site").order_by("-received_at")[:PAGE]
    return render(request, "worklists/quarantine.html", {"files": files})


@require_GET
@capability_required(Capability.QUARANTINE_VIEW)
def quarantined_file(request: HttpRequest, pk: int) -> FileResponse:
    """Give a refused file's bytes."""
    sites = sites_where(principal_of(request), Capability.QUARANTINE_VIEW)
    file = QuarantinedFile.objects.filter(pk=pk, site__in=sites).first()
    if file is None:
        raise Http404
    record(
        AuditEvent.Action.EXPORT,
        principal=principal_of(request),
        site_id=file.site_id,
        details={"what": "quarantined file", "sha256": bytes(file.sha256).hex()},
    )
    content = objects.open_quarantined(file.object_key)
    return FileResponse(content, as_attachment=True, filename=f"quarantined-{file.pk}.bin")
