"""QIDO-RS as a client sees it: resources, attributes returned, media types, pages, warnings (PS3.18 §8.3.4, §10.6)."""

from __future__ import annotations

import json
from email import message_from_bytes
from typing import Any

import pytest
from django.test import Client
from pydicom import Dataset, Sequence

from portal.audit.models import AuditEvent
from studies.archive.native_model import from_native_xml
from studies.models import Instance, Series, Study
from tests.factories import make_instance

pytestmark = [pytest.mark.django_db, pytest.mark.database]
XML = 'multipart/related; type="application/dicom+xml"'
STUDY_DEFAULTS = {
    *("00080020", "00080030", "00080050", "00080056", "00080061", "00080090", "00081190", "00100010", "00100020"),
    *("00100030", "00100040", "0020000D", "00200010", "00201206", "00201208"),
}


@pytest.fixture
def browser(north: Any, ingest_files: Any, client_of: Any) -> Client:
    request = Dataset()
    request.ScheduledProcedureStepID = "SPS1"
    for number in (1, 2):
        ingest_files(
            north,
            make_instance(
                StudyInstanceUID="1.2.3",
                SeriesInstanceUID=f"1.2.3.{number}",
                SOPInstanceUID=f"1.2.3.{number}.1",
                SeriesNumber=number,
                Modality=("CT", "SR")[number - 1],
                RequestAttributesSequence=Sequence([request]),
                PatientWeight=70,
                PatientName="Größe^Jörg=山田",
                ContentLabel="KEY",
                ProtocolName="Thorax",
            ),
        )
    ingest_files(north, make_instance(StudyInstanceUID="1.2.4", PatientID="P2", StudyDate="20200101"))
    signed_in: Client = client_of("radiologist")
    return signed_in


def search(browser: Client, path: str, **headers: str) -> list[dict[str, Any]]:
    answer = browser.get(f"/dicom-web/{path}", headers=headers)
    assert answer.status_code == 200, answer.content
    assert answer["Content-Type"] == "application/dicom+json"
    found: list[dict[str, Any]] = answer.json()
    return found


def value(result: dict[str, Any], tag: str) -> Any:
    return result[tag].get("Value")


def test_every_resource_answers_with_its_levels_attributes(browser: Client) -> None:
    newest, oldest = search(browser, "studies")
    assert set(newest) >= STUDY_DEFAULTS
    assert value(newest, "0020000D") == ["1.2.3"]
    assert value(newest, "00080061") == ["CT", "SR"]
    assert value(newest, "00201206") == [2]
    assert value(newest, "00201208") == [2]
    assert value(newest, "00080056") == ["ONLINE"]
    assert value(newest, "00100010") == [{"Alphabetic": "Größe^Jörg", "Ideographic": "山田"}]
    assert value(newest, "00081190") == ["http://testserver/dicom-web/studies/1.2.3"]
    assert value(oldest, "0020000D") == ["1.2.4"]
    first, second = search(browser, "studies/1.2.3/series")
    assert [value(s, "0020000E") for s in (first, second)] == [["1.2.3.1"], ["1.2.3.2"]]
    assert value(first, "00400275")[0]["00400009"]["Value"] == ["SPS1"]
    assert value(first, "00201209") == [1]
    assert "00100010" not in first
    assert len(search(browser, "series")) == 3
    assert all(set(s) >= STUDY_DEFAULTS for s in search(browser, "series"))
    (instance,) = search(browser, "studies/1.2.3/series/1.2.3.2/instances")
    assert value(instance, "00080018") == ["1.2.3.2.1"]
    assert value(instance, "00280010") == [64]
    assert value(instance, "00081190") == [
        "http://testserver/dicom-web/studies/1.2.3/series/1.2.3.2/instances/1.2.3.2.1"
    ]
    assert "00080060" not in instance
    assert {value(i, "00080060")[0] for i in search(browser, "studies/1.2.3/instances")} == {"CT", "SR"}
    assert all(set(i) >= STUDY_DEFAULTS for i in search(browser, "instances"))
    assert [value(i, "00080060") for i in search(browser, "instances?Modality=SR")] == [["SR"]]
    assert [value(i, "0020000D") for i in search(browser, "instances?PatientID=P2")] == [["1.2.4"]]


