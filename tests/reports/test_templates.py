"""Templates: which is chosen, what becomes of words when it changes, and the way in and out as MRRT."""

# ruff: noqa: E501  (HTML as it comes)

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import User
from studies.models import Study
from studies.reports import mrrt, templates
from studies.reports.history import word_changes
from studies.reports.models import Macro, ReportPart, ReportTemplate
from studies.reports.outline import GENERIC, InvalidOutline, Outline
from tests.factories import make_instance, principal_of
from tests.reports.desk import DESK, UID, write

pytestmark = [pytest.mark.django_db]

# In the shape of the templates that RadReport offers.
RADREPORT = b"""<!DOCTYPE html>
<html><head><title>CT Brain</title>
<meta charset="UTF-8">
<meta name="dcterms.title" content="CT Brain">
<meta name="dcterms.identifier" content="http://www.radreport.org/template/0000004">
<meta name="dcterms.language" content="en">
<meta name="dcterms.creator" content="Somebody, MD">
<meta name="dcterms.rights" content="May be used freely">
<script type="text/xml"><template_attributes><top-level-flag>true</top-level-flag><status>ACTIVE</status>
<coded_content><coding_schemes><coding_scheme name="RADLEX" designator="2.16.840.1.113883.6.256"></coding_scheme></coding_schemes>
<entry ORIGTXT="T002"><term type="section"><code meaning="observations section" value="RID28486" scheme="RADLEX"></code></term></entry>
<entry ORIGTXT="T000"><term type="procedure"><code meaning="CT brain" value="RPID22" scheme="RADLEX"></code></term></entry>
</coded_content></template_attributes></script>
</head><body>
<section id="T001" class="level1" data-section-name="Procedure"><header class="level1">Procedure</header>
<p><label for="T001_1">Contrast</label><select id="T001_1" name="Contrast" data-field-type="SELECTION_LIST" data-field-completion-action="NONE">
<option id="a" value="none" selected="selected">None</option><option id="b">Intravenous</option></select></p></section>
<section id="T002" class="level1" data-section-name="Findings" data-section-type="OBSERVATIONS"><header>Findings</header>
<p><label for="T002_1">Ventricles</label><textarea id="T002_1" name="Ventricles" data-field-type="TEXT" data-field-completion-action="PRECLUDE">Normal in size.</textarea></p>
<p><label for="T002_2">Shift</label><input id="T002_2" name="Shift" type="number" data-field-type="NUMBER" data-field-units="mm" min="0" max="40"></p>
<p><label for="T002_3">Signs</label><select multiple id="T002_3" name="Signs" data-field-type="SELECTION_LIST"><option>Oedema</option><option>Mass</option></select></p>
<p><input type="radio" name="Side" id="r1" value="Right"><label for="r1">Right</label><input type="radio" name="Side" id="r2" value="Left"><label for="r2">Left</label></p>
<p><input type="date" id="T002_5" name="Prior" data-field-type="DATE"><input type="checkbox" id="T002_6" value="Old infarct"></p></section>
<section id="T003" class="level1" data-section-name="Impression"><header>Impression</header>
<p><textarea id="T003_1" name="Impression" data-field-type="TEXT"></textarea></p></section>
</body></html>"""

HOSTILE = b"""<html><head><title>&lt;script&gt;alert(1)&lt;/script&gt;</title>
<script>alert(2)</script><script type="text/xml"><!DOCTYPE x [<!ENTITY a "aaaa">]><template_attributes>&a;</template_attributes></script>
<link rel="stylesheet" href="http://evil.example/x.css"><base href="http://evil.example/"></head>
<body onload="alert(3)"><iframe src="http://evil.example"></iframe>
<section id="s" data-section-name="Findings &lt;img src=x onerror=alert(4)&gt;">
<textarea id='f" onfocus="alert(5)' name="revision" onclick="alert(6)">&lt;/textarea&gt;&lt;script&gt;alert(7)&lt;/script&gt;</textarea>
<input type="hidden" name="csrfmiddlewaretoken" value="x"><input type="password" name="password"></section></body></html>"""


def lead(people: Any) -> Any:
    return principal_of(people["admin"])


