"""Modality worklist and performed procedure steps before findscu and pynetdicom as a modality."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.sop_class import (
    ModalityPerformedProcedureStep,
    ModalityPerformedProcedureStepRetrieve,
    ModalityWorklistInformationFind,
)

from tests.dimse.test_query import find
from tests.dimse.test_store import dcmtk, send
from tests.factories import make_instance
from tests.services.atrium import Atrium, running_atrium
from tests.services.dicom_peers import tool, wait_for_port
from tests.services.ports import free_port

pytestmark = pytest.mark.database

ORDERS = """
from datetime import date, datetime, timedelta
from django.utils import timezone
from accounts.models import Site, User
from accounts.principals import principal_of_user
from studies.dimse.models import Node
from studies.orders.models import ScheduledProcedureStep
from studies.orders.patients import PatientIdentity
from studies.orders.services import OrderDetails, place_order, cancel_order
admin = principal_of_user(User.objects.get(username="admin"))
north, south = (Site.objects.get(slug=s) for s in ("north", "south"))
def place(site, number, name, when, modality="CT", station="CT_NORTH", **more):
    return place_order(site=site, principal=admin,
        patient=PatientIdentity(f"W{number}", name, patient_birth_date=date(1950, 5, 17), patient_sex="F"),
        details=OrderDetails(description="CT thorax", modality=modality, accession_number=f"AN{number}",
            scheduled_at=timezone.make_aware(when), station_ae_title=station, performing_physician_name="Curie^Marie",
            referring_physician_name="Okafor^Ada^^Dr", indication="cough", **more))
day = datetime(2026, 3, 2)
place(north, 1, "Øst^Åse", day.replace(hour=9), priority="STAT")
place(north, 2, "Zhu^Li=朱^丽", day.replace(hour=23, minute=30))
place(north, 3, "Late^Lee", day + timedelta(days=1, minutes=30), modality="MR", station="MR_NORTH")
place(north, 4, "Any^Where", day + timedelta(days=9), station="")
place(south, 5, "South^Sam", day.replace(hour=9))
cancel_order(order=place(north, 6, "Never^Mind", day.replace(hour=9)), principal=admin)
two = place(north, 7, "Group^Gil", day + timedelta(days=20))
ScheduledProcedureStep.objects.create(order=two, scheduled_procedure_step_id="SECOND", modality="CT",
    scheduled_at=timezone.make_aware(day + timedelta(days=20)))
