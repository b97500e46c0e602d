"""Filters of the worklist: kept, changed, shared with a group or a role, put in order, forgotten."""

from __future__ import annotations

from html import unescape
from typing import Any

import pytest

from accounts.models import Role
from studies.worklists.models import ReadingGroup, SavedFilter
from tests.worklists.test_worklist import make_study

pytestmark = [pytest.mark.django_db, pytest.mark.database]
CT_HEAD = "status=arrived&modality=CT&description=head&sort=priority%2Cdate"


def keep(client: Any, name: str, query: str = CT_HEAD, **values: str) -> SavedFilter:
    client.post("/worklist/filters/", {"name": name, "query": query, **values})
    return SavedFilter.objects.get(name=name)


def listed(client: Any, query: str) -> str:
    return unescape(client.get(f"/worklist/?{query}", HTTP_HX_REQUEST="true").content.decode())


def chips(client: Any) -> list[str]:
    page = listed(client, "")
    return [part.split("</bdi>")[0] for part in page.split('<bdi class="clip">')[1:] if "saved=" in page]


def test_the_list_says_which_filter_it_shows_and_offers_to_keep_changes(people: Any, client_of: Any) -> None:
    reader = client_of("radiologist")
    kept = keep(reader, "CT head")
    assert 'aria-current="true"' in listed(reader, CT_HEAD), "also where the same was typed by hand"
    opened = f"{CT_HEAD}&saved={kept.pk}"
    assert 'aria-current="true"' in listed(reader, opened)
    assert "Update" not in listed(reader, opened)
    changed = opened.replace("modality=CT", "modality=MR")
    assert "Update “CT head”" in listed(reader, changed)
    assert f"saved={kept.pk}" in reader.get(f"/worklist/?{changed}", HTTP_HX_REQUEST="true")["HX-Replace-Url"]
    reader.post(f"/worklist/filters/{kept.pk}/replace/", {"query": changed})
    kept.refresh_from_db()
    assert kept.query == CT_HEAD.replace("modality=CT", "modality=MR")
    assert "Update" not in listed(reader, changed)


def test_another_order_is_a_change_too(people: Any, client_of: Any) -> None:
    reader = client_of("radiologist")
    kept = keep(reader, "CT head")
    assert "Update" in listed(reader, f"{CT_HEAD}&saved={kept.pk}".replace("priority%2Cdate", "name"))


def test_its_owner_renames_shares_and_deletes_it(north: Any, people: Any, client_of: Any) -> None:
    reader, resident = client_of("radiologist"), client_of("resident")
    kept = keep(reader, "CT head")
    page = reader.get("/worklist/filters/").content.decode()
    assert "Modality: CT · Study has the words: head · by Priority ↑, Study date ↑" in page
    role = Role.objects.get(slug="resident")
    reader.post(f"/worklist/filters/{kept.pk}/", {"name": "Heads", "share": f"role:{role.pk}"})
    assert chips(resident) == ["Heads"]
    assert b"by radiologist" in resident.get("/worklist/filters/").content
    assert f"/worklist/filters/{kept.pk}/delete/".encode() not in resident.get("/worklist/filters/").content
    assert resident.get(f"/worklist/filters/{kept.pk}/").status_code == 404
    assert resident.post(f"/worklist/filters/{kept.pk}/replace/", {"query": "status=final"}).status_code == 404
    resident.post(f"/worklist/filters/{kept.pk}/delete/")
    keep(reader, "Other")
    again = reader.post(f"/worklist/filters/{kept.pk}/", {"name": "Other", "share": ""})
    assert (again.status_code, b"of that name already" in again.content) == (422, True)
    reader.post(f"/worklist/filters/{kept.pk}/delete/", {"of_page": "1"})
    assert chips(resident) == []


def test_each_puts_them_in_an_order_of_their_own(people: Any, client_of: Any) -> None:
    reader, resident = client_of("radiologist"), client_of("resident")
    role = f"role:{Role.objects.get(slug='resident').pk}"
    one, _two, three = (keep(reader, name, share=role) for name in ("One", "Two", "Xylophone"))
    reader.post(f"/worklist/filters/{three.pk}/move/", {"way": "up"})
    reader.post(f"/worklist/filters/{one.pk}/move/", {"way": "down"})
    assert chips(reader) == ["Xylophone", "One", "Two"]
    assert chips(resident) == ["One", "Two", "Xylophone"]
    keep(reader, "Appended")
    assert chips(reader) == ["Xylophone", "One", "Two", "Appended"]
    page = listed(reader, "")
    assert page.index('data-key="6" data-key-label="Xylophone"') < page.index('data-key="9" data-key-label="Appended"')


