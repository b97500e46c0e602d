"""The reconciliation screens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_POST

from accounts.capabilities import Capability
from accounts.gates import capability_required
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record_viewing
from studies.access import visible_study
from studies.archive.errors import NotCorrectable
from studies.models import Patient, Study
from studies.orders import identity, reconciliation, selectors
from studies.orders.errors import OrderRefused
from studies.orders.matching import candidates_for
from studies.orders.models import Mismatch, Order, Reconciliation
from studies.orders.views import principal_of, private, selected_order
from studies.person_names import displayed
from studies.trail import subject_of

may_correct = capability_required(Capability.STUDY_CORRECT)
PAGE = 100


@dataclass(frozen=True)
class Compared:
    """One field of a study beside an order."""

    label: str | Promise
    ours: str
    theirs: str

    @property
    def differs(self) -> bool:
        return bool(self.theirs) and self.ours.casefold() != self.theirs.casefold()


@require_GET
@may_correct
def mismatches(request: HttpRequest) -> HttpResponse:
    """List the studies that met no order."""
    principal = principal_of(request)
    reason = request.GET.get("reason", "")
    waiting = selectors.open_mismatches(principal)
    counts = {value: waiting.filter(reason=value).count() for value in Mismatch.Reason.values}
    shown = waiting.filter(reason=reason) if reason in counts else waiting
    context = {
        "page": Paginator(shown, PAGE).get_page(request.GET.get("page")),
        "reason": reason,
        "tabs": [{"value": value, "label": label, "count": counts[value]} for value, label in Mismatch.Reason.choices],
        "total": sum(counts.values()),
    }
    return private(render(request, "orders/mismatches.html", context))


@require_GET
@may_correct
def reconcile(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Show a study beside the orders it may belong to, and what was done to it."""
    principal = principal_of(request)
    study = _study(principal, study_instance_uid)
    record_viewing(
        AuditEvent.Action.VIEW,
        principal=principal,
        **subject_of(study),
        details={"page": "reconciliation"},
    )
    text = request.GET.get("q", "").strip()[:120]
    linked = selectors.order_of(study)
    found = [] if linked else candidates_for(study, text)
    mismatch = Mismatch.objects.select_related("settled_by").filter(study=study).first()
    context = {
        "study": study,
        "linked": _candidate(study, linked) if linked else None,
        "mismatch": mismatch if mismatch and mismatch.settled_at is None else None,
        "settled": mismatch if mismatch and mismatch.settled_at and not linked else None,
        "candidates": [_candidate(study, order) for order in found],
        "patients": _patients(principal, study, text),
        "text": text,
        "steps": _history(study),
    }
    return private(render(request, "orders/reconcile.html", context))


def _candidate(study: Study, order: Order) -> dict[str, Any]:
    return {
        "order": order,
        "fields": compared(study, order),
        "is_anothers": order.patient_id != study.patient_id,
        "patient": _identity(order.patient.patient_name, order.patient.patient_id),
        "present": _identity(study.patient_name, study.patient_id_value),
    }


def _identity(name: str, patient_id: str) -> str:
    return f"{displayed(name)} ({patient_id})" if name else patient_id


def compared(study: Study, order: Order) -> list[Compared]:
    """Give the fields of both, side by side."""
    steps = list(order.scheduled_steps.all())
    patient, other = study.patient, order.patient
    return [
        Compared(gettext_lazy("Patient"), displayed(study.patient_name), displayed(other.patient_name)),
        Compared(gettext_lazy("Patient ID"), study.patient_id_value, other.patient_id),
        Compared(gettext_lazy("Born"), _day(patient.patient_birth_date), _day(other.patient_birth_date)),
        Compared(gettext_lazy("Sex"), patient.patient_sex, other.patient_sex),
        Compared(gettext_lazy("Accession"), study.accession_number, order.accession_number),
        Compared(gettext_lazy("Procedure"), study.study_description, order.requested_procedure_description),
        Compared(gettext_lazy("Modality"), ", ".join(study.modalities), ", ".join(s.modality for s in steps)),
        Compared(gettext_lazy("Date"), _day(study.study_date), _day(steps[0].scheduled_at) if steps else ""),
        Compared(
            gettext_lazy("Referrer"),
            displayed(study.referring_physician_name),
            displayed(order.referring_physician_name),
        ),
    ]


def _day(value: Any) -> str:
    return f"{value:%Y-%m-%d}" if value else ""


