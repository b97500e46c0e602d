"""What the worklist and the ways in beside it promise."""

from __future__ import annotations

import html
import io
import re
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portal.audit.models import AuditEvent
from studies.ingest.models import QuarantinedFile
from studies.models import Patient, ReferringPhysician, Study
from studies.worklists import selectors
from studies.worklists.models import SavedFilter
from studies.worklists.sorting import sorting
from tests.factories import make_instance, principal_of

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def make_study(site: Any, number: int, **values: Any) -> Study:
    patient, _ = Patient.objects.get_or_create(site=site, identity=f"|P{number}", defaults={"patient_id": f"P{number}"})
    return Study.objects.create(
        site=site, patient=patient, study_instance_uid=f"1.2.{number}", patient_id_value=f"P{number}", **values
    )


def test_it_finds_by_name_id_modality_site_and_status(
    north: Any, south: Any, ingest_files: Any, client_of: Any
) -> None:
    ingest_files(north, make_instance(PatientName="Müller^Jürgen", PatientID="MUELL1", Modality="CT"))
    ingest_files(south, make_instance(PatientName="Doe^Jane", PatientID="DOEID1", Modality="MR"))
    reader = client_of("radiologist")
    for query, shown, hidden in (
        ("q=muller", b"MUELL1", b"DOEID1"),
        ("q=M%C3%BCller,+J", b"MUELL1", b"DOEID1"),
        ("q=DOEID1", b"DOEID1", b"MUELL1"),
        ("modality=MR", b"DOEID1", b"MUELL1"),
        ("site=north", b"MUELL1", b"DOEID1"),
        ("referrer=okafor", b"MUELL1", b"xyz"),
    ):
        page = reader.get(f"/worklist/?{query}", HTTP_HX_REQUEST="true").content
        assert shown in page, query
        assert hidden not in page, query
    assert b"No study matches" in reader.get("/worklist/?status=final").content
    assert AuditEvent.objects.filter(action="search", details__keys__q="muller").exists()


def test_a_beginning_that_many_referrers_share_leaves_none_out(
    north: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("Okafor", "Okonkwo", "Okoro", "Olsson")):
        called = ReferringPhysician.objects.create(site=north, name=name, name_search=name.upper())
        make_study(north, number, referring_physician=called)
    monkeypatch.setattr(selectors, "MOST_COUNTED", 2)
    page = client_of("radiologist").get("/worklist/?referrer=ok", HTTP_HX_REQUEST="true").content
    assert [f">P{number}<".encode() in page for number in range(4)] == [True, True, True, False]


