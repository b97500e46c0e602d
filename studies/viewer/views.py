"""OHIF under ``/viewer/``: its files, its configuration, and its page for every address of its router."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from urllib.parse import urlencode

from csp.decorators import csp
from django.conf import settings
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import get_token
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST, require_safe
from django.views.decorators.vary import vary_on_headers
from whitenoise.responders import StaticFile

from accounts.capabilities import Capability
from accounts.gates import capability_required, principal_of
from studies.access import visible_study
from studies.models import Study
from studies.viewer.build import STAMP
from studies.viewer.files import POLICY, file_at, names_file
from studies.viewer.first_look import first_look_of
from studies.viewer.hanging import FUSION, PROTOCOLS, SINGLE, Hanging, hanging_of, remember_protocol
from studies.viewer.objects import BESIDE, is_for_ohif

SCRIPTS = [Path(__file__).with_name(f"{name}.js") for name in ("asked", "rendered", "guard", "bridge", "app_config")]
may_see_images = capability_required(Capability.STUDY_VIEW, Capability.STUDY_VIEW_REFERRED)


@require_GET
@may_see_images
@vary_on_headers("Accept")
def open_study(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Open OHIF with a study, hung as its kind and the person want it, its relevant priors beside it.

    To an OHIF that is open already, which asks for JSON, say where it goes on, and whether it may.
    """
    address = _address_of(request, _visible(request, study_instance_uid))
    if request.headers.get("Accept") != "application/json":
        return redirect(address)
    answer = JsonResponse({"address": address, "edition": _edition(request), "csrf_token": get_token(request)})
    answer["Cache-Control"] = "no-store"
    return answer


def _address_of(request: HttpRequest, study: Study) -> str:
    """Give where the study is looked at: in OHIF, or on our page where it has nothing for OHIF."""
    if not is_for_ohif(study):
        return f"{reverse('study_objects', args=[study.study_instance_uid])}?{BESIDE}=1"
    hanging = hanging_of(principal_of(request), study)
    # A phone has room for one image; browsers say so by this word.
    if "Mobi" in request.headers.get("User-Agent", "") and hanging.protocol != FUSION:
        hanging = Hanging(SINGLE, [])
    uids = [study.study_instance_uid, *(prior.study_instance_uid for prior in hanging.priors)]
    query = {"StudyInstanceUIDs": ",".join(uids)}
    # Fusion has a mode of its own in OHIF, with its own layout.
    if hanging.protocol == FUSION:
        mode, query = "tmtv", {"StudyInstanceUIDs": study.study_instance_uid}
    else:
        mode, query["hangingProtocolId"] = "viewer", hanging.protocol
    query["site"] = study.site.slug
    desk = request.GET.get("desk", "")
    if re.fullmatch(r"[0-9a-f-]{36}", desk):
        query["desk"] = desk
    if (sop := request.GET.get("sop", "")) and re.fullmatch(r"[\d.]{1,64}", sop):
        query |= {"sop": sop, "frame": str(_frame_number(request))}
    return f"{reverse('viewer')}{mode}?{urlencode(query, safe=',@')}"


def _frame_number(request: HttpRequest) -> int:
    text = request.GET.get("frame", "")
    return int(text) if re.fullmatch(r"[1-9]\d{0,5}", text) else 1


def _edition(request: HttpRequest) -> str:
    """Say which viewer this is, and whose: an open one goes on only as the same."""
    stamp = settings.ATRIUM.viewer_root / STAMP
    user = principal_of(request).user
    parts = [stamp.read_bytes() if stamp.exists() else b"", *(path.read_bytes() for path in SCRIPTS)]
    return hashlib.sha256(b"".join([*parts, str(user and user.pk).encode()])).hexdigest()[:16]


@require_GET
@may_see_images
def first_look(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Give the addresses of the pictures that a study begins with, so that a page can fetch them ahead."""
    look = first_look_of(principal_of(request), _visible(request, study_instance_uid))
    answer = JsonResponse({"pictures": [picture for picture in look.pictures if picture] if look else []})
    answer["Cache-Control"] = "no-store"
    return answer


@require_POST
@may_see_images
def remember_preference(request: HttpRequest) -> HttpResponse:
    """Remember the hanging protocol that the person chose for this kind of study."""
    study = _visible(request, request.POST.get("study", "")[:64])
    user = principal_of(request).user
    assert user is not None
    try:
        remember_protocol(user=user, study=study, protocol=request.POST.get("protocol", ""))
    except LookupError:
        return HttpResponse(status=422)
    return HttpResponse(status=204)


def _visible(request: HttpRequest, study_instance_uid: str) -> Study:
    try:
        return visible_study(principal_of(request), study_instance_uid)
    except Study.DoesNotExist as error:
        raise Http404 from error


@require_safe
@csp(POLICY)
def viewer(request: HttpRequest, asset: str = "") -> HttpResponseBase:
    """Give a file of the build; for any address that can't be one OHIF's page, to one who may see images."""
    file = file_at(request.path)
    if file is not None:
        return _file_response(request, file)
    if names_file(request.path):
        raise Http404
    return page(request)


@may_see_images
def page(request: HttpRequest) -> HttpResponseBase:
    """Give OHIF's page."""
    index = settings.ATRIUM.viewer_root / "index.html"
    if not index.exists():
        return HttpResponse("The viewer isn't installed: run «make viewer».", status=503, content_type="text/plain")
    response = HttpResponse(index.read_bytes())
    response["Cache-Control"] = "no-cache, private"
    return response


def _file_response(request: HttpRequest, file: StaticFile) -> HttpResponseBase:
    found = file.get_response(request.method, request.META)
    status = int(found.status)
    response: HttpResponseBase = (
        FileResponse(found.file, status=status) if found.file is not None else HttpResponse(status=status)
    )
    # whitenoise gives every header that belongs to the file, Django's own guesses would double them.
    del response["Content-Type"]
    for name, value in found.headers:
        response[name] = value
    return response


@require_GET
@may_see_images
@csp(POLICY)
def app_config(request: HttpRequest) -> HttpResponse:
    """Give OHIF's configuration and the bridge, with the session's CSRF token and the protocols in it."""
    script = "\n".join(path.read_text() for path in SCRIPTS)
    given = {"CSRF_TOKEN": get_token(request), "EDITION": _edition(request), "PROTOCOLS": list(PROTOCOLS)}
    for name, value in given.items():
        script = script.replace(f'"__{name}__"', json.dumps(value))
    response = HttpResponse(script, content_type="text/javascript; charset=utf-8")
    response["Cache-Control"] = "no-store"
    return response