def test_only_what_is_asked_for_is_added(browser: Client) -> None:
    def tags(query: str, path: str = "studies") -> set[str]:
        return set(search(browser, f"{path}?StudyInstanceUID=1.2.3&{query}")[0])

    assert "00101030" not in tags("")
    assert "00101030" in tags("includefield=PatientWeight")
    assert "00101030" in tags("includefield=00081030,00101030&includefield=00104000")
    assert "00101030" in tags("PatientWeight=70")
    assert tags("includefield=all") > {"00101030", "00081030"}
    # A series' attributes are no study's (PS3.18 §10.6.3.3.1).
    assert "00181030" not in tags("includefield=ProtocolName")
    assert "00181030" in tags("includefield=ProtocolName", "series")
    assert "00101030" in tags("includefield=PatientWeight", "studies/1.2.3/series")
    assert "00700080" in tags("includefield=ContentLabel", "studies/1.2.3/instances")
    (study,) = search(browser, "studies?PatientID=P2&includefield=SOPClassesInStudy,NumberOfPatientRelatedStudies")
    assert value(study, "00080062") == ["1.2.840.10008.5.1.4.1.1.2"]
    assert value(study, "00201200") == [1]


def test_below_a_study_what_is_known_of_it_comes_when_asked_for(browser: Client) -> None:
    by_name = {"00080020", "00100010", "00100020"}
    for path in ("studies/1.2.3/series", "studies/1.2.3/instances", "studies/1.2.3/series/1.2.3.1/instances"):
        (first, *_) = search(browser, path)
        assert by_name.isdisjoint(first)
        assert value(first, "00080005") == ["ISO_IR 192"]
        for asked in ("includefield=StudyDate,PatientName&includefield=00100020", "includefield=all"):
            assert by_name <= set(search(browser, f"{path}?{asked}")[0])
        (one, *_) = search(browser, f"{path}?includefield=SOPClassesInStudy")
        assert value(one, "00080062") == ["1.2.840.10008.5.1.4.1.1.2"]
        assert "00100010" in search(browser, f"{path}?PatientName=Gr*")[0]
    (instance,) = search(browser, "studies/1.2.3/series/1.2.3.1/instances?includefield=all")
    assert value(instance, "00181030") == ["Thorax"]


def test_of_a_study_that_two_of_ones_sites_hold_one_copy_is_given_alike(
    browser: Client, south: Any, ingest_files: Any, client_of: Any
) -> None:
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.9", "SOPInstanceUID": "1.2.3.9.1"}
    ingest_files(south, make_instance(**uids, PatientID="S1", PatientName="South"))
    both, one = client_of("radiologist"), client_of("southradiologist")
    assert [value(s, "0020000E") for s in search(both, "studies/1.2.3/series")] == [["1.2.3.1"], ["1.2.3.2"]]
    assert len(search(both, "studies/1.2.3/instances")) == 2
    assert {s["00080018"]["Value"][0] for s in search(both, "studies/1.2.3/metadata")} == {"1.2.3.1.1", "1.2.3.2.1"}
    assert [value(s, "0020000E") for s in search(one, "studies/1.2.3/series")] == [["1.2.3.9"]]
    below = "/dicom-web/studies/1.2.3/series/1.2.3.9/instances"
    assert both.get(below).status_code == 204
    assert [value(i, "00080018") for i in search(one, "studies/1.2.3/series/1.2.3.9/instances")] == [["1.2.3.9.1"]]
    # What only the other holds is found where it's named.
    for path in (f"{below}/1.2.3.9.1", f"{below}/1.2.3.9.1/metadata", f"{below}/1.2.3.9.1/rendered"):
        assert (both.get(path).status_code, one.get(path).status_code) == (200, 200)
    # Nothing hides the other's copy that has nothing to show itself.
    Study.objects.filter(site__slug="north").update(number_of_instances=0)
    assert [value(s, "0020000E") for s in search(both, "studies/1.2.3/series")] == [["1.2.3.9"]]


def test_below_a_series_what_only_the_files_hold_is_returned_too(browser: Client) -> None:
    below = "studies/1.2.3/series/1.2.3.1/instances"
    (instance,) = search(browser, f"{below}?includefield=PhotometricInterpretation,00280101")
    assert value(instance, "00280004") == ["MONOCHROME2"]
    assert value(instance, "00280101") == [16]
    assert "00280004" not in search(browser, below)[0]
    elsewhere = browser.get("/dicom-web/instances?includefield=PhotometricInterpretation")
    assert "PhotometricInterpretation" in elsewhere["Warning"]


def test_nothing_found_is_204_without_a_body(browser: Client) -> None:
    for path in (
        "studies?PatientID=none",
        "studies/9.9/series",
        "studies/1.2.3/series/9.9/instances",
        "studies?limit=0",
    ):
        answer = browser.get(f"/dicom-web/{path}")
        assert (answer.status_code, answer.content) == (204, b"")