@given(
    days=st.lists(st.one_of(st.none(), st.integers(1, 3)), min_size=1, max_size=14),
    sort=st.sampled_from(["date", "-date", "priority,-date", "-priority,date,name"]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_hold_every_study_once_in_one_order(
    days: list[int | None], sort: str, north: Any, people: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selectors, "PAGE", 3)
    monkeypatch.setattr(selectors, "NEXT_PAGE", 4)
    Study.objects.all().delete()
    for number, day in enumerate(days):
        day_of = date(2026, 1, day) if day else None
        make_study(north, number, study_date=day_of, priority=["STAT", "ROUTINE"][number % 2])
    studies = selectors.worklist(principal_of(people["radiologist"]), {})
    seen, after = [], ""
    while True:
        page = selectors.page_of(studies, sorting(sort), after=after)
        seen += [s.pk for s in page.studies]
        if not page.after:
            break
        after = page.after
    assert sorted(seen) == sorted(Study.objects.values_list("pk", flat=True))
    assert seen == [s.pk for s in studies.order_by(*sorting(sort).order)]


def test_a_page_costs_the_same_however_long_the_list(
    north: Any, client_of: Any, django_assert_max_num_queries: Any
) -> None:
    for number in range(70):
        make_study(north, number, patient_name="Doe^J", study_date=date(2026, 1, 1))
    reader = client_of("radiologist")
    with django_assert_max_num_queries(22):
        assert reader.get("/worklist/").content.count(b"row-link") == 30
    with django_assert_max_num_queries(15):
        page = reader.get("/worklist/?status=arrived", HTTP_HX_REQUEST="true").content.decode()
    assert page.count("row-link") == 30
    assert "70 cases" in page
    following = re.search(r'class="more-rows" hx-get="([^"]+)"', page)
    assert following is not None
    with django_assert_max_num_queries(9):
        more = reader.get(html.unescape(following[1]), HTTP_HX_REQUEST="true").content
    assert more.count(b"row-link") == 40


def test_names_from_images_are_text_not_markup(north: Any, ingest_files: Any, client_of: Any) -> None:
    ingest_files(north, make_instance(PatientName="<script>alert(1)</script>", StudyDescription="<b>x</b>"))
    page = client_of("radiologist").get("/worklist/").content
    assert b"<script>alert" not in page.lower()
    assert b"<b>x</b>" not in page


def test_a_filter_is_kept_and_forgotten_by_its_owner_only(people: Any, client_of: Any) -> None:
    reader = client_of("radiologist")
    reader.post("/worklist/filters/", {"name": "CT today", "query": "modality=CT"})
    kept = SavedFilter.objects.get()
    assert b"CT today" in reader.get("/worklist/").content
    client_of("resident").post(f"/worklist/filters/{kept.pk}/delete/")
    assert SavedFilter.objects.exists()
    reader.post(f"/worklist/filters/{kept.pk}/delete/")
    assert not SavedFilter.objects.exists()


def test_the_next_case_is_the_oldest_unread_one(north: Any, client_of: Any) -> None:
    make_study(north, 1, study_date=date(2026, 1, 2))
    make_study(north, 2, study_date=date(2026, 1, 1))
    make_study(north, 3, study_date=date(2025, 1, 1), status=Study.Status.FINAL)
    reader = client_of("radiologist")
    assert reader.post("/worklist/next/")["Location"] == "/studies/1.2.2/"
    assert reader.post("/worklist/next/", {"beside": "1.2.2"})["Location"] == "/studies/1.2.1/"


def test_a_page_that_stays_is_told_where_the_next_case_is(north: Any, client_of: Any) -> None:
    make_study(north, 1)
    reader = client_of("radiologist")

    def told(**values: str) -> str:
        return str(reader.post("/worklist/next/", values, headers={"accept": "application/json"}).json()["address"])

    assert told() == "/studies/1.2.1/"
    assert told(beside="1.2.1").startswith("/worklist/")
    assert b"No unread case is left" in reader.get("/worklist/").content


def zip_of(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def upload(browser: Any, name: str, content: bytes) -> Any:
    return browser.post(f"/upload/files/?name={name}", content, content_type="application/octet-stream")


def test_a_zip_is_taken_file_by_file(client_of: Any) -> None:
    content = zip_of(
        **{"a/1.dcm": make_instance(), "../../2.dcm": make_instance(), "notes.txt": b"hi", "DICOMDIR": b"x"}
    )
    answer = upload(client_of("technologist"), "cd.zip", content)
    outcomes = {f["name"]: f["status"] for f in answer.json()["files"]}
    assert outcomes == {"a/1.dcm": "stored", "../../2.dcm": "stored", "notes.txt": "refused"}
    assert QuarantinedFile.objects.get().file_name == "notes.txt"


def test_a_zip_bomb_and_a_broken_zip_are_told_so(client_of: Any) -> None:
    bomb = zip_of(**{"big.dcm": b"\0" * 30_000_000})
    assert upload(client_of("technologist"), "bomb.zip", bomb).status_code == 422
    assert upload(client_of("technologist"), "broken.zip", b"PK\x03\x04nonsense").status_code == 422
    assert Study.objects.count() == 0


def test_import_takes_folders_and_zips_and_lists_what_it_refused(
    north: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "to import"
    (folder / "cd" / "IMAGES").mkdir(parents=True)
    (folder / "cd" / "IMAGES" / "IM1").write_bytes(make_instance())
    (folder / "cd" / "DICOMDIR").write_bytes(b"anything")
    (folder / "more.zip").write_bytes(zip_of(x=make_instance()))
    call_command("import", str(folder))
    assert Study.objects.count() == 2
    (folder / "readme.txt").write_text("hello")
    with pytest.raises(SystemExit) as ended:
        call_command("import", str(folder))
    assert ended.value.code == 1
    printed = capsys.readouterr().out
    assert "2 already there" in printed
    assert "readme.txt: This is no DICOM file" in printed


def test_a_refused_file_can_be_had_again_by_those_who_may(north: Any, ingest_files: Any, client_of: Any) -> None:
    ingest_files(north, b"no dicom at all")
    file = QuarantinedFile.objects.get()
    answer = client_of("technologist").get(f"/quarantine/{file.pk}/")
    assert b"".join(answer.streaming_content) == b"no dicom at all"
    assert AuditEvent.objects.filter(action="export", username="technologist").exists()
