"""UPS-RS: the worklist service (PS3.18 §11)."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    UPSFilteredGlobalSubscriptionInstance,
    UPSGlobalSubscriptionInstance,
)

from accounts.capabilities import Capability
from accounts.gates import principal_of, problem, program_capability_required
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.dicomweb.datasets import answer_with, dataset_from
from studies.dicomweb.errors import DicomWebError, answers_errors, empty, warn
from studies.dicomweb.parameters import (
    NOT_KEYS_AT_A_SITE,
    THERE_ARE_MORE,
    attributes,
    flag,
    matching_options,
    natural,
)
from studies.dicomweb.sites import site_for
from studies.workitems import errors, matching, selectors, services, subscriptions
from studies.workitems.attributes import values

GLOBAL = {str(UPSGlobalSubscriptionInstance), str(UPSFilteredGlobalSubscriptionInstance)}
MOST_RESULTS = 1000
may_see = program_capability_required(Capability.WORKITEM_VIEW, Capability.WORKITEM_PERFORM)
View = Callable[..., HttpResponseBase]

# What a refused operation is in HTTP (PS3.18 Tables 11.4.3-1 to 11.12.3-1); all others are 409.
STATUSES: tuple[tuple[type[errors.WorkitemError], int], ...] = (
    (errors.NoSuchWorkitem, 404),
    (errors.NotSubscribed, 404),
    (errors.NotAuthorised, 403),
    (errors.MissingTransaction, 400),
    (errors.WrongTransaction, 400),
    (errors.InvalidWorkitem, 400),
)
INCONSISTENT = "The submitted request is inconsistent with the current state of the UPS Instance."
WARNINGS = {
    services.CREATED_WITH_MODIFICATIONS: "The Workitem was created with modifications.",
    services.COERCED: "The Workitem was updated with modifications.",
    services.ALREADY_CANCELED: "The UPS is already in the requested state of CANCELED.",
    services.ALREADY_COMPLETED: "The UPS is already in the requested state of COMPLETED.",
}


def answers_workitem_errors(view: View) -> View:
    """Turn the room's errors into statuses and Warning headers (PS3.18 §11)."""

    @wraps(view)
    def answered(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except errors.WorkitemError as error:
            status = next((s for kind, s in STATUSES if isinstance(error, kind)), 409)
            response = problem(status, error.reason, dicomStatus=f"{error.status:04X}")
            if isinstance(error, errors.WrongTransaction):
                warn(request, response, error.reason)
            elif isinstance(error, errors.AlreadyCompleted):
                warn(request, response, "The UPS is already COMPLETED.")
            elif status == 409:
                warn(request, response, INCONSISTENT)
            return response

    return answers_errors(answered)


def _done(request: HttpRequest, done: services.Done, status: int) -> HttpResponse:
    response = empty(status)
    if done.warning in WARNINGS:
        warn(request, response, WARNINGS[done.warning])
    return response


@may_see
@answers_workitem_errors
def workitems(request: HttpRequest) -> HttpResponseBase:
    """Search (GET), create (POST)."""
    if request.method != "POST":
        return _search(request)
    uid = request.GET.get("workitem") or request.GET.get("AffectedSOPInstanceUID") or ""
    # The form of the standard before 2019: the UID alone is the query.
    uid = uid or next((name for name in request.GET if re.fullmatch(r"[0-9.]+", name)), "")
    site = site_for(request, Capability.WORKITEM_PERFORM)
    done = services.create_workitem(
        site=site, dataset=dataset_from(request), principal=principal_of(request), sop_instance_uid=uid
    )
    response = _done(request, done, 201)
    response["Location"] = _url(request, f"workitems/{done.workitem.sop_instance_uid}")
    response["Content-Location"] = response["Location"]
    return response


def _search(request: HttpRequest) -> HttpResponse:
    """Search for workitems (PS3.18 §11.9): 204 without a result, 206 when there are more than are given, else 200."""
    parameters = [(name, "\\".join(found)) for name, found in attributes(request, other_than=NOT_KEYS_AT_A_SITE)]
    keys, ignored = matching.keys_of(parameters, keyword_of=_keyword)
    options = matching_options(request)
    limit = min(natural(request, "limit", MOST_RESULTS), MOST_RESULTS)
    offset = natural(request, "offset", 0)
    page = list(selectors.search(principal_of(request), keys, options)[offset : offset + limit + 1])
    is_cut = len(page) > limit
    page = page[:limit]
    record(
        AuditEvent.Action.SEARCH,
        principal=principal_of(request),
        details={"way": "ups", "keys": {k: v[:200] for k, v in keys.items()}, "results": len(page)},
    )
    if not page:
        return empty(204)
    response = answer_with(request, [selectors.json_of(w) for w in page], status=206 if is_cut else 200)
    response["Cache-Control"] = "no-store"
    notes = []
    if is_cut:
        notes.append(THERE_ARE_MORE)
    if ignored:
        notes.append(f"Not used for matching: {', '.join(ignored)}.")
    warn(request, response, *notes)
    return response


def _keyword(name: str) -> str:
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name):
        return keyword_for_tag(int(name, 16)) or ""
    return name if tag_for_keyword(name or "-") is not None else ""