"""


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    with running_atrium(tmp_path_factory.mktemp("worklist") / "atrium", "dicom") as atrium:
        atrium.manage("shell", "--no-imports", "-c", ORDERS)
        yield atrium


def step_keys(**keywords: Any) -> Dataset:
    """Give a worklist query with keys of the scheduled step, and what modalities usually want back."""
    identifier, step = Dataset(), Dataset()
    identifier.SpecificCharacterSet = "ISO_IR 192"
    for keyword in ("PatientName", "PatientID", "AccessionNumber", "StudyInstanceUID", "RequestedProcedureID"):
        setattr(identifier, keyword, "")
    for keyword in ("ScheduledProcedureStepID", "ScheduledProcedureStepStartDate", "Modality"):
        setattr(step, keyword, "")
    for keyword, value in keywords.items():
        setattr(step, keyword, value)
    identifier.ScheduledProcedureStepSequence = [step]
    return identifier


def patients(atrium: Atrium, identifier: Dataset, ae_title: str = "CT_NORTH") -> list[str]:
    matches, last = find(atrium, identifier, ModalityWorklistInformationFind, ae_title=ae_title)
    assert last.Status == 0x0000
    return [match.PatientID for match in matches]


def test_findscu_gets_the_worklist_with_its_return_keys(planned: Atrium) -> None:
    command = [dcmtk("findscu"), "-W", "-aet", "CT_NORTH", "-aec", "ATRIUM", "127.0.0.1", str(planned.dicom_port)]
    step = "ScheduledProcedureStepSequence[0]."
    wanted = [
        "AccessionNumber=AN1",
        "PatientName",
        "PatientBirthDate",
        "StudyInstanceUID",
        "RequestedProcedurePriority",
    ]
    wanted += [f"{step}ScheduledStationAETitle", f"{step}ScheduledProcedureStepStartTime", f"{step}Modality=CT"]
    wanted += ["ReferringPhysicianName", f"{step}ScheduledPerformingPhysicianName", "MedicalAlerts"]
    done = subprocess.run(
        [*command, *(part for key in wanted for part in ("-k", key))], capture_output=True, text=True, errors="replace"
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    for value in ("[AN1", "[19500517]", "[STAT", "[CT_NORTH", "[090000", "[Okafor^Ada^^Dr", "[Curie^Marie"):
        assert value in said, value


@pytest.mark.parametrize(
    ("step", "found"),
    [
        ({}, ["W1", "W2", "W3", "W4", "W7", "W7"]),
        ({"ScheduledProcedureStepStartDate": "20260302"}, ["W1", "W2"]),
        ({"ScheduledProcedureStepStartDate": "20260302-20260303", "Modality": "MR"}, ["W3"]),
        (
            {
                "ScheduledProcedureStepStartDate": "20260302-20260303",
                "ScheduledProcedureStepStartTime": "230000-010000",
            },
            ["W2", "W3"],
        ),
        ({"ScheduledProcedureStepStartDate": "20260302", "ScheduledProcedureStepStartTime": "0800-1000"}, ["W1"]),
        ({"ScheduledProcedureStepStartTime": "2300-2359"}, ["W2"]),
        ({"ScheduledStationAETitle": "MR_NORTH"}, ["W3", "W4", "W7"]),
        ({"ScheduledPerformingPhysicianName": "curie*", "ScheduledProcedureStepStartDate": "20260302"}, ["W1", "W2"]),
        ({"ScheduledPerformingPhysicianName": "Joliot*"}, []),
        ({"ScheduledProcedureStepStatus": "STARTED"}, []),
    ],
)
def test_steps_are_matched(planned: Atrium, step: dict[str, str], found: list[str]) -> None:
    assert patients(planned, step_keys(**step)) == found


def test_patients_are_matched_and_names_come_in_every_script(planned: Atrium) -> None:
    identifier = step_keys()
    identifier.PatientName = "朱*"
    (match,), _ = find(planned, identifier, ModalityWorklistInformationFind, ae_title="CT_NORTH")
    assert str(match.PatientName) == "Zhu^Li=朱^丽"
    identifier = step_keys()
    identifier.SpecificCharacterSet = "ISO_IR 100"
    identifier.PatientID = "W1"
    (match,), _ = find(planned, identifier, ModalityWorklistInformationFind, ae_title="CT_NORTH")
    assert (match.SpecificCharacterSet, str(match.PatientName)) == ("ISO_IR 100", "Øst^Åse")


def test_another_site_sees_its_own_and_a_node_without_right_nothing(planned: Atrium) -> None:
    assert patients(planned, step_keys(), "CT_SOUTH") == ["W5"]
    matches, last = find(planned, step_keys(), ModalityWorklistInformationFind, ae_title="WS_NORTH")
    assert (matches, last.Status) == ([], 0x0124)


def test_a_bad_date_is_refused(planned: Atrium) -> None:
    _, last = find(
        planned, step_keys(ScheduledProcedureStepStartDate="soon"), ModalityWorklistInformationFind, ae_title="CT_NORTH"
    )
    assert last.Status == 0xC000


@pytest.fixture(scope="module")
def other_server(planned: Atrium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run dcmtk's worklist server over what ours tells of its steps; give its port."""
    folder = tmp_path_factory.mktemp("wlmscpfs")
    lists = folder / "ATRIUM"
    lists.mkdir()
    (lists / "lockfile").touch()
    universal = step_keys(ScheduledProcedureStepStatus="", **dict.fromkeys(COMPARED_IN_STEP, ""))
    for keyword in ("PatientBirthDate", "PatientSex", "ReferringPhysicianName", "RequestedProcedureDescription"):
        setattr(universal, keyword, "")
    matches, _ = find(planned, universal, ModalityWorklistInformationFind, ae_title="CT_NORTH")
    assert len(matches) == 6
    for number, match in enumerate(matches):
        pydicom.dcmwrite(lists / f"{number}.wl", match, implicit_vr=False, little_endian=True)
        dump = subprocess.run([dcmtk("dcmdump"), str(lists / f"{number}.wl")], capture_output=True, text=True)
        assert dump.returncode == 0, dump.stderr
    port = free_port()
    command = [tool("wlmscpfs"), "-dfp", str(folder), "-dfr", "-csk", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield port
    finally:
        process.terminate()
        process.wait()


COMPARED = ("PatientID", "PatientName", "AccessionNumber", "StudyInstanceUID", "RequestedProcedureID")
COMPARED_IN_STEP = (
    *("ScheduledProcedureStepID", "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime", "Modality"),
    *("ScheduledStationAETitle", "ScheduledPerformingPhysicianName", "ScheduledProcedureStepDescription"),
)


def compared(port: int, identifier: Dataset) -> tuple[list[tuple[str, ...]], int]:
    """Ask a worklist server; give of each answer what is to be compared, and the last status."""
    ae = AE("CT_NORTH")
    ae.add_requested_context(ModalityWorklistInformationFind)
    association = ae.associate("127.0.0.1", port, ae_title="ATRIUM")
    assert association.is_established
    rows, last = [], -1
    for status, match in association.send_c_find(identifier, ModalityWorklistInformationFind):
        last = status.Status
        if match is not None:
            (step,) = match.ScheduledProcedureStepSequence
            # dcmtk leaves out what is empty, ours gives it without a value.
            values = [match.get(k) for k in COMPARED] + [step.get(k) for k in COMPARED_IN_STEP]
            rows.append(tuple(str(value or "") for value in values))
    association.release()
    return sorted(rows), last


@pytest.mark.parametrize(
    ("step", "patient", "count"),
    [
        ({}, {}, 6),
        ({"Modality": "MR"}, {}, 1),
        ({"ScheduledProcedureStepStartDate": "20260302"}, {}, 2),
        ({"ScheduledProcedureStepStartDate": "20260303-"}, {}, 4),
        ({"ScheduledProcedureStepStartDate": "-20260302"}, {}, 2),
        ({"ScheduledProcedureStepStartDate": "20260302", "ScheduledProcedureStepStartTime": "0800-1000"}, {}, 1),
        ({"ScheduledProcedureStepStartTime": "230000-235900"}, {}, 1),
        ({"ScheduledPerformingPhysicianName": "Curie*", "ScheduledProcedureStepStartDate": "20260302"}, {}, 2),
        ({"ScheduledPerformingPhysicianName": "Joliot*"}, {}, 0),
        ({}, {"PatientID": "W3"}, 1),
        ({}, {"PatientName": "Late*"}, 1),
        ({}, {"PatientName": "?roup^Gil"}, 2),
        ({}, {"AccessionNumber": "AN2"}, 1),
        ({}, {"AccessionNumber": "ELSE"}, 0),
    ],
)
def test_dcmtks_worklist_server_answers_the_same(
    planned: Atrium, other_server: int, step: dict[str, str], patient: dict[str, str], count: int
) -> None:
    identifier = step_keys(**{**dict.fromkeys(COMPARED_IN_STEP, ""), **step})
    for keyword, value in patient.items():
        setattr(identifier, keyword, value)
    ours, theirs = compared(planned.dicom_port, identifier), compared(other_server, identifier)
    assert len(ours[0]) == count
    assert ours == theirs


class Modality:
    """A CT that performs what the worklist gave it."""

    def __init__(self, atrium: Atrium, ae_title: str = "CT_NORTH") -> None:
        ae = AE(ae_title)
        ae.add_requested_context(ModalityPerformedProcedureStep)
        ae.add_requested_context(ModalityPerformedProcedureStepRetrieve)
        self.association = ae.associate("127.0.0.1", atrium.dicom_port, ae_title="ATRIUM")
        assert self.association.is_established

    def begin(self, items: list[Dataset], **keywords: Any) -> tuple[str, Dataset]:
        dataset, uid = Dataset(), generate_uid()
        dataset.ScheduledStepAttributesSequence = [scheduled(item) for item in items]
        dataset.PatientName, dataset.PatientID = "Any^Body", "W"
        dataset.PerformedProcedureStepID = "P1"
        dataset.PerformedStationAETitle = "CT_NORTH"
        dataset.PerformedProcedureStepStartDate, dataset.PerformedProcedureStepStartTime = "20260302", "091000"
        dataset.PerformedProcedureStepStatus = "IN PROGRESS"
        dataset.Modality = "CT"
        for keyword, value in keywords.items():
            setattr(dataset, keyword, value)
        status, _ = self.association.send_n_create(dataset, ModalityPerformedProcedureStep, uid)
        return uid, status

    def change(self, uid: str, **keywords: Any) -> Dataset:
        changes = Dataset()
        for keyword, value in keywords.items():
            setattr(changes, keyword, value)
        status, _ = self.association.send_n_set(changes, ModalityPerformedProcedureStep, uid)
        return status

    def end(self, uid: str, status: str) -> int:
        answer = self.change(
            uid,
            PerformedProcedureStepStatus=status,
            PerformedProcedureStepEndDate="20260302",
            PerformedProcedureStepEndTime="092000",
        )
        return int(answer.Status)


def scheduled(item: Dataset | None) -> Dataset:
    attributes = Dataset()
    attributes.StudyInstanceUID = item.StudyInstanceUID if item else generate_uid()
    attributes.AccessionNumber = item.AccessionNumber if item else ""
    if item:
        attributes.ScheduledProcedureStepID = item.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID
        attributes.RequestedProcedureID = item.RequestedProcedureID
    return attributes


@pytest.fixture
def modality(planned: Atrium) -> Iterator[Modality]:
    modality = Modality(planned)
    yield modality
    modality.association.release()


def items(atrium: Atrium, patient: str, status: str = "") -> list[Dataset]:
    identifier = step_keys(ScheduledProcedureStepStatus=status)
    identifier.PatientID = patient
    return find(atrium, identifier, ModalityWorklistInformationFind, ae_title="CT_NORTH")[0]


def order_status(atrium: Atrium, accession_number: str) -> str:
    return atrium.manage(
        "shell",
        "--no-imports",
        "-c",
        "from studies.orders.models import Order\n"
        f"o = Order.objects.get(accession_number='{accession_number}')\n"
        "print(o.status, *o.scheduled_steps.order_by('pk').values_list('status', flat=True))",
    ).strip()


def test_a_step_is_begun_and_completed_and_leaves_the_worklist(planned: Atrium, modality: Modality) -> None:
    (item,) = items(planned, "W1")
    uid, status = modality.begin([item])
    assert status.Status == 0x0000
    assert items(planned, "W1") == []
    assert len(items(planned, "W1", "STARTED")) == 1
    assert order_status(planned, "AN1") == "in_progress STARTED"
    assert modality.end(uid, "COMPLETED") == 0x0000
    assert order_status(planned, "AN1") == "completed COMPLETED"


def test_an_ended_step_can_not_be_changed(modality: Modality) -> None:
    uid, _ = modality.begin([None])
    assert modality.end(uid, "DISCONTINUED") == 0x0000
    answer = modality.change(uid, PerformedProcedureStepDescription="again")
    assert (answer.Status, answer.ErrorID) == (0x0110, 0xA710)


def test_a_discontinued_step_discontinues_its_order_until_done_again(planned: Atrium, modality: Modality) -> None:
    (item,) = items(planned, "W2")
    first, _ = modality.begin([item])
    assert modality.end(first, "DISCONTINUED") == 0x0000
    assert order_status(planned, "AN2") == "discontinued DISCONTINUED"
    again, _ = modality.begin([item])  # append case
    assert modality.end(again, "COMPLETED") == 0x0000
    assert order_status(planned, "AN2") == "completed COMPLETED"


def test_one_performed_step_answers_several_scheduled_ones(planned: Atrium, modality: Modality) -> None:
    both = items(planned, "W7")
    assert len(both) == 2
    uid, _ = modality.begin(both)
    assert order_status(planned, "AN7") == "in_progress STARTED STARTED"
    assert modality.end(uid, "COMPLETED") == 0x0000
    assert order_status(planned, "AN7") == "completed COMPLETED COMPLETED"


def study_status(atrium: Atrium, study_instance_uid: str) -> str:
    """Deliver what waits in the outbox, and give the study's status."""
    return atrium.manage(
        "shell",
        "--no-imports",
        "-c",
        "from studies import events\n"
        "from studies.models import Study\n"
        "events.deliver_due()\n"
        f"print(Study.objects.get(study_instance_uid='{study_instance_uid}').status)",
    ).strip()


def test_a_study_is_being_acquired_until_its_modality_says_that_it_has_ended(
    planned: Atrium, modality: Modality, tmp_path: Path
) -> None:
    (item,) = items(planned, "W4")
    uid, _ = modality.begin([item])
    image = tmp_path / "image.dcm"
    image.write_bytes(make_instance(StudyInstanceUID=item.StudyInstanceUID, PatientID="W4", AccessionNumber="AN4"))
    assert send(planned, image).returncode == 0
    assert study_status(planned, item.StudyInstanceUID) == "acquiring"
    assert modality.change(uid, PerformedProcedureStepDescription="half").Status == 0x0000
    assert study_status(planned, item.StudyInstanceUID) == "acquiring"
    assert modality.end(uid, "COMPLETED") == 0x0000
    assert study_status(planned, item.StudyInstanceUID) == "arrived"


def test_what_must_be_there_must_be_there(modality: Modality) -> None:
    assert modality.begin([None], PerformedProcedureStepID="")[1].Status == 0x0120
    assert modality.begin([None], PerformedProcedureStepStatus="COMPLETED")[1].Status == 0x0106
    uid, _ = modality.begin([None])
    assert modality.change(uid, Modality="MR").Status == 0x0106
    assert modality.change("1.2.3", PerformedProcedureStepDescription="x").Status == 0x0112
    dataset = Dataset()
    dataset.ScheduledStepAttributesSequence = [scheduled(None)]
    dataset.PerformedProcedureStepID, dataset.PerformedStationAETitle, dataset.Modality = "P", "CT_NORTH", "CT"
    dataset.PerformedProcedureStepStartDate, dataset.PerformedProcedureStepStartTime = "20260302", "09"
    dataset.PerformedProcedureStepStatus = "IN PROGRESS"
    assert modality.association.send_n_create(dataset, ModalityPerformedProcedureStep, uid)[0].Status == 0x0111


def test_a_step_can_be_read_back_by_its_site_only(planned: Atrium, modality: Modality) -> None:
    uid, _ = modality.begin([None])
    assert modality.change(uid, PerformedProcedureStepDescription="thorax").Status == 0x0000
    status, dataset = modality.association.send_n_get(
        [0x00400252, 0x00400254], ModalityPerformedProcedureStepRetrieve, uid
    )
    assert status.Status == 0x0000
    assert dataset.PerformedProcedureStepStatus == "IN PROGRESS"
    assert dataset.PerformedProcedureStepDescription == "thorax"
    assert "PatientID" not in dataset
    south = Modality(planned, "CT_SOUTH")
    assert south.change(uid, PerformedProcedureStepDescription="mine").Status == 0x0112
    south.association.release()
    workstation = Modality(planned, "WS_NORTH")
    assert workstation.begin([None])[1].Status == 0x0124
    workstation.association.release()
