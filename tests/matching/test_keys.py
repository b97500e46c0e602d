"""Keys of every kind find what PS3.4 §C.2.2.2 says they find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset, Sequence

from studies.matching import (
    InvalidKeyValue,
    Level,
    Options,
    UnknownAttribute,
    criteria_of,
    matching_instances,
    matching_patients,
    matching_series,
    matching_studies,
    study_attributes,
)
from studies.models import Instance, Series, Study
from tests.factories import make_instance, principal_of

pytestmark = [pytest.mark.django_db, pytest.mark.database]
Find = Callable[..., list[str]]


def item(**keywords: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in keywords.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.fixture
def find(north: Any, people: Any, ingest_files: Any) -> Find:
    """Put three different studies in and give a search for their patients' IDs."""
    ingest_files(
        north,
        make_instance(
            PatientID="M1",
            PatientName="Müller^Jürgen^^Dr",
            IssuerOfPatientID="NORTH",
            StudyDate="20260901",
            StudyTime="233000",
            TimezoneOffsetFromUTC="+0200",
            AccessionNumber="A-1",
            StudyDescription="CT thorax (low dose)",
            IssuerOfAccessionNumberSequence=Sequence([item(LocalNamespaceEntityID="RIS1")]),
            ProcedureCodeSequence=Sequence(
                [
                    item(CodeValue="CTCHEST", CodingSchemeDesignator="99X", CodeMeaning="Chest"),
                    item(CodeValue="CTABD", CodingSchemeDesignator="99Y", CodeMeaning="Abdomen"),
                ]
            ),
            RequestAttributesSequence=Sequence(
                [
                    item(ScheduledProcedureStepID="SPS1", RequestedProcedureID="RP1"),
                    item(ScheduledProcedureStepID="SPS2", RequestedProcedureID="RP2"),
                ]
            ),
            NameOfPhysiciansReadingStudy="Ångström^Åsa",
            PatientWeight=80,
            PerformedProcedureStepStartDate="20260901",
            PerformedProcedureStepStartTime="221500.25",
            Modality="CT",
            BodyPartExamined="CHEST",
            SeriesNumber=3,
            InstanceNumber=7,
        ),
        make_instance(
            PatientID="Y2",
            PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
            StudyDate="20260902",
            StudyTime="003000",
            TimezoneOffsetFromUTC="+0900",
            AccessionNumber="A-2",
            StudyDescription="MR",
            RequestAttributesSequence=Sequence([item(ScheduledProcedureStepID="SPS1", RequestedProcedureID="RP2")]),
            PerformedProcedureStepStartDate="20260902",
            PerformedProcedureStepStartTime="0830",
            Modality="MR",
            PatientComments="",
        ),
        make_instance(
            PatientID="H3",
            PatientName="Hong^Gildong=洪^吉洞=홍^길동",
            StudyDate="",
            StudyTime="",
            AccessionNumber="",
            StudyDescription="US abdomen",
            ReferringPhysicianName="",
            Modality="US",
            SeriesNumber=None,
        ),
    )
    principal = principal_of(people["radiologist"])

    def search(options: Options | None = None, **keys: str) -> list[str]:
        criteria = criteria_of([(name.replace("__", "."), value) for name, value in keys.items()], options)
        return sorted(study.patient_id_value for study in matching_studies(principal, criteria))

    return search


