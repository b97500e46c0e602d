"""Rejection notes (IHE IOCM): their effect on all that is shown, on what comes again, and their undoing."""

from __future__ import annotations

import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from django.test import Client
from pydicom.uid import generate_uid

from accounts.models import User
from accounts.principals import principal_of_node
from portal.audit.models import AuditEvent
from studies.archive import errors
from studies.archive.models import Rejection
from studies.archive.rejection import Reason, read_note, restore_instances, write_note
from studies.ingest.rejection import reject_instances
from studies.ingest.services import Outcome, Source, Status, WayIn, ingest, stage
from studies.models import Instance, Study
from tests.factories import make_instance, principal_of

pytestmark = [pytest.mark.django_db, pytest.mark.database]
STUDY, ONE, TWO = "1.2.826.1", "1.2.826.1.1", "1.2.826.1.2"


def ct(number: int, series: str = ONE, **keywords: Any) -> bytes:
    return make_instance(
        StudyInstanceUID=STUDY,
        SeriesInstanceUID=series,
        SOPInstanceUID=f"{series}.{number}",
        InstanceNumber=number,
        **keywords,
    )


@pytest.fixture
def study(north: Any, ingest_files: Any) -> Study:
    """Give a study of two series, two images and one."""
    ingest_files(north, ct(1), ct(2), ct(1, TWO, Modality="MR"))
    return Study.objects.get()


def instances(*uids: str) -> list[Instance]:
    return list(Instance.objects.filter(sop_instance_uid__in=uids).select_related("series").order_by("pk"))


def note(study: Study, reason: Reason, *uids: str) -> bytes:
    return write_note(study=study, instances=instances(*uids), reason=reason, observer="Tech^Nora")


def send(north: Any, *files: bytes) -> list[Outcome]:
    node = principal_of_node(ae_title="CT", site_id=north.pk, capabilities=[], ip_address=None)
    return ingest([stage([file]) for file in files], Source(WayIn.DIMSE, north, node))


def seen(browser: Client, path: str) -> list[str]:
    answer = browser.get(f"/dicom-web/{path}")
    return [i["00080018"]["Value"][0] for i in answer.json()] if answer.status_code == 200 else []


@pytest.mark.parametrize("reason", list(Reason))
def test_what_a_note_names_vanishes_at_once_and_stays_in_the_archive(
    reason: Reason, study: Study, north: Any, client_of: Any, tmp_path: Path
) -> None:
    browser = client_of("radiologist")
    base = f"studies/{STUDY}/series/{ONE}"
    assert len(browser.get(f"/dicom-web/{base}/metadata").json()) == 2
    (outcome,) = send(north, note(study, reason, f"{ONE}.1"))
    assert outcome.is_in
    assert seen(browser, f"{base}/instances") == [f"{ONE}.2"]
    assert [i["00080018"]["Value"] for i in browser.get(f"/dicom-web/{base}/metadata").json()] == [[f"{ONE}.2"]]
    for below in ("", "/metadata", "/frames/1", "/rendered", "/thumbnail"):
        assert browser.get(f"/dicom-web/{base}/instances/{ONE}.1{below}").status_code == 404, below
    rejected = Instance.objects.get(sop_instance_uid=f"{ONE}.1")
    assert rejected.rejection_code == reason
    assert (tmp_path / "objects" / rejected.object_key).exists()


def test_counts_and_modalities_follow(study: Study, north: Any, client_of: Any) -> None:
    send(north, note(study, Reason.PATIENT_SAFETY, f"{TWO}.1", f"{ONE}.1"))
    study.refresh_from_db()
    assert (study.number_of_instances, study.number_of_series, study.modalities_in_study) == (1, 1, "CT")
    found = client_of("radiologist").get(f"/dicom-web/studies?StudyInstanceUID={STUDY}").json()
    assert found[0]["00201208"]["Value"] == [1]
    assert client_of("radiologist").get(f"/dicom-web/studies/{STUDY}/series?Modality=MR").status_code == 204
    for below in ("", "/metadata", "/thumbnail"):
        assert client_of("radiologist").get(f"/dicom-web/studies/{STUDY}/series/{TWO}{below}").status_code == 404
    assert len(client_of("radiologist").get(f"/dicom-web/studies/{STUDY}/metadata").json()) == 1


