"""A case waits for its images while a modality makes them, and for a reader afterwards."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pydicom import Dataset
from pydicom.uid import generate_uid

from studies import events, reading
from studies.models import Instance, StatusChange, Study
from studies.orders import acquisition
from studies.orders.models import PerformedProcedureStep
from studies.orders.patients import PatientIdentity
from studies.orders.performed import change_performed_step, create_performed_step
from studies.orders.services import OrderDetails, place_order
from studies.worklists import selectors
from studies.worklists.models import AssignmentRule, CaseClock, ReadingGroup
from studies.worklists.sorting import sorting
from tests.factories import make_instance, principal_of
from tests.orders.test_orders import place

pytestmark = [pytest.mark.django_db, pytest.mark.database]
UID = "1.2.840.1"


class Modality:
    """A CT that works on one study."""

    def __init__(self, site: Any, principal: Any) -> None:
        self.site, self.principal = site, principal

    def begin(self, study_instance_uid: str = UID) -> str:
        item, dataset, uid = Dataset(), Dataset(), generate_uid()
        item.StudyInstanceUID = study_instance_uid
        dataset.ScheduledStepAttributesSequence = [item]
        dataset.PerformedProcedureStepID, dataset.PerformedStationAETitle, dataset.Modality = "P", "CT1", "CT"
        dataset.PerformedProcedureStepStartDate, dataset.PerformedProcedureStepStartTime = "20260302", "091000"
        dataset.PerformedProcedureStepStatus = "IN PROGRESS"
        create_performed_step(site=self.site, sop_instance_uid=uid, dataset=dataset, principal=self.principal)
        return uid

    def end(self, uid: str, status: str, reason: str = "") -> None:
        changes = Dataset()
        changes.PerformedProcedureStepStatus = status
        if reason:
            code = Dataset()
            code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "110513", "DCM", reason
            changes.PerformedProcedureStepDiscontinuationReasonCodeSequence = [code]
        change_performed_step(site=self.site, sop_instance_uid=uid, changes=changes, principal=self.principal)


@pytest.fixture
def modality(north: Any, people: Any) -> Modality:
    return Modality(north, principal_of(people["admin"]))


@pytest.fixture
def image(north: Any, ingest_files: Any) -> Any:
    def come() -> None:
        ingest_files(north, make_instance(StudyInstanceUID=UID))

    return come


def study() -> Study:
    return Study.objects.get(study_instance_uid=UID)


def offered(people: Any) -> list[str]:
    found = selectors.waiting(principal_of(people["radiologist"]), {}, sorting("priority,date"))
    return [one.study_instance_uid for one in found]


def test_a_case_is_offered_to_readers_once_its_modality_has_ended(modality: Modality, image: Any, people: Any) -> None:
    uid = modality.begin()
    image()
    assert offered(people) == [], "not even before its status has followed"
    events.deliver_due()
    assert study().status == Study.Status.ACQUIRING
    modality.end(uid, "COMPLETED")
    assert study().status == Study.Status.ARRIVED
    assert offered(people) == [UID]
    assert list(StatusChange.objects.values_list("status", flat=True)) == ["acquiring", "arrived"]


def test_images_before_the_modality_says_that_it_has_begun(modality: Modality, image: Any, people: Any) -> None:
    image()
    events.deliver_due()
    assert offered(people) == [UID]
    modality.begin()
    assert study().status == Study.Status.ACQUIRING
    assert offered(people) == []


def test_a_case_waits_for_the_last_of_several_steps(modality: Modality, image: Any) -> None:
    first, second = modality.begin(), modality.begin()
    image()
    events.deliver_due()
    modality.end(first, "COMPLETED")
    assert study().status == Study.Status.ACQUIRING
    modality.end(second, "DISCONTINUED")
    assert study().status == Study.Status.ARRIVED


def test_what_was_discontinued_is_read_with_the_images_it_has_and_says_so(
    modality: Modality, image: Any, north: Any, people: Any, client_of: Any
) -> None:
    place_order(
        site=north,
        patient=PatientIdentity("P1", "Doe^Jane"),
        details=OrderDetails("CT thorax", "CT", timezone.now(), accession_number="A1", study_instance_uid=UID),
        principal=modality.principal,
    )
    uid = modality.begin()
    image()
    events.deliver_due()
    page = client_of("radiologist").get(f"/studies/{UID}/").content.decode()
    assert "CT1 is still making images of this study, since 09:10" in page
    listed = client_of("radiologist").get("/worklist/?status=acquiring").content.decode()
    assert "Being acquired" in listed
    assert "DOE, Jane" in listed
    modality.end(uid, "DISCONTINUED", "Equipment failure")
    assert study().status == Study.Status.ARRIVED
    page = client_of("radiologist").get(f"/studies/{UID}/").content.decode()
    assert "still making" not in page
    assert "broken off at CT1" in page
    assert "Equipment failure" in page
    beside = client_of("radiologist").get(f"/studies/{UID}/claim/", HTTP_HX_REQUEST="true").content.decode()
    assert 'id="acquisition" hx-swap-oob="true"' in beside, "an open page hears of it, too"
    assert "broken off at CT1" in beside


def test_a_discontinued_study_without_images_is_called_off_until_some_come(modality: Modality, image: Any) -> None:
    uid = modality.begin()
    image()
    events.deliver_due()
    Instance.objects.all().delete()
    Study.objects.update(number_of_instances=0)
    modality.end(uid, "DISCONTINUED")
    assert study().status == Study.Status.CANCELLED
    image()
    events.emit("study.settled", study=study().pk)
    events.deliver_due()
    assert study().status == Study.Status.ARRIVED


def test_a_case_that_somebody_reads_stays_with_them(modality: Modality, image: Any, people: Any) -> None:
    image()
    events.deliver_due()
    reading.set_status(study(), Study.Status.IN_READING, people["radiologist"])
    uid = modality.begin()
    assert study().status == Study.Status.IN_READING
    modality.end(uid, "COMPLETED")
    assert study().status == Study.Status.IN_READING


def test_a_case_has_its_reader_and_its_clock_while_its_images_are_made(
    modality: Modality, image: Any, north: Any, people: Any
) -> None:
    group = ReadingGroup.objects.create(site=north, name="All")
    group.members.set([people["radiologist"]])
    AssignmentRule.objects.create(group=group, only_on_shift=False)
    modality.begin()
    image()
    events.deliver_due()
    assert (study().status, study().assigned_to) == (Study.Status.ACQUIRING, people["radiologist"])
    assert CaseClock.objects.filter(study=study()).exists()


def test_a_modality_that_falls_silent_holds_a_case_for_half_a_day(modality: Modality, image: Any, people: Any) -> None:
    modality.begin()
    image()
    events.deliver_due()
    assert acquisition.end_forgotten() == 0
    PerformedProcedureStep.objects.update(received_at=timezone.now() - acquisition.LONGEST - timedelta(minutes=1))
    assert acquisition.end_forgotten() == 1
    assert study().status == Study.Status.ARRIVED
    assert offered(people) == [UID]


def test_another_sites_step_changes_nothing_here(south: Any, people: Any, image: Any) -> None:
    Modality(south, principal_of(people["admin"])).begin()
    image()
    events.deliver_due()
    assert study().status == Study.Status.ARRIVED
    assert offered(people) == [UID]


def test_an_order_tells_which_station_took_it_along(north: Any, modality: Modality, people: Any) -> None:
    order = place(people, north, study_instance_uid=UID)
    modality.end(modality.begin(), "COMPLETED")
    steps = order.status_changes.values_list("status", "user", "station_ae_title")
    assert list(steps) == [("in_progress", None, "CT1"), ("completed", None, "CT1")]
