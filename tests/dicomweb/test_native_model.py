"""The Native DICOM Model's XML says what DICOM JSON says, and nothing hostile gets in by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studies.archive.metadata import instance_metadata
from studies.archive.native_model import NAMESPACE, InvalidNativeModel, from_native_xml, to_native_xml
from studies.models import Instance

TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn"), exclude_characters="^\ufffe\uffff"), max_size=6
)
COMPONENTS = TEXT.filter(bool).map(lambda text: text.replace("=", ""))
NAMES = st.fixed_dictionaries({}, optional={g: COMPONENTS.filter(bool) for g in ("Alphabetic", "Ideographic")}).filter(
    bool
)
LEAVES = st.one_of(
    st.fixed_dictionaries({"vr": st.just("LO"), "Value": st.lists(TEXT, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"vr": st.just("IS"), "Value": st.lists(st.integers(-999, 999), min_size=1)}),
    st.fixed_dictionaries(
        {"vr": st.just("FD"), "Value": st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1)}
    ),
    st.fixed_dictionaries({"vr": st.just("PN"), "Value": st.lists(NAMES, min_size=1, max_size=2)}),
    st.fixed_dictionaries({"vr": st.just("OB"), "InlineBinary": st.sampled_from(["AAE=", "", "/w=="])}),
    st.fixed_dictionaries({"vr": st.just("OW"), "BulkDataURI": st.just("../bulk?a=1&b=<2>")}),
    st.fixed_dictionaries({"vr": st.sampled_from(["SH", "DA", "SQ"])}),
)
TAGS = st.sampled_from(["00080005", "00100010", "00280030", "00091001", "7FE00010", "00081140"])
CONTENTS = st.recursive(
    st.dictionaries(TAGS, LEAVES, max_size=4),
    lambda inner: st.dictionaries(
        TAGS, st.fixed_dictionaries({"vr": st.just("SQ"), "Value": st.lists(inner, min_size=1, max_size=2)}), max_size=2
    ),
    max_leaves=6,
)


NUMBER = b'<NativeDicomModel><DicomAttribute tag="00280010" vr="US">%s</DicomAttribute></NativeDicomModel>'


@given(content=CONTENTS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_written_is_read_back(content: dict[str, Any]) -> None:
    assert from_native_xml(to_native_xml(content)) == content


def test_the_document_is_as_the_standard_has_it() -> None:
    document = to_native_xml(
        {
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane^^Dr", "Ideographic": "山田"}]},
            "00081140": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2"]}}]},
        }
    )
    root = ElementTree.fromstring(document)
    space = {"n": NAMESPACE}
    assert root.tag == f"{{{NAMESPACE}}}NativeDicomModel"
    names = root.find("n:DicomAttribute[@keyword='PatientName']/n:PersonName[@number='1']", space)
    assert names is not None
    assert names.findtext("n:Alphabetic/n:FamilyName", namespaces=space) == "Doe"
    assert names.findtext("n:Alphabetic/n:NamePrefix", namespaces=space) == "Dr"
    assert names.findtext("n:Ideographic/n:FamilyName", namespaces=space) == "山田"
    uid = root.findtext(
        "n:DicomAttribute[@tag='00081140']/n:Item[@number='1']/n:DicomAttribute/n:Value", namespaces=space
    )
    assert uid == "1.2"


def test_control_characters_are_left_out() -> None:
    content = {"00100020": {"vr": "LO", "Value": ["a\x00b\x1bc\ud800"]}}
    assert from_native_xml(to_native_xml(content))["00100020"]["Value"] == ["abc"]


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<NativeDicomModel>",
        b"<Other/>",
        b"<NativeDicomModel><DicomAttribute/></NativeDicomModel>",
        b"<NativeDicomModel><Value/></NativeDicomModel>",
        NUMBER % b"<Value>x</Value>",
        NUMBER % b"<InlineBinary>!</InlineBinary>",
        b'<!DOCTYPE a [<!ENTITY e "x">]><NativeDicomModel/>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><NativeDicomModel/>',
        b"<NativeDicomModel>" + b'<DicomAttribute tag="00081140" vr="SQ"><Item>' * 200,
    ],
)
def test_what_is_no_native_model_is_refused(document: bytes) -> None:
    with pytest.raises(InvalidNativeModel):
        from_native_xml(document)


@given(document=st.binary(max_size=80))
def test_any_bytes_are_a_model_or_refused(document: bytes) -> None:
    with pytest.raises(InvalidNativeModel):
        from_native_xml(b"\x01" + document)


def test_the_metadata_of_real_files_survive_the_way_through_xml(shared: Path) -> None:
    files = sorted((shared / "dicom" / "charsets").glob("*.dcm"))
    files += sorted((shared / "dicom" / "objects").glob("*.dcm"))[:6]
    for path in files:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        instance = Instance(sop_instance_uid=dataset.SOPInstanceUID, transfer_syntax_uid="1.2.840.10008.1.2.1")
        content = instance_metadata(instance, dataset)
        back = from_native_xml(to_native_xml(content))
        assert pydicom.Dataset.from_json(back, lambda *_: b"") == pydicom.Dataset.from_json(content, lambda *_: b"")