def test_xml_parts_say_the_same_as_json(browser: Client) -> None:
    for path in ("studies?includefield=all", "series", "instances"):
        answer = browser.get(f"/dicom-web/{path}", headers={"Accept": XML})
        assert answer.status_code == 200
        message = message_from_bytes(b"Content-Type: " + answer["Content-Type"].encode() + b"\r\n\r\n" + answer.content)
        parts = [part.get_payload(decode=True) for part in message.get_payload()]
        assert [part.get_content_type() for part in message.get_payload()] == ["application/dicom+xml"] * len(parts)
        assert json.dumps([from_native_xml(part) for part in parts], sort_keys=True) == json.dumps(
            search(browser, path), sort_keys=True
        )


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("application/dicom+json", "application/dicom+json"),
        ("application/json", "application/dicom+json"),
        ("*/*", "application/dicom+json"),
        (f"{XML};q=0.5, application/dicom+json;q=0.4", "multipart/related"),
        ("application/dicom+xml", "multipart/related"),
        ("text/html", "application/problem+json"),
        ("application/dicom+json;q=0", "application/problem+json"),
    ],
)
def test_the_wanted_form_is_given_or_406(accept: str, content_type: str, browser: Client) -> None:
    answer = browser.get("/dicom-web/studies", headers={"Accept": accept})
    assert answer["Content-Type"].split(";")[0] == content_type
    assert answer.status_code == (406 if content_type == "application/problem+json" else 200)
    assert answer.status_code == 200 or "available" in answer.json()
    by_parameter = browser.get("/dicom-web/studies", {"accept": accept})
    assert by_parameter["Content-Type"].split(";")[0] == content_type


@pytest.mark.parametrize("query", ["PatientName=M%FCller", "Pati%FFentName=1", "includefield=%C3%28"])
def test_what_is_not_utf_8_is_refused(query: str, browser: Client) -> None:
    answer = browser.get(f"/dicom-web/studies?{query}")
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    assert "UTF-8" in answer.json()["title"]


def test_a_cut_answer_says_so(browser: Client) -> None:
    cut = browser.get("/dicom-web/studies?limit=1")
    assert cut["Warning"].startswith("299 http://testserver/dicom-web ")
    assert "Additional results can be requested" in cut["Warning"]
    assert "Warning" not in browser.get("/dicom-web/studies?limit=1&offset=1")
    assert cut["Cache-Control"] == "no-store"


def test_what_is_not_supported_is_named_and_what_is_wrong_is_refused(browser: Client) -> None:
    ignored = browser.get("/dicom-web/studies?KVP=80&includefield=00091001,ExposureTime")
    assert ignored.status_code == 200
    assert all(name in ignored["Warning"] for name in ("KVP", "00091001", "ExposureTime"))
    for query in (
        *("NoSuchThing=1", "PatientID.StudyID=1", "StudyDate=tomorrow", "limit=x", "offset=-1", "fuzzymatching=maybe"),
        "&".join(f"PatientID={n}&StudyI{n}=1" for n in range(3)),
    ):
        answer = browser.get(f"/dicom-web/studies?{query}")
        assert answer.status_code == 400, query
        assert answer["Content-Type"] == "application/problem+json"


def test_matching_options_of_the_query(browser: Client) -> None:
    def patients(query: str) -> list[str]:
        answer = browser.get(f"/dicom-web/studies?{query}")
        return [value(s, "00100020")[0] for s in answer.json()] if answer.status_code == 200 else []

    assert patients("PatientName=Grosse^Jork&fuzzymatching=true") == ["P1"]
    assert patients("PatientName=Grosse^Jork") == []
    assert patients("PatientID=P1&PatientID=P2&multiplevaluematching=true") == ["P1", "P2"]
    assert patients('PatientWeight=""&emptyvaluematching=true') == ["P2"]
    # Counts are never empty.
    for keyword in ("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances"):
        assert patients(f'{keyword}=""&emptyvaluematching=true') == []
    assert patients("StudyDate=20200101-20260901&StudyTime=1020-1016") == ["P1"]
    assert patients("00400275.00400009=SPS1") == ["P1"]
    assert patients("RequestAttributesSequence.ScheduledProcedureStepID=SPS2") == []


