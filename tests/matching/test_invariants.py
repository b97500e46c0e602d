"""What holds for any values: a study is found by its own, and by no pattern or range that a plain reading excludes."""

from __future__ import annotations

import fnmatch
import re
from datetime import date, datetime, time, timedelta
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from studies.matching import MatchingError, Options, criteria_of, matching_studies, remember_names
from studies.matching.pages import page_of_studies
from studies.matching.wildcards import pattern
from studies.models import Patient, Study
from studies.person_names import searchable
from tests.factories import principal_of

pytestmark = [pytest.mark.django_db, pytest.mark.database]
SETTINGS = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00\\*?", exclude_categories=("Cs", "Cc")), max_size=16
)
WORD = st.text(st.sampled_from("AÄBCcçDEéFGHIJKLMNÑOöPQRSTUVWXYZ山田太郎홍길동やま'-"), min_size=2, max_size=8)
PATTERN = st.text(st.sampled_from("AB*?.(^"), max_size=6)


@pytest.fixture
def principal(north: Any, people: Any) -> Any:
    return principal_of(people["radiologist"])


def make_study(site: Any, number: int = 1, **columns: Any) -> Study:
    Study.objects.filter(study_instance_uid=f"1.2.{number}").delete()
    patient, _ = Patient.objects.get_or_create(site=site, identity=f"|{number}")
    name = columns.pop("name", "")
    study: Study = Study.objects.create(
        site=site,
        patient=patient,
        study_instance_uid=f"1.2.{number}",
        patient_name=name,
        patient_name_search=searchable(name),
        number_of_instances=1,
        **columns,
    )
    remember_names([study.patient_name_search])
    return study


def found(principal: Any, options: Options | None = None, **keys: str) -> list[Study]:
    return list(matching_studies(principal, criteria_of(keys.items(), options)))


@given(text=TEXT.map(str.strip))
@SETTINGS
def test_a_study_is_found_by_each_of_its_own_texts(text: str, principal: Any, north: Any) -> None:
    study = make_study(north, patient_id_value=text, accession_number=text, study_id=text, study_description=text)
    for keyword in ("PatientID", "AccessionNumber", "StudyID", "StudyDescription"):
        for key in {text, f"{text[:3]}*", f"*{text[3:]}", "?" * len(text)}:
            assert found(principal, **{keyword: key}) == [study], (keyword, key)


@given(
    family=WORD,
    given=st.lists(WORD, max_size=2),
    others=st.lists(WORD, max_size=2),
)
@SETTINGS
def test_a_study_is_found_by_its_patients_name_in_every_group(
    family: str, given: list[str], others: list[str], principal: Any, north: Any
) -> None:
    groups = ["^".join([family, *given]), *others]
    name = "=".join(groups)
    study = make_study(north, name=name)
    fuzzy = Options(is_fuzzy=True)
    for key in {name, name.lower(), name.upper(), *groups, family, f"{family[:1]}*"}:
        assert found(principal, PatientName=key) == [study], key
        assert found(principal, fuzzy, PatientName=key) == [study], key
    for word in (family, *given):
        # What stands between hyphens is a word of its own; a letter alone is an initial, and no sound.
        if any(len(part) > 1 for part in re.split("['-]", searchable(word))):
            assert found(principal, fuzzy, PatientName=word) == [study], word


@given(value=st.text(st.sampled_from("AB.(^"), max_size=5), key=PATTERN)
@example(value="A.B", key="A?B")
@SETTINGS
def test_wildcards_match_as_a_plain_reading_has_them(value: str, key: str, principal: Any, north: Any) -> None:
    study = make_study(north, study_description=value)
    if not key:
        return
    # fnmatch knows brackets too, but none are made here.
    expected = [study] if re.match(fnmatch.translate(key), value) else []
    assert found(principal, StudyDescription=key) == expected


@given(value=PATTERN)
def test_a_pattern_is_a_regular_expression(value: str) -> None:
    re.compile(pattern(value))


DAYS = st.dates(date(1999, 12, 30), date(2000, 1, 4))
TIMES = st.times().map(lambda t: t.replace(microsecond=0))


@given(day=DAYS, at=TIMES, low=DAYS | st.none(), high=DAYS | st.none(), since=TIMES, until=TIMES)
@SETTINGS
def test_ranges_hold_what_lies_between_their_ends(
    day: date, at: time, low: date | None, high: date | None, since: time, until: time, principal: Any, north: Any
) -> None:
    study = make_study(north, study_date=day, study_time=at)
    if low is None and high is None:
        low = day
    dates = f"{low:%Y%m%d}-{high:%Y%m%d}" if low and high else f"{low:%Y%m%d}-" if low else f"-{high:%Y%m%d}"
    times = f"{since:%H%M%S}-{until:%H%M%S}" if low and high else f"{since:%H%M%S}-" if low else f"-{until:%H%M%S}"
    in_days = (low is None or low <= day) and (high is None or day <= high)
    in_times = (low is None or since <= at) and (high is None or at <= until)
    assert found(principal, StudyDate=dates) == ([study] if in_days else [])
    assert found(principal, StudyDate=dates, StudyTime=times) == ([study] if in_days and in_times else [])
    moment = datetime.combine(day, at)
    is_within = (low is None or datetime.combine(low, since) <= moment) and (
        high is None or moment <= datetime.combine(high, until)
    )
    combined = found(principal, Options(combines_datetime=True), StudyDate=dates, StudyTime=times)
    assert combined == ([study] if is_within else [])