def test_a_study_of_nothing_but_rejected_instances_is_not_found(study: Study, north: Any, client_of: Any) -> None:
    send(north, note(study, Reason.WRONG_WORKLIST_ENTRY, f"{ONE}.1", f"{ONE}.2", f"{TWO}.1"))
    browser = client_of("radiologist")
    assert browser.get(f"/dicom-web/studies?StudyInstanceUID={STUDY}").status_code == 204
    assert browser.get(f"/dicom-web/studies/{STUDY}").status_code == 404


@pytest.mark.parametrize(
    ("reason", "is_seen"), [(Reason.QUALITY, True), (Reason.PATIENT_SAFETY, False), (Reason.RETENTION_EXPIRED, False)]
)
def test_the_note_itself_is_seen_as_its_reason_says(
    reason: Reason, is_seen: bool, study: Study, north: Any, client_of: Any
) -> None:
    (outcome,) = send(north, note(study, reason, f"{ONE}.1"))
    uids = seen(client_of("radiologist"), f"studies/{STUDY}/instances")
    assert (outcome.sop_instance_uid in uids) is is_seen


@pytest.mark.parametrize(
    ("reason", "status", "is_seen"),
    [
        (Reason.QUALITY, Status.DUPLICATE, False),
        (Reason.PATIENT_SAFETY, Status.REFUSED, False),
        (Reason.WRONG_WORKLIST_ENTRY, Status.REFUSED, False),
        (Reason.RETENTION_EXPIRED, Status.DUPLICATE, True),
    ],
)
def test_what_was_rejected_and_comes_again(
    reason: Reason, status: Status, is_seen: bool, study: Study, north: Any, client_of: Any
) -> None:
    send(north, note(study, reason, f"{ONE}.1"))
    (outcome,) = send(north, ct(1))
    assert outcome.status is status
    assert outcome.dicom_status == (0xA970 if status is Status.REFUSED else 0)
    assert (f"{ONE}.1" in seen(client_of("radiologist"), f"studies/{STUDY}/instances")) is is_seen


@pytest.mark.parametrize("at_once", [True, False])
def test_a_note_may_come_before_what_it_rejects(at_once: bool, study: Study, north: Any, client_of: Any) -> None:
    later = Instance(
        series=instances(f"{ONE}.1")[0].series, sop_instance_uid=f"{ONE}.3", sop_class_uid="1.2", number_of_frames=1
    )
    early = write_note(study=study, instances=[later], reason=Reason.QUALITY, observer="T")
    if at_once:
        send(north, early, ct(3))
    else:
        send(north, early)
        send(north, ct(3))
    assert Instance.objects.filter(sop_instance_uid=f"{ONE}.3").exists()
    assert f"{ONE}.3" not in seen(client_of("radiologist"), f"studies/{STUDY}/instances")
    assert Study.objects.get().series.get(series_instance_uid=ONE).number_of_instances == 2


def test_a_rejection_can_be_taken_back_and_its_note_has_no_second_effect(
    study: Study, north: Any, people: Any, client_of: Any
) -> None:
    sent = note(study, Reason.PATIENT_SAFETY, f"{ONE}.1")
    send(north, sent)
    technologist = principal_of(people["technologist"])
    assert restore_instances(study=study, sop_instance_uids=[f"{ONE}.1"], principal=technologist) == 1
    send(north, sent)
    assert f"{ONE}.1" in seen(client_of("radiologist"), f"studies/{STUDY}/instances")
    study.refresh_from_db()
    assert (study.number_of_instances, study.number_of_series) == (3, 2)
    lifted = Rejection.objects.get()
    assert (lifted.rejected_by, lifted.lifted_by) == ("AE:CT", "technologist")
    told = [e.details.get("what") for e in AuditEvent.objects.filter(action="change").order_by("sequence")]
    assert told[-2:] == ["instances rejected", "instances restored"]


