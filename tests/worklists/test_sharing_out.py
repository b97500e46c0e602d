"""Cases shared out by rule and by hand, clocks, filters shared, and the lead's figures."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import Membership, Notification, Site
from studies import events, reading
from studies.models import DomainEvent, Priority, StatusChange, Study
from studies.worklists import figures, selectors, turnaround
from studies.worklists.models import (
    AssignmentRule,
    CaseClock,
    ReadingGroup,
    SavedFilter,
    Shift,
    TurnaroundTarget,
    WorklistPreference,
)
from studies.worklists.templatetags.worklist_tags import duration
from tests.factories import make_instance, principal_of
from tests.orders.test_orders import place
from tests.worklists.test_worklist import make_study

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture
def neuro(north: Any, people: Any) -> ReadingGroup:
    group = ReadingGroup.objects.create(site=north, name="Neuro", modalities=["CT", "MR"], words=["head"])
    group.members.set([people["radiologist"], people["resident"]])
    return group


def on_duty(site: Any, user: Any) -> None:
    now = timezone.now()
    Shift.objects.create(site=site, user=user, starts_at=now - timedelta(hours=1), ends_at=now + timedelta(hours=1))


def arrived(ingest_files: Any, site: Any, **values: Any) -> Study:
    ingest_files(site, make_instance(**values))
    events.deliver_due()
    return Study.objects.latest("pk")


def test_a_case_goes_to_the_member_on_duty_with_the_fewest_open_cases(
    north: Any, people: Any, neuro: ReadingGroup, ingest_files: Any
) -> None:
    AssignmentRule.objects.create(group=neuro)
    assert arrived(ingest_files, north, StudyDescription="CT head").assigned_to is None, "nobody is on duty"
    on_duty(north, people["resident"])
    assert arrived(ingest_files, north, StudyDescription="CT head").assigned_to == people["resident"]
    on_duty(north, people["radiologist"])
    assert arrived(ingest_files, north, StudyDescription="CT head").assigned_to == people["radiologist"]
    assert arrived(ingest_files, north, StudyDescription="CT knee").assigned_to is None
    assert arrived(ingest_files, north, StudyDescription="US head", Modality="US").assigned_to is None


def test_a_member_who_may_not_write_there_gets_nothing(
    north: Any, people: Any, neuro: ReadingGroup, ingest_files: Any
) -> None:
    neuro.members.set([people["southradiologist"]])
    AssignmentRule.objects.create(group=neuro, only_on_shift=False)
    assert arrived(ingest_files, north, StudyDescription="CT head").assigned_to is None


def test_the_narrowest_target_sets_the_clock_and_another_priority_moves_it(
    north: Any, people: Any, ingest_files: Any
) -> None:
    TurnaroundTarget.objects.create(site=north, priority=Priority.STAT, minutes=45)
    TurnaroundTarget.objects.create(site=north, priority=Priority.STAT, modality="CT", minutes=20)
    study = arrived(ingest_files, north)
    assert study.clock.due_at - study.received_at == timedelta(hours=24)
    reading.set_priority(study=study, priority="STAT", principal=principal_of(people["admin"]))
    events.deliver_due()
    study.clock.refresh_from_db()
    assert study.clock.due_at - study.received_at == timedelta(minutes=20)


def test_a_late_case_is_told_once(north: Any, ingest_files: Any) -> None:
    late, read = arrived(ingest_files, north), arrived(ingest_files, north)
    reading.set_status(read, Study.Status.FINAL, None)
    CaseClock.objects.update(due_at=timezone.now() - timedelta(minutes=1))
    assert (turnaround.escalate_overdue(), turnaround.escalate_overdue()) == (1, 0)
    assert [e.payload for e in DomainEvent.objects.filter(name="case.overdue")] == [{"study": late.pk}]
    events.deliver_due()
    told = Notification.objects.all()
    assert {n.user.username for n in told} == {"radiologist", "admin"}, "nobody's case: its site's leads are told"
    assert all(late.patient_name not in n.text and late.patient_id_value not in n.text for n in told)


def test_leads_hear_once_of_many_late_cases_that_nobody_has_and_of_each_urgent_one(
    north: Any, people: Any, client_of: Any, ingest_files: Any
) -> None:
    studies = [arrived(ingest_files, north) for _ in range(4)]
    for urgent in studies[:2]:
        reading.set_priority(study=urgent, priority="STAT", principal=principal_of(people["admin"]))
    events.deliver_due()
    long_ago = timezone.now() - timedelta(days=2)
    Study.objects.update(received_at=long_ago)
    CaseClock.objects.update(due_at=long_ago)
    turnaround.escalate_overdue()
    events.deliver_due()
    told = Notification.objects.filter(user=people["radiologist"])
    assert sorted(n.is_urgent for n in told) == [False, True, True]
    page = client_of("radiologist").get(told.get(is_urgent=False).url).content
    assert all(study.study_instance_uid.encode() in page for study in studies)


def test_the_lead_finds_the_late_cases(north: Any, people: Any, client_of: Any, ingest_files: Any) -> None:
    late, in_time, read = (arrived(ingest_files, north) for _ in range(3))
    reading.set_status(read, Study.Status.FINAL, None)
    CaseClock.objects.exclude(study=in_time).update(due_at=timezone.now() - timedelta(minutes=1))
    lead = client_of("radiologist")
    (link,) = re.findall(r'href="(/worklist/[^"]*late=on[^"]*)">1</a>', lead.get("/dashboard/").content.decode())
    page = lead.get(unescape(link)).content.decode()
    assert f"/studies/{late.study_instance_uid}/" in page
    assert f"/studies/{in_time.study_instance_uid}/" not in page
    assert f"/studies/{read.study_instance_uid}/" not in page


def test_next_case_claims_and_passes_over_what_others_hold_or_have(north: Any, people: Any, client_of: Any) -> None:
    held, assigned, free = (make_study(north, n, study_date=datetime(2026, 1, n, tzinfo=UTC)) for n in (1, 2, 3))
    reading.claim_study(study=held, principal=principal_of(people["resident"]))
    reading.assign_by_rule(study=assigned, reader=people["resident"])
    reader = client_of("radiologist")
    assert reader.get("/worklist/upcoming/").json() == {"studies": [free.study_instance_uid]}
    opened = reader.post("/worklist/next/", {"query": "status=arrived&sort=priority,date"})
    assert opened["Location"].startswith(f"/studies/{free.study_instance_uid}/?list=")
    claim = reading.claim_of(free)
    assert claim is not None
    assert claim.holder == people["radiologist"]
    assert b"No unread case is left" in reader.post("/worklist/next/", {"beside": "1.2.3"}, follow=True).content


def test_going_on_gives_an_untouched_case_back(north: Any, people: Any, client_of: Any) -> None:
    first, _second = (make_study(north, n, study_date=datetime(2026, 1, n, tzinfo=UTC)) for n in (1, 2))
    reader = client_of("radiologist")
    reader.post("/worklist/next/")
    reader.post("/worklist/next/", {"beside": first.study_instance_uid})
    assert reading.claim_of(first) is None


def test_going_on_from_untouched_cases_comes_round_to_each_and_first_to_a_new_urgent_one(
    north: Any, client_of: Any
) -> None:
    cases = [make_study(north, n, study_date=datetime(2026, 1, n, tzinfo=UTC)) for n in (1, 2, 3)]
    reader = client_of("radiologist")
    seen: list[str] = []
    for _ in range(5):
        beside = {"beside": seen[-1]} if seen else {}
        seen.append(reader.post("/worklist/next/", beside)["Location"].split("/")[2])
    first, second, third = (one.study_instance_uid for one in cases)
    assert seen == [first, second, third, first, second]
    urgent = make_study(north, 4, study_date=datetime(2026, 1, 9, tzinfo=UTC), priority="STAT")
    ahead = reader.get("/worklist/upcoming/", {"beside": second}).json()["studies"]
    assert ahead == [urgent.study_instance_uid, third, first]


def test_a_colleague_is_told_and_may_take_over(north: Any, people: Any, client_of: Any) -> None:
    study = make_study(north, 1)
    client_of("radiologist").post(f"/studies/{study.study_instance_uid}/claim/")
    resident = client_of("resident")
    refused = resident.post(f"/studies/{study.study_instance_uid}/claim/")
    assert refused.status_code == 409
    assert b"has this case open until" in refused.content
    taken = resident.post(f"/studies/{study.study_instance_uid}/claim/", {"take_over": "1"})
    assert b"You have this case open" in taken.content


def test_many_cases_are_assigned_and_prioritised_at_once(north: Any, south: Any, people: Any, client_of: Any) -> None:
    studies = [make_study(north, 1), make_study(north, 2), make_study(south, 3)]
    pks = [s.pk for s in studies]
    lead = client_of("radiologist")
    answer = lead.post("/worklist/bulk/", {"study": pks, "reader": people["resident"].pk})
    assert "2 cases changed. 1 stays as it was" in answer["HX-Trigger"], "the resident doesn't read at south"
    lead.post("/worklist/bulk/", {"study": pks, "priority": "STAT"})
    assert set(Study.objects.values_list("priority", flat=True)) == {"STAT"}
    client_of("southradiologist").post("/worklist/bulk/", {"study": pks, "priority": "LOW"})
    assert Study.objects.filter(priority="LOW").get().site == south


def test_a_shared_filter_is_seen_by_its_group_only(people: Any, neuro: ReadingGroup, client_of: Any) -> None:
    neuro.members.set([people["resident"]])
    query = "status=arrived&modality=CT&description=head&sort=priority%2Cdate"
    body = {"name": "Heads of ours", "query": query, "share": f"group:{neuro.pk}"}
    client_of("radiologist").post("/worklist/filters/", body)
    assert b"Heads of ours" in client_of("resident").get("/worklist/").content
    assert b"Heads of ours" not in client_of("technologist").get("/worklist/").content
    outsider = client_of("southradiologist").post("/worklist/filters/", {**body, "name": "x"})
    assert (outsider.status_code, SavedFilter.objects.count()) == (302, 1), "and is told so"
    assert SavedFilter.objects.count() == 1


def test_columns_and_sort_are_remembered(north: Any, people: Any, client_of: Any) -> None:
    make_study(north, 1, accession_number="ACC1", institution_name="x")
    reader = client_of("radiologist")
    reader.post("/worklist/columns/", {"column": ["images", "study", "nonsense"]})
    page = reader.get("/worklist/?sort=name").content
    assert b"ACC1" not in page
    kept = WorklistPreference.objects.get(user=people["radiologist"])
    assert (kept.columns, kept.sort) == (["images", "study"], "name")
    assert b'data-sort="name"' in reader.get("/worklist/").content
    # The order of a filter stays with the filter.
    assert b'data-sort="date"' in reader.get("/worklist/?status=arrived&sort=date").content
    assert b'data-sort="name"' in reader.get("/worklist/").content


def test_rows_follow_what_the_list_holds(north: Any, client_of: Any) -> None:
    shown, left = make_study(north, 1), make_study(north, 2, status=Study.Status.FINAL)
    rows = client_of("radiologist").get(f"/worklist/rows/?ids={shown.pk},{left.pk}&status=arrived").content
    assert f'data-row="{shown.pk}"'.encode() in rows
    assert f'data-row="{left.pk}"'.encode() not in rows


def test_what_lies_behind_the_loaded_part_of_a_list_is_not_new(
    north: Any, people: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selectors, "PAGE", 2)
    cases = [
        make_study(north, number, patient_name=f"N{number}", patient_name_search=f"N{number}") for number in range(1, 6)
    ]
    orders = [place(people, north), place(people, north, patient_id="P9")]
    ids = ",".join([*(str(one.pk) for one in cases), *(f"o{one.pk}" for one in orders)])
    reader = client_of("radiologist")

    def behind(list_query: str) -> tuple[int, int]:
        """Give how many rows of the list there are, and how many lie behind its first window."""
        page = unescape(reader.get(f"/worklist/?{list_query}", HTTP_HX_REQUEST="true").content.decode())
        (end,) = re.findall(r'hx-get="[^"]*after=([^"&]+)"', page)
        rows = reader.get(f"/worklist/rows/?ids={ids}&{list_query}&after={end}").content.decode()
        return rows.count("data-row"), rows.count("data-further")

    assert behind("status=arrived&sort=name") == (5, 3)
    assert behind("status=arrived&status=scheduled&sort=name") == (7, 5)
    Study.objects.filter(pk__in=[one.pk for one in cases[2:]]).delete()
    assert behind("status=arrived&status=scheduled&sort=name") == (4, 2)


def test_a_list_hears_of_the_clock_that_follows_another_priority(north: Any, people: Any, ingest_files: Any) -> None:
    study = arrived(ingest_files, north)
    reading.set_priority(study=study, priority=Priority.STAT, principal=principal_of(people["radiologist"]))
    events.deliver_due()
    changes = DomainEvent.objects.filter(name="study.changed", payload__study=study.pk).order_by("pk")
    assert len(changes) == 2, "the second one once the clock is right"


def test_the_figures_are_what_happened(north: Any, people: Any, client_of: Any) -> None:
    now = timezone.now()
    for number, minutes in enumerate((10, 20, 30, 40)):
        study = make_study(north, number, modalities_in_study="CT\\SR", priority="STAT")
        Study.objects.filter(pk=study.pk).update(received_at=now - timedelta(minutes=minutes))
        reading.set_status(study, Study.Status.FINAL, people["radiologist"])
        StatusChange.objects.filter(study=study).update(changed_at=now)
    waiting = make_study(north, 9, modalities_in_study="MR")
    Study.objects.filter(pk=waiting.pk).update(received_at=now - timedelta(hours=2), assigned_to=people["resident"])
    studies = figures.department(principal_of(people["radiologist"]), [north])
    (stat,), (ct,) = figures.turnaround(studies, 7)
    assert (stat.label, stat.count, stat.p50, stat.p90) == ("STAT", 4, 25, 37)
    assert ct.label == "CT"
    assert figures.backlog(studies, now) == {"Routine": [0, 1, 0, 0, 0]}
    _days, volume = figures.volume(studies, 7)
    assert {modality: sum(counts) for modality, counts in volume.items()} == {"CT": 4, "MR": 1}
    load = {row.reader.username: row for row in figures.load(people.values(), studies, 7)}
    assert (load["resident"].assigned, load["radiologist"].finished) == (1, 4)
    page = client_of("radiologist").get("/dashboard/?days=30").content
    assert b"Turnaround by priority" in page
    assert client_of("resident").get("/dashboard/").status_code == 403


def test_percentiles_are_those_computed_by_hand(north: Any, people: Any) -> None:
    now = timezone.now()
    # MR: 10, 20 … 210 minutes; the median is the 11th, the 90th percentile the 19th, the 95th the 20th.
    spread = [("MR", "ROUTINE", minutes) for minutes in range(10, 220, 10)]
    # US, urgent: two reports; between them percentiles lie on a straight line.
    spread += [("US\\SR", "HIGH", 100), ("US\\SR", "HIGH", 200)]
    # Signed, retracted and signed again: the first final report counts.
    spread += [("XA", "STAT", 30)]
    for number, (modality, priority, minutes) in enumerate(spread):
        study = make_study(north, number, modalities_in_study=modality, priority=priority)
        Study.objects.filter(pk=study.pk).update(received_at=now - timedelta(minutes=minutes))
        StatusChange.objects.create(study=study, status="preliminary")
        StatusChange.objects.create(study=study, status="final")
        StatusChange.objects.filter(study=study, status="final").update(changed_at=now)
    again = StatusChange.objects.create(study=study, status="final")
    StatusChange.objects.filter(pk=again.pk).update(changed_at=now + timedelta(hours=3))
    before = make_study(north, 900, modalities_in_study="MR")
    StatusChange.objects.create(study=before, status="final")
    StatusChange.objects.filter(study=before).update(changed_at=now - timedelta(days=8))
    priorities, modalities = figures.turnaround(figures.department(principal_of(people["radiologist"]), [north]), 7)
    rows = {row.label: (row.count, row.p50, row.p90, row.p95) for row in (*priorities, *modalities)}
    assert rows == {
        "STAT": (1, 30, 30, 30),
        "High": (2, 150, 190, 195),
        "Routine": (21, 110, 190, 200),
        "MR": (21, 110, 190, 200),
        "US": (2, 150, 190, 195),
        "XA": (1, 30, 30, 30),
    }


@pytest.mark.parametrize(
    ("minutes", "written"),
    [(0, "0 min"), (59, "59 min"), (60, "1 h 00"), (185, "3 h 05"), (2879, "47 h 59"), (3600, "2.5 d")],
)
def test_times_are_written_as_people_say_them(minutes: int, written: str) -> None:
    assert duration(minutes) == written


def test_the_dashboard_of_an_empty_department_says_so(north: Any, client_of: Any) -> None:
    page = client_of("radiologist").get("/dashboard/").content.decode()
    assert page.count("No report became final in this period.") == 2
    assert "No case is waiting." in page
    assert "No study arrived in this period." in page


def test_a_group_without_rules_is_said_to_take_every_case(north: Any, neuro: ReadingGroup, client_of: Any) -> None:
    lead = client_of("radiologist")
    assert b"Every case of the site" not in lead.get("/worklist/sharing/").content
    ReadingGroup.objects.create(site=north, name="All")
    assert b"Every case of the site" in lead.get("/worklist/sharing/").content


def test_the_only_site_needs_no_choosing_and_no_readers_are_said(north: Any, client_of: Any) -> None:
    lead = client_of("admin")
    assert "Nobody may write reports here yet" not in lead.get("/worklist/sharing/group/new/").content.decode()
    Membership.objects.exclude(user__username="admin").delete()
    Site.objects.exclude(pk=north.pk).delete()
    page = lead.get("/worklist/sharing/group/new/").content.decode()
    assert "Nobody may write reports here yet" in page
    assert "Choose" not in page[page.index('name="site"') :][:300]


def test_the_lead_sets_up_groups_rules_shifts_and_targets(north: Any, people: Any, client_of: Any) -> None:
    lead = client_of("radiologist")
    body = {"site": north.pk, "name": "Chest", "modalities": "ct, dx", "members": [people["resident"].pk]}
    assert lead.post("/worklist/sharing/group/new/", body).status_code == 302
    group = ReadingGroup.objects.get()
    assert group.modalities == ["CT", "DX"]
    assert (
        lead.post("/worklist/sharing/rule/new/", {"group": group.pk, "rank": 1, "is_active": "on"}).status_code == 302
    )
    shift = {"site": north.pk, "user": people["resident"].pk, "starts_at": "2027-01-01T08:00"}
    assert lead.post("/worklist/sharing/shift/new/", {**shift, "ends_at": "2027-01-01T07:00"}).status_code == 422
    assert lead.post("/worklist/sharing/shift/new/", {**shift, "ends_at": "2027-01-01T17:00"}).status_code == 302
    target = {"site": north.pk, "priority": "STAT", "minutes": 30}
    assert lead.post("/worklist/sharing/target/new/", target).status_code == 302
    assert b"Chest" in lead.get("/worklist/sharing/").content
    lead.post(f"/worklist/sharing/group/{group.pk}/delete/")
    assert not AssignmentRule.objects.exists()