NOWHERE = (
    *("PatientName", "PatientBirthDate", "PatientSex", "IssuerOfPatientID", "StudyDate", "StudyTime"),
    *("AccessionNumber", "StudyID", "StudyDescription", "ReferringPhysicianName", "InstitutionName", "PatientAge"),
    *("SeriesNumber", "SeriesDescription", "BodyPartExamined", "InstanceNumber", "OperatorsName", "ProtocolName"),
)


@pytest.mark.parametrize("keyword", NOWHERE)
def test_what_is_absent_or_empty_is_found_where_asked_for(
    keyword: str, north: Any, ingest_files: Any, client_of: Any
) -> None:
    filled = {key: "1" for key in NOWHERE if key not in {"StudyDate", "StudyTime", "PatientBirthDate", "PatientAge"}}
    filled |= {"StudyDate": "20260101", "StudyTime": "101010", "PatientBirthDate": "19700101", "PatientAge": "056Y"}
    for number, lacking in enumerate((None, "")):
        uids = {"StudyInstanceUID": f"1.2.{number}", "PatientID": f"P{number}"}
        ingest_files(north, make_instance(**filled | {keyword: lacking}, **uids))
    ingest_files(north, make_instance(**filled, StudyInstanceUID="1.2.9", PatientID="P9"))
    found = search(client_of("radiologist"), f'studies?{keyword}=""&emptyvaluematching=true')
    assert sorted(value(study, "0020000D")[0] for study in found) == ["1.2.0", "1.2.1"]


def test_an_attribute_of_an_item_is_absent_where_the_sequence_is(north: Any, ingest_files: Any, client_of: Any) -> None:
    def item(**keywords: Any) -> Dataset:
        dataset = Dataset()
        for keyword, content in keywords.items():
            setattr(dataset, keyword, content)
        return dataset

    code = item(CodeValue="T1")
    sequences = {
        "1.1": None,
        "1.2": [],
        "1.3": [item(ScheduledProcedureStepID="", RequestedProcedureID="RP")],
        "1.4": [item(ScheduledProcedureStepID="SPS", ScheduledProtocolCodeSequence=[code])],
    }
    for uid, items in sequences.items():
        keywords = {} if items is None else {"RequestAttributesSequence": Sequence(items)}
        ingest_files(north, make_instance(StudyInstanceUID="1.2.3", SeriesInstanceUID=uid, **keywords))
    browser = client_of("radiologist")

    def finds(*keys: str) -> list[str]:
        query = "&".join(f"RequestAttributesSequence.{key}" for key in keys)
        found = search(browser, f"series?{query}&emptyvaluematching=true")
        return sorted(value(series, "0020000E")[0] for series in found)

    assert finds('ScheduledProcedureStepID=""') == ["1.1", "1.2", "1.3"]
    assert finds('ScheduledProtocolCodeSequence.CodeValue=""') == ["1.1", "1.2", "1.3"]
    assert finds('ScheduledProcedureStepID=""', "RequestedProcedureID=RP") == ["1.3"]
    assert finds('ScheduledProcedureStepID=""', 'RequestedProcedureID=""') == ["1.1", "1.2"]
    assert finds("ScheduledProtocolCodeSequence.CodeValue=T1") == ["1.4"]


def test_rejected_instances_are_found_nowhere(browser: Client) -> None:
    Instance.objects.filter(sop_instance_uid="1.2.3.2.1").update(is_current=False, rejection_code="113001")
    Series.objects.filter(series_instance_uid="1.2.3.2").update(number_of_instances=0)
    Study.objects.filter(study_instance_uid="1.2.3").update(number_of_instances=1, number_of_series=1)
    assert len(search(browser, "studies/1.2.3/series")) == 1
    assert len(search(browser, "studies/1.2.3/instances")) == 1
    assert browser.get("/dicom-web/studies?Modality=SR").status_code == 204
    Instance.objects.filter(series__study__study_instance_uid="1.2.3").update(is_current=False)
    Series.objects.filter(study__study_instance_uid="1.2.3").update(number_of_instances=0)
    Study.objects.filter(study_instance_uid="1.2.3").update(number_of_instances=0, number_of_series=0)
    assert [value(s, "0020000D") for s in search(browser, "studies")] == [["1.2.4"]]


def test_corrections_are_what_is_answered_on_every_level(browser: Client) -> None:
    study = Study.objects.get(study_instance_uid="1.2.3")
    study.corrections = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Right^Name"}]}}
    study.patient_name, study.patient_name_search = "Right^Name", "RIGHT^NAME"
    study.save()
    for path in ("studies", "series", "instances"):
        (first, *_) = search(browser, f"{path}?PatientName=right^name")
        assert value(first, "00100010") == [{"Alphabetic": "Right^Name"}]
        assert browser.get(f"/dicom-web/{path}?PatientName=Größe").status_code == 204