def test_an_mrrt_template_goes_round_with_all_that_it_says(people: Any) -> None:
    read = mrrt.read_template(RADREPORT)
    template = templates.save_template(principal=lead(people), **read.as_template())
    again = mrrt.read_template(mrrt.write_template(template))
    assert again.content == read.content
    assert again.coded_content == read.coded_content
    assert "RID28486" in again.coded_content
    assert again.metadata["dcterms.identifier"] == "http://www.radreport.org/template/0000004"
    assert again.metadata["dcterms.creator"] == "Somebody, MD"
    assert again.procedure_codes == [{"value": "RPID22", "scheme": "RADLEX", "meaning": "CT brain"}]
    fields = Outline.of(again.content).fields
    assert (fields["T002_1"].default, fields["T002_1"].required) == ("Normal in size.", True)
    assert (fields["T002_2"].unit, fields["T002_2"].maximum) == ("mm", 40)
    assert fields["T002_3"].type == "multi"
    assert fields["Side"].options == ("Right", "Left")
    assert {fields[name].type for name in ("T002_5", "T002_6")} == {"date", "checkbox"}
    assert [s.role for s in Outline.of(again.content).sections] == ["technique", "findings", "impression"]


def test_the_templates_that_atrium_brings_go_round_too(db: None) -> None:
    brought = ReportTemplate.objects.filter(is_current=True).exclude(slug="")
    assert {t.slug for t in brought} >= {"ct-chest", "ct-head", "mr-knee", "chest-x-ray", "us-abdomen", "mammography"}
    for template in brought:
        again = mrrt.read_template(mrrt.write_template(template))
        assert again.content == template.content
        for name in ("modalities", "body_parts", "keywords", "procedure_codes"):
            assert getattr(again, name) == getattr(template, name), name


# As RadReport writes them today: lists of boxes, offers, units with labels of their own, codes in a comment.
TODAY = b"""<!DOCTYPE html><html><head><title>CT appendix</title><script type="text/xml"><!--
<template_attributes><coded_content><entry origtxt="N1"><term><code meaning="diameter" value="RDE196" scheme="RADELEMENT"/></term></entry>
</coded_content></template_attributes>--></script></head><body>
<section id="technique" data-section-name="Technique:"><p><label for="C1">Contrast:</label><span id="C1" data-field-type="CHECKBOX">
<input id="C1_0" type="checkbox" name="C1" value="Intravenous." checked>Intravenous.<input id="C1_1" type="checkbox" name="C1" value="Oral.">Oral.
<input id="C1_2_FreeText" type="text" value="Contrast and"></span></p></section>
<section id="findings" data-section-name="Findings"><p><label for="L1">Gallbladder:</label><input list="L1_LIST" id="L1" name="" data-field-type="SELECTION_LIST" value="Normal.">
<datalist id="L1_LIST"><option value="Normal.">Normal.</option><option value="Absent."></option></datalist></p>
<p><label for="N1">Appendix:</label><input type="number" id="N1" name="appendix" data-field-units="mm" value="6"><label for="N1">mm</label></p>
<p><label>Stranding <input type="text" id="T9" value="None."></label><input type="text" id="T10" name="Free fluid"></p></section>
<section id="impression" data-section-name="Impression"><p><label for="i1">Text:</label><textarea id="i1" data-field-completion-action="PROHIBIT"></textarea></p></section>
<input id="lost"></body></html>"""


def test_a_template_as_radreport_writes_them_today_says_what_it_meant() -> None:
    read = mrrt.read_template(TODAY)
    outline = Outline.of(read.content)
    texts = outline.texts({**outline.defaults(), "T10": "A little.", "i1": "Normal.", "C1_2_FreeText": "rectal"})
    assert texts == {
        "technique": "Contrast: Intravenous.\nContrast and: rectal",
        "findings": "Gallbladder: Normal.\nAppendix: 6 mm\nStranding: None.\nFree fluid: A little.",
        "impression": "Normal.",
    }
    assert outline.fields["C1"].options == ("Intravenous.", "Oral.")
    assert outline.fields["L1"].options == ("Normal.", "Absent.")
    assert outline.fields["i1"].required
    assert "RDE196" in read.coded_content
    assert read.left_out == 1


