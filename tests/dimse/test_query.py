"""C-FIND before dcmtk's findscu and pynetdicom: levels, matching, character sets, extensions, the gate."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    PatientStudyOnlyQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelFind,
)

from tests.dimse.test_store import dcmtk, send, store
from tests.factories import make_instance
from tests.services.atrium import Atrium, running_atrium

pytestmark = pytest.mark.database

CT_STUDY, MR_STUDY = "1.2.826.0.1.3680043.8.498.71", "1.2.826.0.1.3680043.8.498.72"


def keys(level: str, **keywords: object) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keywords.items():
        setattr(identifier, keyword, value)
    return identifier


def find(
    atrium: Atrium,
    identifier: Dataset,
    model: str = StudyRootQueryRetrieveInformationModelFind,
    *,
    ae_title: str = "WS_NORTH",
    extensions: bytes = b"",
) -> tuple[list[Dataset], Dataset]:
    """Search; give the matches and the last status, its pending predecessors' code in ``pending``."""
    ae = AE(ae_title)
    ae.add_requested_context(model)
    negotiation = []
    if extensions:
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid = model
        item.service_class_application_information = extensions
        negotiation.append(item)
    association = ae.associate("127.0.0.1", atrium.dicom_port, ae_title="ATRIUM", ext_neg=negotiation)
    assert association.is_established
    matches, last, pending = [], Dataset(), set()
    for status, match in association.send_c_find(identifier, model):
        if match is not None:
            matches.append(match)
            pending.add(status.Status)
        last = status
    association.release()
    last.pending = pending
    return matches, last


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    """Give an archive with a CT of two series, an MR, and patients in many scripts."""
    folder = tmp_path_factory.mktemp("files")
    files = [
        make_instance(
            PatientID="Q1",
            PatientName="Müller^Jürgen",
            StudyInstanceUID=CT_STUDY,
            SeriesInstanceUID=f"{CT_STUDY}.{series}",
            SOPInstanceUID=f"{CT_STUDY}.{series}.{number}",
            SeriesNumber=series,
            InstanceNumber=number,
            StudyDate="20260115",
            StudyTime="233000",
            BodyPartExamined="CHEST",
        )
        for series in (1, 2)
        for number in (1, 2, 3)
    ]
    files.append(
        make_instance(
            PatientID="Q2",
            PatientName="Meier^Ida",
            StudyInstanceUID=MR_STUDY,
            Modality="MR",
            StudyDate="20260116",
            StudyTime="003000",
            AccessionNumber="ACC-2",
        )
    )
    paths = []
    for number, content in enumerate(files):
        path = folder / f"{number}.dcm"
        path.write_bytes(content)
        paths.append(path)
    with running_atrium(tmp_path_factory.mktemp("query") / "atrium", "dicom") as atrium:
        assert send(atrium, *paths).returncode == 0
        yield atrium


def names(matches: list[Dataset]) -> list[str]:
    return [str(match.PatientName) for match in matches]


def test_findscu_finds_studies_with_their_counts(filled: Atrium) -> None:
    command = [dcmtk("findscu"), "-S", "-aet", "WS_NORTH", "-aec", "ATRIUM", "127.0.0.1", str(filled.dicom_port)]
    wanted = ["QueryRetrieveLevel=STUDY", "PatientID=Q1", "StudyInstanceUID", "ModalitiesInStudy"]
    wanted += ["NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"]
    done = subprocess.run(
        [*command, *(part for key in wanted for part in ("-k", key))], capture_output=True, text=True, check=True
    )
    said = done.stdout + done.stderr
    assert CT_STUDY in said
    assert MR_STUDY not in said
    for tag, value in (("0008,0061", "CT"), ("0020,1206", "2"), ("0020,1208", "6"), ("0008,0054", "ATRIUM")):
        (line,) = [line for line in said.splitlines() if f"({tag})" in line and "W:" not in line][-1:]
        assert f"[{value}" in line, line