ALL = ["H3", "M1", "Y2"]


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({}, ALL),
        ({"PatientID": ""}, ALL),
        ({"PatientID": "*"}, ALL),
        ({"PatientID": "M1"}, ["M1"]),
        ({"PatientID": "m1"}, []),
        ({"PatientID": "?1"}, ["M1"]),
        ({"PatientID": "M*"}, ["M1"]),
        ({"IssuerOfPatientID": "NORTH"}, ["M1"]),
        ({"AccessionNumber": "A-?"}, ["M1", "Y2"]),
        ({"StudyDescription": "*(low dose)"}, ["M1"]),
        ({"StudyDescription": "CT thorax (low.dose)"}, []),
        ({"StudyDate": "20260901"}, ["M1"]),
        ({"StudyDate": "2026.09.01"}, ["M1"]),
        ({"StudyDate": "20260901-20260902"}, ["M1", "Y2"]),
        ({"StudyDate": "-20260901"}, ["M1"]),
        ({"StudyDate": "20260902-"}, ["Y2"]),
        ({"StudyTime": "2330"}, ["M1"]),
        ({"StudyTime": "-01"}, ["Y2"]),
        ({"StudyTime": "00-2330"}, ["M1", "Y2"]),
        ({"ModalitiesInStudy": "CT"}, ["M1"]),
        ({"ModalitiesInStudy": "CT\\MR"}, ["M1", "Y2"]),
        ({"ModalitiesInStudy": "?S"}, ["H3"]),
        ({"ModalitiesInStudy": "T"}, []),
        ({"Modality": "MR"}, ["Y2"]),
        ({"BodyPartExamined": "CHEST"}, ["M1"]),
        ({"SeriesNumber": "3"}, ["M1"]),
        ({"InstanceNumber": "7"}, ["M1"]),
        ({"SeriesNumber": "3", "InstanceNumber": "1"}, []),
        ({"NumberOfStudyRelatedInstances": "1"}, ALL),
        ({"NumberOfStudyRelatedInstances": "2"}, []),
        ({"SOPClassesInStudy": "1.2.840.10008.5.1.4.1.1.2"}, ALL),
        ({"SOPClassesInStudy": "1.2.3"}, []),
        ({"InstanceAvailability": "ONLINE"}, ALL),
        ({"InstanceAvailability": "OFFLINE"}, []),
        ({"PatientWeight": "80"}, ["M1"]),
        ({"PatientWeight": "80.0"}, ["M1"]),
        ({"IssuerOfAccessionNumberSequence__LocalNamespaceEntityID": "RIS1"}, ["M1"]),
        ({"IssuerOfAccessionNumberSequence__LocalNamespaceEntityID": "RIS*"}, ["M1"]),
        ({"IssuerOfAccessionNumberSequence__LocalNamespaceEntityID": "RIS2"}, []),
        ({"00400275__00400009": "SPS1"}, ["M1", "Y2"]),
        ({"00400275__00400009": "SPS2"}, ["M1"]),
        # Both keys must match in one item.
        ({"00400275__00400009": "SPS1", "00400275__00401001": "RP2"}, ["Y2"]),
        ({"ProcedureCodeSequence__CodeValue": "CTABD", "ProcedureCodeSequence__CodingSchemeDesignator": "99X"}, []),
        ({"ProcedureCodeSequence__CodeValue": "CTABD", "ProcedureCodeSequence__CodingSchemeDesignator": "99Y"}, ["M1"]),
        ({"ProcedureCodeSequence": ""}, ALL),
        ({"NameOfPhysiciansReadingStudy": "angstrom^asa"}, ["M1"]),
        ({"NameOfPhysiciansReadingStudy": "Ång*"}, ["M1"]),
        ({"NameOfPhysiciansReadingStudy": "Ang"}, []),
        ({"PerformedProcedureStepStartDate": "20260901"}, ["M1"]),
        ({"PerformedProcedureStepStartTime": "-0900"}, ["Y2"]),
        ({"PerformedProcedureStepStartTime": "221500"}, ["M1"]),
        ({"ReferringPhysicianName": "okafor"}, ["M1", "Y2"]),
    ],
)
def test_a_key_finds_what_matches(keys: dict[str, str], found: list[str], find: Find) -> None:
    assert find(**keys) == found


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Müller", ["M1"]),
        ("MULLER^JURGEN", ["M1"]),
        ("muller^jurgen^^dr", ["M1"]),
        ("Mull", []),
        ("Mull*", ["M1"]),
        ("*jürgen", ["M1"]),
        ("M?ller^J*", ["M1"]),
        ("Yamada", ["Y2"]),
        ("山田", ["Y2"]),
        ("山田^太郎", ["Y2"]),
        ("山*", ["Y2"]),
        ("*太郎", ["Y2"]),
        ("やまだ", ["Y2"]),
        ("太郎", []),
        ("Yamada^Tarou=山田^太郎", ["Y2"]),
        ("Yamada=洪", []),
        ("=山田", ["Y2"]),
        ("==やまだ^たろう", ["Y2"]),
        ("홍^길동", ["H3"]),
        ("洪", ["H3"]),
        ("*=*", ALL),
    ],
)
def test_a_name_is_found_by_each_of_its_groups(name: str, found: list[str], find: Find) -> None:
    assert find(PatientName=name) == found


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Mueller", ["M1"]),
        ("Miller", ["M1"]),
        ("Jurgen Muller", ["M1"]),
        ("Muller, Jurgen", ["M1"]),
        ("Mueller^Jurgen", ["M1"]),
        # By component: a family name is no given name.
        ("Jurgen^Mueller", []),
        ("Mueller^J", ["M1"]),
        ("Mueller^T", []),
        ("*mueller*", ["M1"]),
        ("Yamato", ["Y2"]),
        ("太郎", ["Y2"]),
        ("Smith", []),
    ],
)
def test_fuzzy_matching_hears_names(name: str, found: list[str], find: Find) -> None:
    assert find(Options(is_fuzzy=True), PatientName=name) == found