def test_one_shares_with_groups_and_roles_that_one_is_in_and_a_lead_with_all(
    north: Any, people: Any, client_of: Any
) -> None:
    theirs, others = (ReadingGroup.objects.create(site=north, name=name) for name in ("Body", "Neuro"))
    theirs.members.add(people["resident"])
    resident, lead = client_of("resident"), client_of("radiologist")
    page = resident.get("/worklist/?status=arrived").content.decode()
    assert "Body (North" in page
    assert "Neuro (North" not in page
    assert "Every Resident" in page
    assert "Every Radiologist" not in page
    assert "Neuro (North" in lead.get("/worklist/?status=arrived").content.decode()
    refused = resident.post("/worklist/filters/", {"name": "A", "query": CT_HEAD, "share": f"group:{others.pk}"})
    assert (refused.status_code, SavedFilter.objects.count()) == (302, 0)
    assert b"Not saved" in resident.get("/worklist/").content
    assert keep(resident, "B", share=f"group:{theirs.pk}").group == theirs


def test_a_filter_that_names_a_patient_stays_ones_own(people: Any, client_of: Any) -> None:
    lead, role = client_of("radiologist"), Role.objects.get(slug="radiologist")
    share = f"role:{role.pk}"
    lead.post("/worklist/filters/", {"name": "A", "query": "q=Lindqvist", "share": share})
    assert not SavedFilter.objects.exists()
    assert "can’t be shared" in lead.get("/worklist/").content.decode()
    own = keep(lead, "Mine", "accession_number=A1")
    refused = lead.post(f"/worklist/filters/{own.pk}/", {"name": "Mine", "share": share})
    assert (refused.status_code, "can’t be shared" in refused.content.decode()) == (422, True)
    shared = keep(lead, "Ours", CT_HEAD, share=share)
    lead.post(f"/worklist/filters/{shared.pk}/replace/", {"query": "q=Lindqvist"})
    shared.refresh_from_db()
    assert shared.query == CT_HEAD


def test_a_shared_filter_that_one_cannot_apply_is_not_called_changed(
    north: Any, south: Any, people: Any, client_of: Any
) -> None:
    role = Role.objects.get(slug="resident")
    kept = keep(client_of("radiologist"), "South", "site=south&status=arrived", share=f"role:{role.pk}")
    page = listed(client_of("resident"), f"{kept.query}&saved={kept.pk}")
    assert "it’s none of those that you see" in page
    assert "changed" not in page


@pytest.mark.parametrize("query", ["site=south", "group={group}", "assigned=999999", "since=yesterday", "site=gone"])
def test_a_filter_that_cannot_be_applied_shows_nothing_and_says_why(
    query: str, north: Any, south: Any, people: Any, client_of: Any
) -> None:
    group = ReadingGroup.objects.create(site=south, name="Body")
    make_study(north, 1)
    resident = client_of("resident")
    page = listed(resident, query.format(group=group.pk))
    assert "/studies/1.2.1/" not in page
    assert "This filter can’t be applied" in page
    assert "1.2.1" not in resident.get(f"/worklist/rows/?ids={make_study(north, 2).pk}&{query}").content.decode()
    assert resident.post("/worklist/next/", {"query": query.format(group=group.pk)})["Location"].startswith(
        "/worklist/"
    )


def test_the_list_says_which_of_the_quick_ones_it_is(people: Any, client_of: Any) -> None:
    reader = client_of("radiologist")
    assert 'aria-current="true" data-key="1"' in listed(reader, "status=arrived&sort=priority,date")
    assert 'aria-current="true"' not in listed(reader, "status=arrived&modality=CT&sort=priority,date")
    assert 'data-key="2"' not in listed(client_of("technologist"), ""), "who reads nothing has no cases"
    assert listed(client_of("referrer"), "").count("filter-chip") == 2, "the row itself, and today's studies"


def test_a_filter_that_is_too_long_is_refused_not_cut(people: Any, client_of: Any) -> None:
    reader = client_of("radiologist")
    endless = CT_HEAD + "&description=" + "x" * 1000
    reader.post("/worklist/filters/", {"name": "Endless", "query": endless})
    assert not SavedFilter.objects.exists()
    assert b"the filter is too long" in reader.get("/worklist/").content
    kept = keep(reader, "CT head")
    reader.post(f"/worklist/filters/{kept.pk}/replace/", {"query": endless})
    kept.refresh_from_db()
    assert kept.query == CT_HEAD