def test_each_search_leaves_one_event_with_what_was_looked_for(browser: Client) -> None:
    search(browser, "studies?PatientID=P2&includefield=all")
    browser.get("/dicom-web/studies?PatientID=none")
    events = list(AuditEvent.objects.filter(action=AuditEvent.Action.SEARCH).order_by("sequence"))
    assert [e.details["results"] for e in events] == [1, 0]
    assert [e.details["keys"] for e in events] == [{"PatientID": "P2"}, {"PatientID": "none"}]


@pytest.mark.parametrize("path", ["studies", "series?limit=1", "instances?includefield=all", "studies?PatientName=*"])
def test_a_search_for_everything_leaves_an_event_too(path: str, browser: Client) -> None:
    search(browser, path)
    event = AuditEvent.objects.get(action=AuditEvent.Action.SEARCH)
    assert event.details["keys"] == {}
    assert event.details["results"] > 0


def test_a_search_below_a_study_names_it_once(browser: Client) -> None:
    for path in ("series", "instances", "series/1.2.3.1/instances", "series?Modality=?*"):
        search(browser, f"studies/1.2.3/{path}")
    assert browser.get("/dicom-web/studies/1.2.99/series").status_code == 204
    events = AuditEvent.objects.filter(action=AuditEvent.Action.SEARCH).order_by("sequence")
    assert [(e.study_instance_uid, e.details.get("keys")) for e in events] == [
        ("1.2.3", None),
        ("", {"Modality": "?*"}),
        ("", {}),
    ]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("studies?StudyInstanceUID=abc", "UID"),
        ("studies?PatientID=P1&PatientID=P2", "multiplevaluematching"),
        ("studies?PatientName=A%5CB", "multiplevaluematching"),
        ("studies?00080020=20190604&StudyDate=20200202", "once"),
        ("studies?StudyInstanceUID=1.2.*", "UID"),
        (f"instances?SOPInstanceUID=1.2,{'1' * 65}", "UID"),
        ("series?FrameOfReferenceUID=x", "UID"),
        ("series?RequestAttributesSequence.StudyInstanceUID=x", "UID"),
        ("studies?PatientAge=abc", "age"),
        ("studies?StudyDate=\u0662\u0660\u0662\u0660\u0660\u0661\u0660\u0661", "YYYYMMDD"),
        ("series?RequestAttributesSequence=x", "sequence"),
        ("instances?NumberOfFrames=%2B-5", "number"),
        ("instances?InstanceNumber=1000000000000000000000", "too large"),
        (f"studies?PatientName={'x' * 6000}", "at most 5000 characters"),
        ("studies?PatientName=a%00b", "NUL"),
        ("studies?StudyInstanceUID=,", "UID"),
        ("studies?PatientAge=045Y&PatientAge=046Y", "multiplevaluematching=true"),
        ("series?SeriesNumber=1%5C2", "multiplevaluematching=true"),
        ("studies?TimezoneOffsetFromUTC=+0100", "%2B0100"),
        ("studies?limit=-1", "natural number"),
        ("studies?limit=\u0661", "natural number"),
        ("color-palettes?fuzzymatching=maybe", "true or false"),
    ],
)
def test_what_is_no_value_of_an_attribute_is_refused_with_the_reason(browser: Client, query: str, reason: str) -> None:
    answer = browser.get(f"/dicom-web/{query}")
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    assert reason in answer.json()["title"]


def test_uids_are_listed_by_commas_or_backslashes_at_every_level(browser: Client) -> None:
    studies = [value(s, "0020000D") for s in search(browser, "studies?StudyInstanceUID=1.2.4,1.2.3")]
    assert studies == [["1.2.3"], ["1.2.4"]]
    assert len(search(browser, "studies?StudyInstanceUID=1.2.4%5C1.2.3&StudyInstanceUID=1.2.9")) == 2


def test_a_page_larger_than_any_is_the_largest(browser: Client) -> None:
    assert len(search(browser, f"studies?limit={2**31 - 1}")) == 2
    assert len(search(browser, "studies?limit=0002")) == 2
    assert browser.get(f"/dicom-web/studies?offset={'9' * 5000}").status_code == 204


def test_what_non_patient_instances_are_not_matched_by_is_said(browser: Client) -> None:
    answer = browser.get("/dicom-web/color-palettes?fuzzymatching=true")
    assert answer.status_code == 204
    assert "fuzzymatching" in answer["Warning"]