def test_dates_and_times_are_one_moment_when_combined(find: Find) -> None:
    night = {"StudyDate": "20260901-20260902", "StudyTime": "2300-0100"}
    assert find(Options(combines_datetime=True), **night) == ["M1", "Y2"]
    # Apart, no time of day lies from 23:00 to 01:00.
    assert find(**night) == []
    open_end = {"StudyDate": "20260901-", "StudyTime": "2345-"}
    assert find(Options(combines_datetime=True), **open_end) == ["Y2"]
    assert find(**open_end) == []
    step = {"PerformedProcedureStepStartDate": "20260901-20260902", "PerformedProcedureStepStartTime": "2300-0900"}
    assert find(Options(combines_datetime=True), **step) == ["Y2"]


def test_a_time_zone_in_the_query_moves_the_days(find: Find) -> None:
    """M1 was made at 21:30 UTC of September 1, Y2 at 15:30 UTC of the same day."""
    assert find(StudyDate="20260901") == ["M1"]
    assert find(StudyDate="20260901", TimezoneOffsetFromUTC="+0000") == ["M1", "Y2"]
    assert find(StudyDate="20260902", TimezoneOffsetFromUTC="+0000") == []
    assert find(StudyDate="20260902", TimezoneOffsetFromUTC="+0900") == ["M1", "Y2"]
    moment = {"StudyDate": "20260901-20260901", "StudyTime": "1500-1600"}
    assert find(Options(combines_datetime=True), **moment, TimezoneOffsetFromUTC="+0000") == ["Y2"]
    with pytest.raises(InvalidKeyValue):
        find(TimezoneOffsetFromUTC="Berlin")


def test_the_empty_value_matches_what_is_absent_or_empty(find: Find) -> None:
    empty = Options(takes_empty=True)
    assert find(empty, AccessionNumber='""') == ["H3"]
    assert find(empty, StudyDate='""') == ["H3"]
    assert find(empty, StudyTime='""') == ["H3"]
    assert find(empty, PatientComments='""') == ALL
    assert find(empty, PatientWeight='""') == ["H3", "Y2"]
    assert find(empty, SeriesNumber='""') == ["H3"]
    assert find(AccessionNumber='""') == []


def test_several_values_are_matched_where_agreed_upon(find: Find) -> None:
    many = Options(takes_many=True)
    assert find(many, PatientID="M1\\Y2") == ["M1", "Y2"]
    assert find(many, PatientID="M*\\H3") == ["H3", "M1"]
    assert find(many, PatientName="muller\\hong") == ["H3", "M1"]
    assert find(many, ProcedureCodeSequence__CodeValue="CTHEAD\\CTABD") == ["M1"]
    assert find(PatientID="M1\\Y2") == []


def test_each_of_several_values_must_be_among_those_of_an_attribute_that_has_several(
    find: Find, ingest_files: Any, north: Any
) -> None:
    """PS3.4 C.2.2.2.8: a logical AND, whatever their order."""
    series = {"StudyInstanceUID": "1.2.3.9", "PatientID": "B9", "NameOfPhysiciansReadingStudy": ["Ek^Ada", "Lind^Bo"]}
    ingest_files(
        north,
        make_instance(**series, Modality="CT", ImageType=["ORIGINAL", "PRIMARY"]),
        make_instance(**series, Modality="PT"),
    )
    many = Options(takes_many=True)
    assert find(many, ModalitiesInStudy="PT\\CT") == ["B9"]
    assert find(many, ModalitiesInStudy="CT\\MR") == []
    assert find(ModalitiesInStudy="PT\\MR") == ["B9", "Y2"]
    assert find(many, NameOfPhysiciansReadingStudy="lind^bo\\ek") == ["B9"]
    assert find(many, NameOfPhysiciansReadingStudy="lind^bo\\Ångström") == []
    assert find(many, ImageType="PRIMARY\\ORIGINAL") == ["B9"]
    assert find(many, ImageType="PRIMARY\\DERIVED") == []
    assert find(ImageType="PRIMARY\\DERIVED") == ["B9"]


def test_lists_of_uids_match_any_of_them(find: Find) -> None:
    uids = list(Study.objects.order_by("patient_id_value").values_list("study_instance_uid", flat=True))
    assert find(StudyInstanceUID="\\".join(uids[:2])) == ["H3", "M1"]
    assert find(StudyInstanceUID=",".join(uids[1:])) == ["M1", "Y2"]
    assert find(StudyInstanceUID="1.2.3") == []
    series = Series.objects.get(modality="MR")
    assert find(SeriesInstanceUID=series.series_instance_uid) == ["Y2"]
    instance = Instance.objects.get(series=series)
    assert find(SOPInstanceUID=instance.sop_instance_uid) == ["Y2"]


