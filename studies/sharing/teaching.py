"""Teaching files: a study's de-identified copy, kept at a site of its own, with what it teaches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pydicom
from django.db import transaction
from django.utils.translation import gettext as _
from pydicom import dcmwrite

from accounts.capabilities import Capability
from accounts.models import Site, User
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies import events
from studies.archive import objects
from studies.archive.deidentification import Deidentifier, NotDeidentifiable, Profile
from studies.archive.deletion import delete_instances
from studies.ingest.services import Source, WayIn, ingest, stage
from studies.models import Instance, Study
from studies.sharing.errors import NotAllowed, NothingSaid
from studies.sharing.models import TeachingCase

BATCH = 20
TEACHING_SLUG = "teaching"
PROFILE = Profile(retain_device=True, retain_patient_characteristics=True, clean_descriptors=True)
FIELDS = ("title", "history", "findings", "diagnosis", "discussion", "keywords", "level")


def teaching_site() -> Site:
    """Give the site at which the copies are kept, made on first use."""
    site, _ = Site.objects.get_or_create(slug=TEACHING_SLUG, defaults={"name": "Teaching files", "is_teaching": True})
    return site


@transaction.atomic
def request_teaching_case(*, study: Study, principal: Principal, words: dict[str, str]) -> TeachingCase:
    """Begin a teaching case of a study; the copy is made by the worker. Raises NotAllowed, NothingSaid."""
    if principal.user is None or not principal.may(Capability.TEACHING_MANAGE, study.site_id):
        raise NotAllowed(_("This account may not make teaching files at this site."))
    if not words.get("title", "").strip():
        raise NothingSaid(_("A teaching case needs a title."))
    case = TeachingCase.objects.create(
        source_site=study.site, source_study=study, author=principal.user, **{n: words[n] for n in FIELDS if n in words}
    )
    events.emit("teaching.requested", case=case.pk)
    _record(principal, study, "teaching case requested", case)
    return case


@transaction.atomic
def change_teaching_case(*, case: TeachingCase, principal: Principal, words: dict[str, str]) -> TeachingCase:
    """Change what a case says. Raises NotAllowed for another's case, NothingSaid."""
    _require_author(case, principal)
    if not words.get("title", "").strip():
        raise NothingSaid(_("A teaching case needs a title."))
    for name in FIELDS:
        setattr(case, name, words.get(name, getattr(case, name)))
    case.save()
    return case


@transaction.atomic
def delete_teaching_case(*, case: TeachingCase, principal: Principal) -> None:
    """Remove a case with its copy. Raises NotAllowed for another's case."""
    _require_author(case, principal)
    _record(principal, case.study, "teaching case removed", case)
    copy = case.study
    case.delete()
    if copy is not None:
        _delete_copy(copy, principal.user)


def _delete_copy(copy: Study, user: User | None) -> None:
    # It was made final to wait on no worklist; no report rests on it.
    Study.objects.filter(pk=copy.pk).update(status=Study.Status.ARRIVED)
    keeper = Principal(grants=frozenset({(Capability.STUDY_DELETE.value, copy.site_id)}), user=user)
    delete_instances(study=copy, instances=Instance.objects.filter(series__study=copy), principal=keeper)


def _require_author(case: TeachingCase, principal: Principal) -> None:
    if principal.user is None or case.author_id != principal.user.pk:
        raise NotAllowed(_("Only its author changes a teaching case."))


@events.handle("teaching.requested")
def make_copy(payload: dict[str, Any]) -> None:
    """Copy what can be de-identified to the teaching site. Bears being called again: the copy's UIDs are the same."""
    case = TeachingCase.objects.filter(pk=payload["case"]).select_related("source_study", "author").first()
    if case is None or case.source_study is None or case.state == TeachingCase.State.READY:
        return
    site = teaching_site()
    principal = Principal(grants=frozenset({(Capability.STUDY_UPLOAD.value, site.pk)}), user=case.author)
    left_out: Counter[str] = Counter()
    study_instance_uid = ""
    batch: list[bytes] = []
    for content, uid in _copies(case, left_out):
        study_instance_uid = uid
        batch.append(content)
        if len(batch) == BATCH:
            _archive(batch, site, principal)
            batch = []
    _archive(batch, site, principal)
    copy = Study.objects.filter(site=site, study_instance_uid=study_instance_uid).first()
    case.state = TeachingCase.State.READY if copy is not None else TeachingCase.State.FAILED
    case.state_reason = "; ".join(f"{count}: {reason}" for reason, count in left_out.items())[:300]
    with transaction.atomic():
        if not TeachingCase.objects.select_for_update().filter(pk=case.pk).exists():
            # Removed while it was being made.
            if copy is not None:
                _delete_copy(copy, case.author)
            return
        case.study = copy
        if copy is not None:
            # Nobody reads a teaching file: it waits on no worklist.
            Study.objects.filter(pk=copy.pk).update(status=Study.Status.FINAL)
        case.save(update_fields=["study", "state", "state_reason", "updated_at"])
        _record(principal, case.source_study, "de-identified copy made", case)


def _copies(case: TeachingCase, left_out: Counter[str]) -> Iterator[tuple[bytes, str]]:
    """Give each instance's de-identified file with its Study Instance UID; count what can't be.

    Each case has a copy of its own: one can be removed, and two don't tell that their patient is the same.
    """
    deidentifier = Deidentifier(f"{TEACHING_SLUG} {case.pk}", PROFILE)
    for instance in (
        Instance.objects.filter(series__study=case.source_study, is_current=True)
        .order_by("pk")
        .iterator(chunk_size=100)
    ):
        dataset = pydicom.dcmread(BytesIO(objects.read_instance(instance)))
        try:
            dataset = deidentifier.apply(dataset)
        except NotDeidentifiable as error:
            left_out[str(error)] += 1
            continue
        buffer = BytesIO()
        dcmwrite(buffer, dataset, enforce_file_format=True)
        yield buffer.getvalue(), str(dataset.StudyInstanceUID)


def _archive(files: list[bytes], site: Site, principal: Principal) -> None:
    outcomes = ingest([stage([content]) for content in files], Source(WayIn.IMPORT, site, principal))
    if not all(outcome.is_in for outcome in outcomes):
        raise RuntimeError("the archive didn't take the de-identified copy")


def _record(principal: Principal, study: Study | None, step: str, case: TeachingCase) -> None:
    record(
        AuditEvent.Action.EXPORT,
        principal=principal,
        site_id=study.site_id if study else case.source_site_id,
        patient_id=study.patient_id_value if study else "",
        patient_name=study.patient_name if study else "",
        study_instance_uid=study.study_instance_uid if study else "",
        details={"what": step, "teaching_case": case.pk},
    )