def test_each_level_of_each_root(filled: Atrium) -> None:
    patient_root = PatientRootQueryRetrieveInformationModelFind
    (patient,), _ = find(
        filled, keys("PATIENT", PatientID="Q1", PatientName="", NumberOfPatientRelatedInstances=""), patient_root
    )
    assert patient.NumberOfPatientRelatedInstances == 6
    series, _ = find(filled, keys("SERIES", PatientID="Q1", StudyInstanceUID=CT_STUDY, SeriesNumber=""), patient_root)
    assert [s.SeriesNumber for s in series] == [1, 2]
    images, _ = find(
        filled,
        keys("IMAGE", StudyInstanceUID=CT_STUDY, SeriesInstanceUID=f"{CT_STUDY}.1", SOPInstanceUID="", Rows=""),
    )
    assert [i.SOPInstanceUID for i in images] == [f"{CT_STUDY}.1.{n}" for n in (1, 2, 3)]
    assert {i.Rows for i in images} == {64}
    only, _ = find(
        filled, keys("STUDY", PatientID="Q2", StudyInstanceUID=""), PatientStudyOnlyQueryRetrieveInformationModelFind
    )
    assert [s.StudyInstanceUID for s in only] == [MR_STUDY]


def test_a_level_that_the_model_lacks_is_refused(filled: Atrium) -> None:
    for identifier, model in (
        (keys("PATIENT", PatientID=""), StudyRootQueryRetrieveInformationModelFind),
        (keys("SERIES", StudyInstanceUID=CT_STUDY), PatientStudyOnlyQueryRetrieveInformationModelFind),
        (keys("NONSENSE"), StudyRootQueryRetrieveInformationModelFind),
    ):
        matches, last = find(filled, identifier, model)
        assert matches == []
        assert last.Status == 0xA900


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ({"PatientName": "Müller^Jürgen"}, ["Q1"]),
        ({"PatientName": "muller*"}, ["Q1"]),
        ({"PatientName": "M*^I??"}, ["Q2"]),
        ({"StudyInstanceUID": [CT_STUDY, MR_STUDY, "1.2.3"]}, ["Q2", "Q1"]),
        ({"StudyDate": "20260115-20260115"}, ["Q1"]),
        ({"StudyDate": "20260116-"}, ["Q2"]),
        ({"StudyDate": "-20260115"}, ["Q1"]),
        ({"ModalitiesInStudy": "MR"}, ["Q2"]),
        ({"AccessionNumber": "ACC-?"}, ["Q2"]),
        ({"PatientID": "*"}, ["Q2", "Q1"]),
        ({"PatientID": "q1"}, []),
        ({"BodyPartExamined": "CHEST"}, ["Q1"]),
        ({"SeriesInstanceUID": f"{CT_STUDY}.2"}, ["Q1"]),
    ],
)
def test_matching(filled: Atrium, key: dict[str, object], found: list[str]) -> None:
    identifier = keys("STUDY", PatientID="")
    identifier.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in key.items():
        setattr(identifier, keyword, value)
    matches, last = find(filled, identifier)
    assert [m.PatientID for m in matches] == found
    assert last.Status == 0x0000


def test_a_bad_date_is_refused_with_a_reason(filled: Atrium) -> None:
    matches, last = find(filled, keys("STUDY", StudyDate="tomorrow"))
    assert matches == []
    assert last.Status == 0xC000
    assert "StudyDate" in last.ErrorComment


def test_date_and_time_are_one_moment_only_where_negotiated(filled: Atrium) -> None:
    identifier = keys("STUDY", PatientID="", StudyDate="20260115-20260116", StudyTime="230000-010000")
    apart, _ = find(filled, identifier)
    assert apart == []
    together, _ = find(filled, identifier, extensions=b"\0\1\0\0\0")
    assert {m.PatientID for m in together} == {"Q1", "Q2"}


def test_fuzzy_names_are_found_only_where_negotiated(filled: Atrium) -> None:
    identifier = keys("STUDY", PatientID="", PatientName="Mayer^Ida")
    assert find(filled, identifier)[0] == []
    assert [m.PatientID for m in find(filled, identifier, extensions=b"\0\0\1\0\0")[0]] == ["Q2"]