def test_rejecting_by_hand_archives_a_note_that_others_can_follow(study: Study, people: Any) -> None:
    technologist = people["technologist"]
    technologist.first_name, technologist.last_name = "Nora", "Kühn"
    outcome = reject_instances(
        study=study,
        instances=instances(f"{ONE}.1", f"{TWO}.1"),
        reason=Reason.WRONG_WORKLIST_ENTRY,
        principal=principal_of(technologist),
    )
    assert outcome is not None
    assert outcome.is_in
    assert Instance.objects.filter(is_current=True, series__study=study).count() == 1
    kept = Instance.objects.get(sop_instance_uid=outcome.sop_instance_uid)
    assert kept.sop_class_uid == "1.2.840.10008.5.1.4.1.1.88.59"


def test_our_note_reads_as_others_read_it(study: Study) -> None:
    content = note(study, Reason.QUALITY, f"{ONE}.1", f"{TWO}.1")
    dataset = pydicom.dcmread(BytesIO(content))
    assert dataset.ConceptNameCodeSequence[0].CodeMeaning == "Rejected for Quality Reasons"
    assert dataset.PatientName == "Doe^Jane"
    read = read_note(dataset)
    assert read is not None
    assert read.references == ((STUDY, f"{ONE}.1"), (STUDY, f"{TWO}.1"))
    dataset.ConceptNameCodeSequence[0].CodeValue = "113000"
    assert read_note(dataset) is None


def test_our_note_is_valid_for_an_outside_judge(study: Study, tmp_path: Path) -> None:
    judge = shutil.which("dciodvfy")
    if judge is None:
        pytest.skip("dicom3tools aren't installed")
    path = tmp_path / "note.dcm"
    path.write_bytes(note(study, Reason.PATIENT_SAFETY, f"{ONE}.1", f"{TWO}.1"))
    judged = subprocess.run([judge, "-new", str(path)], capture_output=True, text=True)
    assert "Error" not in judged.stderr + judged.stdout
    assert "KeyObjectSelectionDocument" in judged.stderr + judged.stdout


def test_a_person_needs_the_capability(study: Study, north: Any, people: Any) -> None:
    resident: User = people["resident"]
    with pytest.raises(errors.NotAuthorised):
        reject_instances(
            study=study, instances=instances(f"{ONE}.1"), reason=Reason.QUALITY, principal=principal_of(resident)
        )
    with pytest.raises(errors.NotAuthorised):
        restore_instances(study=study, sop_instance_uids=[f"{ONE}.1"], principal=principal_of(resident))
    content = note(study, Reason.QUALITY, f"{ONE}.1")
    (outcome,) = ingest([stage([content])], Source(WayIn.STOW, north, principal_of(resident)))
    assert (outcome.status, outcome.dicom_status) == (Status.REFUSED, 0x0124)
    assert Instance.objects.filter(is_current=True).count() == 3


def test_a_note_has_no_effect_at_another_site(study: Study, north: Any, south: Any, client_of: Any) -> None:
    send(south, note(study, Reason.PATIENT_SAFETY, f"{ONE}.1"))
    assert f"{ONE}.1" in seen(client_of("radiologist"), f"studies/{STUDY}/instances")


def test_a_broken_note_is_refused(north: Any, study: Study) -> None:
    content = note(study, Reason.QUALITY, f"{ONE}.1")
    (outcome,) = send(north, content[: len(content) // 2])
    assert not outcome.is_in
    assert not Rejection.objects.exists()


def test_what_an_older_version_hides_stays_hidden(study: Study, north: Any, people: Any) -> None:
    send(north, ct(1, StudyDescription="changed"))
    send(north, note(study, Reason.QUALITY, f"{ONE}.1"))
    restore_instances(study=study, sop_instance_uids=[f"{ONE}.1"], principal=principal_of(people["technologist"]))
    versions = Instance.objects.filter(sop_instance_uid=f"{ONE}.1").order_by("version")
    assert [v.is_current for v in versions] == [True, False]


def test_uids_of_notes_differ(study: Study) -> None:
    read = [read_note(pydicom.dcmread(BytesIO(note(study, Reason.QUALITY, f"{ONE}.1")))) for _ in range(2)]
    assert len({n.sop_instance_uid for n in read if n} | {generate_uid()}) == 3