def _patients(principal: Principal, study: Study, text: str) -> list[Patient]:
    if not text:
        return []
    found = selectors.patients_matching(principal, text, Capability.STUDY_CORRECT)
    return [p for p in found if p.site_id == study.site_id and p.pk != study.patient_id]


def _history(study: Study) -> list[dict[str, Any]]:
    steps = list(study.reconciliations.select_related("made_by", "undone_by", "order"))
    newest = next((step.pk for step in steps if step.undone_at is None), None)
    return [{"step": step, "changes": _changes(step), "may_undo": step.pk == newest} for step in steps]


def _changes(step: Reconciliation) -> list[dict[str, str]]:
    labels = {
        "patient_name": _("Patient"),
        "patient_id_value": _("Patient ID"),
        "accession_number": _("Accession"),
        "priority": _("Priority"),
        "referring_physician_name": _("Referrer"),
    }
    before, after = step.before["study"], step.after["study"]
    return [
        {"label": label, "before": _name(name, before[name]), "after": _name(name, after[name])}
        for name, label in labels.items()
        if before[name] != after[name]
    ]


def _name(column: str, value: str) -> str:
    return displayed(value) if column.endswith("_name") else value


@require_POST
@may_correct
def link(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Link the study to the chosen order; with ``correct`` make the study agree with it."""
    principal = principal_of(request)
    study = _study(principal, study_instance_uid)
    order = selected_order(request, request.POST.get("order", ""))
    if order is None:
        return _not_there(request, study)
    if "correct" in request.POST:
        return _done(
            request,
            study,
            lambda: identity.link_and_correct(study=study, order=order, principal=principal),
            _("Linked, and corrected after the order. The images as received are kept."),
        )
    return _done(
        request,
        study,
        lambda: reconciliation.link_study(study=study, order=order, principal=principal),
        _("Linked to the order."),
    )


@require_POST
@may_correct
def correct_patient(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Give the study to the chosen patient; with ``merge`` all that the present patient has."""
    principal = principal_of(request)
    study = _study(principal, study_instance_uid)
    chosen = request.POST.get("patient", "")
    known = Patient.objects.filter(site=study.site, pk=int(chosen) if chosen.isdigit() and len(chosen) < 19 else 0)
    patient = known.first()
    if patient is None:
        return _not_there(request, study)
    if "merge" in request.POST:
        return _done(
            request,
            study,
            lambda: identity.merge_patients(surviving_patient=patient, merged=study.patient, principal=principal),
            _("The two records are one now."),
        )
    return _done(
        request,
        study,
        lambda: identity.move_study(study=study, patient=patient, principal=principal),
        _("The study is the other patient's now. The images as received are kept."),
    )


@require_POST
@may_correct
def needs_no_order(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Take the study off the list without an order."""
    principal = principal_of(request)
    study = _study(principal, study_instance_uid)
    return _done(
        request,
        study,
        lambda: reconciliation.settle_without_order(study=study, principal=principal),
        _("The study needs no order."),
    )


@require_POST
@may_correct
def list_again(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Put the study on the list again: it needs an order after all."""
    principal = principal_of(request)
    study = _study(principal, study_instance_uid)
    return _done(
        request,
        study,
        lambda: reconciliation.list_again(study=study, principal=principal),
        _("The study is on the list again."),
    )


@require_POST
@may_correct
def undo(request: HttpRequest, study_instance_uid: str, pk: int) -> HttpResponse:
    """Take the newest step back."""
    principal = principal_of(request)
    study = _study(principal, study_instance_uid)
    step = get_object_or_404(Reconciliation, pk=pk, study=study)
    return _done(
        request,
        study,
        lambda: reconciliation.undo(reconciliation=step, principal=principal),
        _("Taken back; everything is as it was."),
    )


def _not_there(request: HttpRequest, study: Study) -> HttpResponse:
    messages.error(request, _("That order or patient is no longer there."))
    return redirect("reconcile", study_instance_uid=study.study_instance_uid)


def _done(request: HttpRequest, study: Study, service: Callable[[], Any], text: str) -> HttpResponse:
    try:
        service()
    except (OrderRefused, NotCorrectable) as refusal:
        messages.error(request, str(refusal))
    else:
        messages.success(request, text)
    return redirect("reconcile", study_instance_uid=study.study_instance_uid)


def _study(principal: Principal, study_instance_uid: str) -> Study:
    try:
        study = visible_study(principal, study_instance_uid)
    except Study.DoesNotExist as error:
        raise Http404 from error
    if not principal.may(Capability.STUDY_CORRECT, study.site_id):
        raise Http404
    return study