def test_a_hostile_template_brings_words_only(people: Any, client_of: Any) -> None:
    read = mrrt.read_template(HOSTILE)
    template = templates.save_template(principal=lead(people), **read.as_template())
    (field,) = Outline.of(read.content).fields.values()
    assert field.id not in {"revision", "password"}
    assert '"' not in field.id
    assert read.coded_content == ""
    written = mrrt.write_template(template)
    admin = client_of("admin")
    for page in (
        written,
        admin.get(f"/reports/templates/{template.pk}/").content,
        admin.get("/reports/templates/").content,
    ):
        for weapon in (b"<script>alert", b"onerror=alert(4)>", b"onfocus=", b"onclick=", b"evil.example"):
            assert weapon not in page


@pytest.mark.parametrize(
    "junk",
    [
        *(b"", b"\x00\xff\xfe", b"<p>no sections</p>", b"<section>" * 3000, b"x" * (1 << 20) + b"y"),
        # What would take minutes.
        *(b"<section><p " + b" ".join(b"a%d" % n for n in range(100_000)), b"<section>" + b"<input id=a>" * 10_000),
    ],
    ids=["empty", "binary", "none", "deep", "large", "attributes", "fields"],
)
def test_what_is_no_template_is_refused_in_words(junk: bytes) -> None:
    with pytest.raises((mrrt.NotATemplate, InvalidOutline)):
        mrrt.read_template(junk)


def test_templates_come_in_and_go_out_by_the_screens(client_of: Any) -> None:
    browser: Client = client_of("radiologist")
    file = BytesIO(RADREPORT)
    file.name = "ct.html"
    assert browser.post("/reports/templates/import/", {"file": file, "shared_with": "own"}).status_code == 302
    template = ReportTemplate.objects.get(name="CT Brain")
    assert template.owner == User.objects.get(username="radiologist")
    answer = browser.get(f"/reports/templates/{template.pk}/export/")
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert client_of("resident").get(f"/reports/templates/{template.pk}/").status_code == 404
    shared = browser.post("/reports/templates/import/", {"file": BytesIO(RADREPORT), "shared_with": "all"})
    assert shared.status_code == 422


def test_a_changed_template_is_a_new_version_and_reports_keep_theirs(
    north: Any, ingest_files: Any, client_of: Any, people: Any
) -> None:
    ingest_files(north, make_instance(StudyInstanceUID=UID))
    client_of("radiologist").post(f"{DESK}/start/")
    old = ReportPart.objects.get().template
    assert old is not None
    content = Outline.of(old.content).as_json()
    content["sections"][0]["title"] = "Why"
    new = templates.save_template(principal=lead(people), name=old.name, content=content, family=old.family)
    assert (new.version, new.family, new.is_current) == (old.version + 1, old.family, True)
    assert ReportPart.objects.get().template == old
    templates.create_built_in_templates()
    assert ReportTemplate.objects.get(family=old.family, is_current=True) == new


@pytest.mark.parametrize(
    ("keywords", "slug"),
    [
        ({"StudyDescription": "CT thorax"}, "ct-chest"),
        ({"StudyDescription": "Routine", "BodyPartExamined": "HEAD"}, "ct-head"),
        ({"StudyDescription": "Knee right", "Modality": "MR"}, "mr-knee"),
        ({"StudyDescription": "Screening mammography", "Modality": "MG"}, "mammography"),
        ({"StudyDescription": "Something else", "Modality": "XA"}, "generic"),
    ],
)
def test_the_template_follows_the_study(
    keywords: dict[str, str], slug: str, north: Any, ingest_files: Any, people: Any
) -> None:
    ingest_files(north, make_instance(StudyInstanceUID=UID, **keywords))
    chosen = templates.template_for(Study.objects.get(), principal_of(people["radiologist"]))
    assert chosen is not None
    assert chosen.slug == slug