@may_see
@answers_workitem_errors
def workitem(request: HttpRequest, workitem_uid: str) -> HttpResponseBase:
    """Retrieve (GET), update (POST)."""
    found = selectors.visible_workitem(principal_of(request), workitem_uid)
    if request.method in {"GET", "HEAD"}:
        record(
            AuditEvent.Action.VIEW,
            principal=principal_of(request),
            site_id=found.site_id,
            patient_id=found.patient_id,
            patient_name=found.patient_name,
            study_instance_uid=found.study_instance_uid,
            details={"way": "ups", "workitem": found.sop_instance_uid},
        )
        response = answer_with(request, [selectors.json_of(found)])
        response["Cache-Control"] = "no-store"
        return response
    transaction_uid = request.GET.get("transaction-uid") or request.GET.get("transaction") or ""
    transaction_uid = transaction_uid or next((name for name in request.GET if re.fullmatch(r"[0-9.]+", name)), "")
    done = services.update_workitem(
        workitem=found,
        dataset=dataset_from(request),
        principal=principal_of(request),
        transaction_uid=transaction_uid,
    )
    response = _done(request, done, 200)
    response["Content-Location"] = _url(request, f"workitems/{found.sop_instance_uid}")
    return response


@may_see
@answers_workitem_errors
def state(request: HttpRequest, workitem_uid: str) -> HttpResponseBase:
    """Change the state (PS3.18 §11.7)."""
    found = selectors.visible_workitem(principal_of(request), workitem_uid)
    content = dataset_from(request).to_json_dict()
    done = services.change_state(
        workitem=found,
        state=str(next(iter(values(content, "ProcedureStepState")), "")),
        transaction_uid=str(next(iter(values(content, "TransactionUID")), "")),
        principal=principal_of(request),
    )
    response = _done(request, done, 200)
    response["Content-Location"] = _url(request, f"workitems/{found.sop_instance_uid}")
    return response


@may_see
@answers_workitem_errors
def cancel_request(request: HttpRequest, workitem_uid: str) -> HttpResponseBase:
    """Request cancellation (PS3.18 §11.8)."""
    found = selectors.visible_workitem(principal_of(request), workitem_uid)
    done = services.request_cancellation(
        workitem=found, dataset=dataset_from(request, may_be_empty=True), principal=principal_of(request)
    )
    return _done(request, done, 202)


@may_see
@answers_workitem_errors
def subscriber(request: HttpRequest, workitem_uid: str, ae_title: str) -> HttpResponseBase:
    """Subscribe (POST), unsubscribe (DELETE); for one workitem, or for all by the well-known UIDs (PS3.18 §11.10)."""
    principal = principal_of(request)
    deletion_lock = flag(request, "deletionlock")
    if workitem_uid in GLOBAL:
        site = site_for(request, Capability.WORKITEM_VIEW)
        if request.method == "DELETE":
            subscriptions.unsubscribe_globally(site=site, ae_title=ae_title, principal=principal)
            return empty(200)
        subscriptions.subscribe_globally(
            site=site,
            ae_title=ae_title,
            principal=principal,
            keys=_filter(request, workitem_uid),
            deletion_lock=deletion_lock,
        )
    else:
        found = selectors.visible_workitem(principal, workitem_uid)
        if request.method == "DELETE":
            subscriptions.unsubscribe(workitem=found, ae_title=ae_title, principal=principal)
            return empty(200)
        subscriptions.subscribe(workitem=found, ae_title=ae_title, principal=principal, deletion_lock=deletion_lock)
    response = empty(201)
    address = _url(request, f"subscribers/{ae_title}")
    response["Content-Location"] = re.sub(r"^http", "ws", address)
    return response


def _filter(request: HttpRequest, workitem_uid: str) -> dict[str, str]:
    """Give the matching keys of ``filter=name=value,name=value`` (PS3.18 §11.10.1.2), of ours only."""
    text = ",".join(request.GET.getlist("filter"))
    if workitem_uid == UPSGlobalSubscriptionInstance:
        if text:
            raise DicomWebError(400, "The global subscription has no filter; use the filtered one.")
        return {}
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if not pairs or not all(equals for _, equals, _ in pairs):
        raise DicomWebError(400, "A filter is written name=value, several separated by commas.")
    keys, ignored = matching.keys_of([(name, value) for name, _, value in pairs], keyword_of=_keyword)
    if ignored:
        raise DicomWebError(400, f"Not used for matching: {', '.join(ignored)}.")
    return keys


@may_see
@answers_workitem_errors
def suspend(request: HttpRequest, workitem_uid: str, ae_title: str) -> HttpResponseBase:
    """Suspend a global subscription (PS3.18 §11.12)."""
    if workitem_uid not in GLOBAL:
        raise errors.InvalidWorkitem("Only a global subscription can be suspended.")
    site = site_for(request, Capability.WORKITEM_VIEW)
    subscriptions.suspend_globally(site=site, ae_title=ae_title, principal=principal_of(request))
    return empty(200)


def _url(request: HttpRequest, path: str) -> str:
    return request.build_absolute_uri(f"/dicom-web/{path}")
