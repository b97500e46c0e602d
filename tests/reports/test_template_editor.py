"""The template editor: what its form holds is the tree, and every button does to the tree what it says."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from django.http import QueryDict
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studies.reports import mrrt, templates
from studies.reports.models import ReportTemplate
from studies.reports.outline import Outline
from studies.reports.template_editor import changed, read_tree
from tests.factories import principal_of
from tests.reports.test_templates import RADREPORT

pytestmark = [pytest.mark.django_db]
EDITOR = "/reports/templates/editor/"


class Form(HTMLParser):
    """What a browser would send of a page's form with the given id, or of a fragment."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sent: list[tuple[str, str]] = []
        self._area: str | None = None
        self._select: str | None = None
        self._text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        name = given.get("name", "")
        is_ticked = given.get("type") not in {"checkbox", "radio"} or "checked" in given
        if tag == "input" and name and is_ticked:
            self.sent.append((name, given.get("value", "")))
        elif tag == "textarea":
            self._area, self._text = name, ""
        elif tag == "select":
            self._select = name
            self.sent.append((name, ""))
        elif tag == "option" and self._select and "selected" in given:
            self.sent[-1] = (self._select, given.get("value", ""))

    def handle_data(self, data: str) -> None:
        if self._area is not None:
            self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self._area:
            # A browser leaves a line feed right after the tag out.
            self.sent.append((self._area, self._text.removeprefix("\n")))
            self._area = None
        if tag == "select":
            self._select = None

    @property
    def data(self) -> dict[str, list[str]]:
        data: dict[str, list[str]] = {}
        for name, value in self.sent:
            data.setdefault(name, []).append(value)
        return data


def form_of(answer: Any) -> dict[str, list[str]]:
    """Give the form of a page or of the editor's answer."""
    html = answer.content.decode()
    begin = html.find('<form method="post" id="template-form"')
    return Form(html[begin : html.find("</form>", begin)] if begin >= 0 else html).data


def tree_of(data: dict[str, list[str]]) -> Any:
    query = QueryDict(mutable=True)
    for name, values in data.items():
        query.setlist(name, values)
    return read_tree(query)