def test_a_template_that_names_no_study_is_chosen_by_hand_only(north: Any, ingest_files: Any, people: Any) -> None:
    ingest_files(north, make_instance(StudyInstanceUID=UID, StudyDescription="Odd", Modality="OT"))
    principal = principal_of(people["radiologist"])
    own = templates.save_template(principal=principal, is_own=True, **mrrt.read_template(TODAY).as_template())
    study = Study.objects.get()
    assert own in templates.templates_for(study, principal)
    chosen = templates.template_for(study, principal)
    assert chosen is not None
    assert chosen.slug == "generic"


def test_words_survive_every_change_of_template(north: Any, ingest_files: Any, client_of: Any) -> None:
    ingest_files(north, make_instance(StudyInstanceUID=UID))
    browser = client_of("radiologist")
    browser.post(f"{DESK}/start/")
    write(browser, lungs="Words of the lungs", nodule="Solid", nodule_size="9", impression="Words of the end")
    for template in [*ReportTemplate.objects.filter(is_current=True), None]:
        browser.post(f"{DESK}/template/", {"template": template.pk if template else ""})
        text = "\n".join(ReportPart.objects.get().sections.values())
        for words in ("Words of the lungs", "Solid", "9 mm", "Words of the end"):
            assert words in text


WORDS = st.text(st.sampled_from("ab .\n<é"), max_size=30)


@given(before=WORDS, after=WORDS)
def test_a_difference_gives_both_texts_back(before: str, after: str) -> None:
    changes = word_changes(before, after)
    assert "".join(c.text for c in changes if c.kind != "added") == before
    assert "".join(c.text for c in changes if c.kind != "removed") == after


@given(values=st.dictionaries(st.sampled_from(list(GENERIC.fields)), WORDS))
def test_the_plain_outline_carries_all_words_to_any_template(values: dict[str, str]) -> None:
    target = Outline.of(
        {
            "sections": [
                {"id": "x", "title": "X", "role": "findings", "fields": [{"id": "x", "type": "text", "label": ""}]}
            ]
        }
    )
    text = target.texts(target.carried_over(values, GENERIC))["x"]
    for value in values.values():
        assert value.strip() in text


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [{"id": "1x", "type": "text"}],
        [{"id": "password", "type": "text"}],
        [{"id": "a", "type": "choice"}],
        [{"id": "a", "type": "text"}, {"id": "a", "type": "text"}],
        [{"id": "a", "type": "text", "show_if": {"field": "a", "values": ["x"]}}],
        [{"id": "a", "type": "number", "minimum": 5, "maximum": 1}, {"id": "b", "type": "text"}],
        [{"id": "a", "type": "choice", "options": ["x"], "default": "y"}, {"id": "b", "type": "text"}],
    ],
)
def test_a_tree_that_makes_no_sense_is_refused(fields: Any) -> None:
    with pytest.raises(InvalidOutline):
        Outline.of({"sections": [{"id": "s", "title": "S", "fields": fields}]})


def test_what_depends_on_a_hidden_field_is_hidden_too() -> None:
    choice = {"type": "choice", "options": ["No", "Yes"]}
    fields = [
        {"id": "mass", "label": "Mass", **choice},
        {"id": "margin", "label": "Spiculated", "show_if": {"field": "mass", "values": ["Yes"]}, **choice},
        {"id": "spicules", "type": "text", "label": "Spicules", "show_if": {"field": "margin", "values": ["Yes"]}},
    ]
    outline = Outline.of({"sections": [{"id": "findings", "title": "Findings", "fields": fields}]})
    values = {"mass": "Yes", "margin": "Yes", "spicules": "many"}
    assert "many" in outline.texts(values)["findings"]
    assert outline.texts({**values, "mass": "No"})["findings"] == "Mass: No"


def test_ones_own_macro_comes_before_the_shared_one(people: Any, north: Any, client_of: Any) -> None:
    Macro.objects.create(trigger="normal", text="shared")
    browser = client_of("radiologist")
    browser.post("/reports/macros/", {"trigger": ".Normal", "text": "mine", "shared_with": "own"})
    assert templates.macros_by_trigger(principal_of(people["radiologist"]), north.pk) == {"normal": "mine"}
    assert templates.macros_by_trigger(principal_of(people["resident"]), north.pk) == {"normal": "shared"}
    assert browser.post("/reports/macros/", {"trigger": "two words", "text": "x"}).status_code == 422