def test_supported_keys_come_back_empty_and_unsupported_ones_are_told(filled: Atrium) -> None:
    (match,), last = find(filled, keys("STUDY", StudyInstanceUID=MR_STUDY, OtherPatientNames="", PatientComments=""))
    assert match.PatientComments in {"", None}
    assert last.pending == {0xFF00}
    (match,), last = find(filled, keys("STUDY", StudyInstanceUID=MR_STUDY, KVP=""))
    assert "KVP" not in match
    assert last.pending == {0xFF01}


def test_a_node_finds_nothing_of_another_site_and_only_what_it_may(filled: Atrium) -> None:
    assert find(filled, keys("STUDY", PatientID=""), ae_title="WS_SOUTH")[0] == []
    matches, last = find(filled, keys("STUDY", PatientID=""), ae_title="CT_NORTH")
    assert matches == []
    assert last.Status == 0x0124


def test_a_search_can_be_cancelled(filled: Atrium) -> None:
    model = StudyRootQueryRetrieveInformationModelFind
    ae = AE("WS_NORTH")
    ae.add_requested_context(model)
    association = ae.associate("127.0.0.1", filled.dicom_port, ae_title="ATRIUM")
    answers = association.send_c_find(keys("IMAGE", SOPInstanceUID=""), model, msg_id=7)
    next(answers)
    association.send_c_cancel(7, query_model=model)
    last = [status.Status for status, _ in answers][-1]
    association.release()
    assert last in {0xFE00, 0x0000}  # all may be under way already


SCRIPTS = {
    "H31": ("\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "X2": ("\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동"),
    "ZH": ("GB18030", "Wang^XiaoDong=王^小东"),
    "CYR": ("ISO_IR 144", "Люкceмбypг"),
    "GR": ("ISO_IR 126", "Διονυσιος"),
    "AR": ("ISO_IR 127", "قباني^لنزار"),
    "HE": ("ISO_IR 138", "שרון^דבורה"),
    "LATIN": ("ISO_IR 100", "Äneas^Rüdiger"),
}


@pytest.fixture(scope="module")
def scripts(filled: Atrium, tmp_path_factory: pytest.TempPathFactory) -> Atrium:
    folder: Path = tmp_path_factory.mktemp("scripts")
    for patient, (character_set, name) in SCRIPTS.items():
        path = folder / f"{patient}.dcm"
        path.write_bytes(
            make_instance(
                PatientID=patient,
                SpecificCharacterSet=character_set.split("\\") if "\\" in character_set else character_set,
                PatientName=name,
            )
        )
        assert store(filled, path) == 0x0000
    return filled


@pytest.mark.parametrize("patient", sorted(SCRIPTS))
def test_names_are_asked_and_answered_in_the_callers_character_set(scripts: Atrium, patient: str) -> None:
    character_set, name = SCRIPTS[patient]
    identifier = keys("STUDY", PatientID="", PatientName=name.split("=")[1] if "=" in name else name)
    identifier.SpecificCharacterSet = character_set.split("\\") if "\\" in character_set else character_set
    (match,), _ = find(scripts, identifier)
    assert match.PatientID == patient
    assert str(match.PatientName) == name
    answered = match.SpecificCharacterSet
    assert ("\\".join(answered) if not isinstance(answered, str) else answered) == character_set


def test_a_caller_that_cannot_read_a_script_is_answered_in_unicode(scripts: Atrium) -> None:
    identifier = keys("STUDY", PatientID="ZH", PatientName="")
    identifier.SpecificCharacterSet = "ISO_IR 100"
    (match,), _ = find(scripts, identifier)
    assert match.SpecificCharacterSet == "ISO_IR 192"
    assert str(match.PatientName) == SCRIPTS["ZH"][1]


def test_every_real_character_set_is_found_by_its_own_name(shared: Path, scripts: Atrium) -> None:
    files = sorted((shared / "dicom" / "charsets").rglob("*.dcm"))
    assert files
    for path in files:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        assert store(scripts, path) == 0x0000
        identifier = keys("STUDY", StudyInstanceUID=dataset.StudyInstanceUID, PatientName=dataset.PatientName)
        if "SpecificCharacterSet" in dataset:
            identifier.SpecificCharacterSet = dataset.SpecificCharacterSet
        (match,), _ = find(scripts, identifier)
        assert str(match.PatientName) == str(dataset.PatientName), path.name