def press(browser: Client, data: dict[str, list[str]], action: str) -> dict[str, list[str]]:
    """Press a button of the editor; give the form as it is then."""
    answer = browser.post(EDITOR, {**data, "action": action}, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    begin = answer.content.decode().find("hx-swap-oob")
    return {**data_without_tree(data), **Form(answer.content.decode()[:begin]).data}


def data_without_tree(data: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: values for name, values in data.items() if not name[:1].isdigit() and name != "before"}


def test_every_template_goes_through_the_form_unchanged(client_of: Any, people: Any) -> None:
    lead = principal_of(people["admin"])
    templates.save_template(principal=lead, **mrrt.read_template(RADREPORT).as_template())
    browser = client_of("admin")
    current = ReportTemplate.objects.filter(is_current=True)
    assert current.count() > 6
    for template in current:
        data = form_of(browser.get(f"/reports/templates/{template.pk}/"))
        assert Outline.of(tree_of(data)).as_json() == template.content
        assert browser.post(f"/reports/templates/{template.pk}/", data).status_code == 302
        newest = ReportTemplate.objects.get(family=template.family, is_current=True)
        assert newest.content == template.content
        assert (newest.modalities, newest.keywords) == (template.modalities, template.keywords)
        assert (newest.version, newest.coded_content) == (template.version + 1, template.coded_content)


def test_a_template_is_made_from_nothing(client_of: Any) -> None:
    browser: Client = client_of("radiologist")
    data = form_of(browser.get("/reports/templates/new/"))
    data |= {"name": ["Thyroid"], "shared_with": ["own"], "language": ["en"]}
    data = press(browser, data, "add_section")
    place = max(int(name.split(".")[0]) for name in data if name[:1].isdigit())
    data[f"{place}.title"] = ["TI-RADS"]
    data[f"{place}.0.label"], data[f"{place}.0.type"] = ["Nodule"], ["choice"]
    data = press(browser, data, "refresh")
    data[f"{place}.0.options"] = ["None\nSolid\nSolid\n\n Cystic "]
    data[f"{place}.0.required"] = ["1"]
    data = press(browser, press(browser, data, f"add_field {place}"), "refresh")
    data[f"{place}.1.label"], data[f"{place}.1.type"] = ["Size"], ["number"]
    data[f"{place}.1.show_if"] = [f"{place}.0"]
    data = press(browser, data, "refresh")
    data |= {f"{place}.1.unit": ["mm"], f"{place}.1.minimum": ["1"], f"{place}.1.maximum": ["99,5"]}
    data[f"{place}.1.show_if_values"] = ["Solid", "Cystic"]
    assert browser.post("/reports/templates/new/", data).status_code == 302
    section = Outline.of(ReportTemplate.objects.get(name="Thyroid").content).sections[-1]
    nodule, size = section.fields
    assert (section.title, nodule.id, nodule.options, nodule.required) == (
        "TI-RADS",
        "nodule",
        ("None", "Solid", "Cystic"),
        True,
    )
    assert (size.unit, size.minimum, size.maximum) == ("mm", 1, 99.5)
    assert size.show_if is not None
    assert (size.show_if.field, size.show_if.values) == ("nodule", ("Solid", "Cystic"))


def test_what_makes_no_sense_is_told_in_words_and_nothing_typed_is_lost(client_of: Any) -> None:
    browser: Client = client_of("radiologist")
    data = form_of(browser.get("/reports/templates/new/"))
    data |= {"name": ["Mine"], "shared_with": ["own"], "0.0.label": ["How big"], "0.0.type": ["number"]}
    data |= {"0.0.minimum": ["many"], "0.0.help": ["typed with care"]}
    answer = browser.post("/reports/templates/new/", data)
    assert answer.status_code == 422
    assert "The minimum of “How big” must be a number." in answer.content.decode()
    again = form_of(answer)
    assert (again["0.0.minimum"], again["0.0.help"], again["name"]) == (["many"], ["typed with care"], ["Mine"])
    assert not ReportTemplate.objects.filter(name="Mine").exists()


def test_what_was_removed_comes_back(client_of: Any) -> None:
    browser: Client = client_of("admin")
    template = ReportTemplate.objects.get(slug="ct-chest", is_current=True)
    data = form_of(browser.get(f"/reports/templates/{template.pk}/"))
    fewer = press(browser, data, "remove 0")
    assert len(tree_of(fewer)["sections"]) == len(template.content["sections"]) - 1
    assert Outline.of(tree_of(press(browser, fewer, "undo"))).as_json() == template.content


def test_a_condition_goes_with_what_it_asks_for(client_of: Any) -> None:
    browser: Client = client_of("admin")
    template = ReportTemplate.objects.get(slug="ct-chest", is_current=True)
    tree = template.content
    fields = [f for section in tree["sections"] for f in section["fields"]]
    dependent = next(f for f in fields if "show_if" in f)
    section, place = next(
        (s, f)
        for s, one in enumerate(tree["sections"])
        for f, field in enumerate(one["fields"])
        if field["id"] == dependent["show_if"]["field"]
    )
    data = form_of(browser.get(f"/reports/templates/{template.pk}/"))
    after = tree_of(press(browser, data, f"up {section}.{place}"))
    moved = next(f for one in after["sections"] for f in one["fields"] if f["id"] == dependent["id"])
    assert moved["show_if"] == dependent["show_if"]
    without = tree_of(press(browser, data, f"remove {section}.{place}"))
    assert "show_if" not in next(f for one in without["sections"] for f in one["fields"] if f["id"] == dependent["id"])
    Outline.of(without)


PLACES = st.sampled_from(["0", "1", "2", "9", "0.0", "0.1", "1.0", "1.1", "2.0", "0.9", "x", "", "0.x", "-1"])
ACTIONS = st.tuples(st.sampled_from(["up", "down", "copy", "add_field", "add_section", "nonsense"]), PLACES)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(actions=st.lists(ACTIONS, max_size=12))
def test_no_button_loses_a_word(actions: list[tuple[str, str]]) -> None:
    tree: Any = {
        "sections": [
            {
                "id": name,
                "title": name,
                "role": "other",
                "fields": [{"id": f"{name}{n}" if n else name, "type": "text", "label": f"{name}{n}"} for n in (0, 1)],
            }
            for name in ("a", "b", "c")
        ]
    }
    for verb, place in actions:
        tree, _ = changed(tree, f"{verb} {place}".strip())
        labels = [field["label"] for section in tree["sections"] for field in section["fields"]]
        assert {"a0", "a1", "b0", "b1", "c0", "c1"} <= set(labels)
        ids = [field["id"] for section in tree["sections"] for field in section["fields"] if field["id"]]
        assert len(ids) == len(set(ids))