def test_what_is_no_attribute_or_no_value_of_one_is_told(find: Find) -> None:
    for name in ("NoSuchThing", "0010", "PatientID.StudyID", "FFFFFFFF", "", "FFFEE000", "RequestAttributesSequence."):
        with pytest.raises(UnknownAttribute):
            criteria_of([(name, "1")])
    for keyword, value in {
        "StudyDate": "20261301",
        "StudyTime": "25",
        "PatientBirthDate": "-",
        "SeriesNumber": "three",
        "PatientWeight": "heavy",
        "InstanceNumber": "9" * 40,
        "PatientID": "a\x00b",
    }.items():
        with pytest.raises(InvalidKeyValue):
            criteria_of([(keyword, value)])
    assert criteria_of([("KVP", "80"), ("PatientID", "M1")]).unsupported == ["KVP"]


def test_every_level_answers_to_keys_of_every_level(find: Find, people: Any) -> None:
    principal = principal_of(people["radiologist"])
    for keys, level in (
        ({"PatientID": "M1"}, Level.PATIENT),
        ({"AccessionNumber": "A-1"}, Level.STUDY),
        ({"Modality": "CT"}, Level.SERIES),
        ({"InstanceNumber": "7"}, Level.INSTANCE),
    ):
        criteria = criteria_of(keys.items())
        assert criteria.conditions[level]
        assert [p.patient_id for p in matching_patients(principal, criteria)] == ["M1"]
        assert [s.patient_id_value for s in matching_studies(principal, criteria)] == ["M1"]
        assert [s.modality for s in matching_series(principal, criteria)] == ["CT"]
        assert [i.instance_number for i in matching_instances(principal, criteria)] == [7]


def test_one_of_another_site_finds_nothing(find: Find, people: Any) -> None:
    stranger = principal_of(people["southradiologist"])
    criteria = criteria_of([])
    assert not matching_patients(stranger, criteria)
    assert not matching_studies(stranger, criteria)
    assert not matching_series(stranger, criteria)
    assert not matching_instances(stranger, criteria)


def test_corrections_win_over_what_was_received(find: Find) -> None:
    study = Study.objects.get(patient_id_value="M1")
    study.corrections = {
        "00101030": {"vr": "DS", "Value": [75.0]},
        "00080051": {"vr": "SQ", "Value": [{"00400031": {"vr": "UT", "Value": ["RIS9"]}}]},
        "00081060": {"vr": "PN"},
    }
    study.save()
    assert find(PatientWeight="75") == ["M1"]
    assert find(PatientWeight="80") == []
    assert find(IssuerOfAccessionNumberSequence__LocalNamespaceEntityID="RIS1") == []
    assert find(NameOfPhysiciansReadingStudy="Ang*") == []
    content = study_attributes(study)
    assert content["00101030"]["Value"] == [75.0]
    assert "Value" not in content["00081060"]
    assert pydicom.Dataset.from_json(content).PatientWeight == 75


def test_rejected_instances_are_not_there_on_any_level(find: Find, people: Any) -> None:
    principal = principal_of(people["radiologist"])
    study = Study.objects.get(patient_id_value="M1")
    Instance.objects.filter(series__study=study).update(is_current=False, rejection_code="113001")
    Series.objects.filter(study=study).update(number_of_instances=0)
    Study.objects.filter(pk=study.pk).update(number_of_instances=0, number_of_series=0)
    assert find() == ["H3", "Y2"]
    criteria = criteria_of([("PatientID", "M1")])
    assert not matching_patients(principal, criteria)
    assert not matching_series(principal, criteria)
    assert not matching_instances(principal, criteria)


@pytest.mark.parametrize("character_set", ["arabic", "cyrillic", "greek", "latin1", "shift-jis", "utf8"])
def test_real_files_in_every_character_set_are_found_by_their_own_names(
    character_set: str, shared: Path, north: Any, ingest_files: Any, people: Any
) -> None:
    path = shared / "dicom" / "charsets" / f"Lena-{character_set}.dcm"
    ingest_files(north, path)
    name = str(pydicom.dcmread(path, stop_before_pixels=True).PatientName)
    assert name.strip("?")
    principal = principal_of(people["radiologist"])
    for key in (name, name.lower(), f"{name[:2]}*", f"*{name[-2:]}"):
        (study,) = matching_studies(principal, criteria_of([("PatientName", key)]))
        assert study.patient_name == name
        assert pydicom.Dataset.from_json(study_attributes(study)).PatientName == name