@given(
    day=DAYS,
    at=TIMES,
    there=st.integers(-48, 56).map(lambda quarters: quarters * 15),
    asked=st.integers(-48, 56).map(lambda quarters: quarters * 15),
)
@SETTINGS
def test_a_day_asked_in_another_zone_holds_the_same_moments(
    day: date, at: time, there: int, asked: int, principal: Any, north: Any
) -> None:
    def written(minutes: int) -> str:
        return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}{abs(minutes) % 60:02}"

    offset = {"00080201": {"vr": "SH", "Value": [written(there)]}}
    study = make_study(north, study_date=day, study_time=at, attributes=offset)
    seen = datetime.combine(day, at) + timedelta(minutes=asked - there)
    zone = written(asked)
    assert found(principal, StudyDate=f"{seen:%Y%m%d}", TimezoneOffsetFromUTC=zone) == [study]
    assert found(principal, StudyDate=f"{seen + timedelta(days=1):%Y%m%d}-", TimezoneOffsetFromUTC=zone) == []


@given(name=st.text(max_size=12), value=st.text(max_size=24))
@SETTINGS
def test_any_key_is_matched_or_refused(name: str, value: str, principal: Any) -> None:
    for keyword in (name, "PatientName", "StudyDate", "StudyTime", "00400275.00400009", "ProcedureCodeSequence"):
        for options in (Options(), Options(is_fuzzy=True, takes_empty=True, takes_many=True, combines_datetime=True)):
            try:
                criteria = criteria_of([(keyword, value), ("StudyTime", "10-11")], options)
            except MatchingError:
                continue
            assert len(list(matching_studies(principal, criteria))) == 0


def test_pages_are_the_slices_of_one_order_however_deep(
    principal: Any, north: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in {"SHALLOW": 3, "STEP": 4, "FAR": 4}.items():
        monkeypatch.setattr(f"studies.matching.pages.{name}", size)
    patient = Patient.objects.create(site=north, identity="|1")
    Study.objects.bulk_create(
        Study(
            site=north,
            patient=patient,
            study_instance_uid=f"1.2.{n}",
            study_date=date(2026, 1, n % 5 + 1) if n % 7 else None,
            number_of_instances=1,
        )
        for n in range(40)
    )
    for keys in ([], [("StudyDate", "20260102-")]):
        studies = matching_studies(principal, criteria_of(keys))
        order = list(studies.values_list("pk", flat=True))
        for offset in (5, 30, 11, 12, 8, 33, 0, 22, 39, 45, 17):
            assert page_of_studies(studies, offset=offset, limit=6) == order[offset : offset + 6], offset


def test_studies_without_a_date_come_last_on_every_database(principal: Any, north: Any) -> None:
    undated = make_study(north, 1)
    old, new = make_study(north, 2, study_date=date(1990, 1, 1)), make_study(north, 3, study_date=date(2020, 1, 1))
    assert found(principal) == [new, old, undated]
    assert found(principal, StudyDate="-20300101") == [new, old]


@pytest.mark.parametrize(
    ("keys", "index"),
    [
        ({"PatientID": "P1"}, "study_by_patient_id"),
        ({"AccessionNumber": "A1"}, "study_by_accession"),
        # Two begin with the name; which one the planner takes is its own affair.
        ({"PatientName": "Lind*"}, "study_by_name"),
        ({"StudyDate": "20260101-20260107", "ModalitiesInStudy": "MR"}, "study_by_date"),
        ({}, "study_by_date"),
    ],
)
def test_each_common_search_walks_an_index(keys: dict[str, str], index: str, principal: Any, north: Any) -> None:
    studies = matching_studies(principal, criteria_of(keys.items())).values_list("pk")[:50]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # So few rows would be read one by one; the question is whether the index can serve.
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute("SET LOCAL enable_bitmapscan = off")
        plan = studies.explain()
        # With so few rows PostgreSQL may take any index that serves; which one it takes of many is measured elsewhere.
        wanted = ["Index"] if connection.vendor == "postgresql" else index.split("|")
        assert any(one in plan for one in wanted), plan
        assert "Seq Scan on studies_study" not in plan
