"""Names that no index of sounds holds, and moments below the study: matched on the attributes themselves."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import jellyfish
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.principals import Principal
from studies.matching import InvalidKeyValue, Options, criteria_of, matching_instances, matching_series
from studies.matching.moments import datetime_range
from studies.matching.soundex import soundex_pattern
from tests.factories import make_instance, principal_of

pytestmark = [pytest.mark.django_db, pytest.mark.database]
FUZZY = Options(is_fuzzy=True)
COMBINED = Options(combines_datetime=True)
WORDS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1, max_size=9)
Find = Callable[..., list[str]]


@pytest.fixture
def principal(people: Any) -> Principal:
    return principal_of(people["radiologist"])


@pytest.fixture
def find(north: Any, principal: Principal, ingest_files: Any) -> Find:
    """Put two examinations of different time zones in and give a search for their series."""
    ingest_files(
        north,
        make_instance(
            SeriesInstanceUID="1.1",
            OperatorsName="Müller^Jürgen^^Dr",
            PerformingPhysicianName="Weiß^Anna",
            ContentCreatorName="Kowalczyk^Jan",
            SeriesDate="20260901",
            SeriesTime="233000",
            AcquisitionDate="20260901",
            AcquisitionTime="2329",
            AcquisitionDateTime="20260901232900.5",
            TimezoneOffsetFromUTC="+0200",
        ),
        make_instance(
            SeriesInstanceUID="1.2",
            OperatorsName="Smith^John\\Yamada^Tarou=山田^太郎",
            PerformingPhysicianName="O'Brien^Mary Ann",
            SeriesDate="20260902",
            SeriesTime="003000",
            AcquisitionDate="20260902",
            AcquisitionTime="0029",
            AcquisitionDateTime="20260901152900+0000",
            TimezoneOffsetFromUTC="+0900",
        ),
        make_instance(SeriesInstanceUID="1.3", SeriesDate="20260901", SeriesTime="1530", AcquisitionDateTime="2026"),
    )

    def search(options: Options | None = None, **keys: str) -> list[str]:
        found = matching_series(principal, criteria_of(list(keys.items()), options))
        return sorted(series.series_instance_uid for series in found)

    return search


@given(word=WORDS, other=WORDS)
def test_the_pattern_is_soundex(word: str, other: str) -> None:
    fits = re.fullmatch(soundex_pattern(word), other) is not None
    assert fits == (jellyfish.soundex(word) == jellyfish.soundex(other))
    assert re.fullmatch(soundex_pattern(word), word)
    assert re.fullmatch(soundex_pattern(word), word.lower())


@pytest.mark.parametrize(
    ("keyword", "name", "found"),
    [
        ("OperatorsName", "Miller", ["1.1"]),
        ("OperatorsName", "Mueller", ["1.1"]),
        ("OperatorsName", "Jurgen Muller", ["1.1"]),
        ("OperatorsName", "Mueller^Jorgen", ["1.1"]),
        ("OperatorsName", "Mueller^J", ["1.1"]),
        # By component: a given name is no family name.
        ("OperatorsName", "Jurgen^Mueller", []),
        ("OperatorsName", "Smyth", ["1.2"]),
        ("OperatorsName", "Yamato", ["1.2"]),
        ("OperatorsName", "山田^太郎", ["1.2"]),
        ("OperatorsName", "Jones", []),
        ("PerformingPhysicianName", "Weiss", ["1.1"]),
        ("PerformingPhysicianName", "Brian^Mary", ["1.2"]),
        ("PerformingPhysicianName", "Anne", ["1.1", "1.2"]),
    ],
)
def test_names_that_no_index_holds_are_heard_too(keyword: str, name: str, found: list[str], find: Find) -> None:
    assert find(FUZZY, **{keyword: name}) == found


def test_without_fuzzy_matching_a_name_is_its_letters(find: Find) -> None:
    assert find(OperatorsName="Miller") == []
    assert find(OperatorsName="muller") == ["1.1"]


def test_names_of_instances_are_heard(find: Find, principal: Principal) -> None:
    found = matching_instances(principal, criteria_of([("ContentCreatorName", "Kowalchik")], FUZZY))
    assert [instance.series.series_instance_uid for instance in found] == ["1.1"]


def test_a_time_zone_in_the_query_moves_series_and_acquisitions(find: Find) -> None:
    """1.1 was made at 21:30 UTC of September 1, 1.2 at 15:30 UTC of the same day; where 1.3 was made nobody knows."""
    assert find(SeriesDate="20260901") == ["1.1", "1.3"]
    assert find(SeriesDate="20260901", TimezoneOffsetFromUTC="+0000") == ["1.1", "1.2", "1.3"]
    assert find(SeriesDate="20260902", TimezoneOffsetFromUTC="+0900") == ["1.1", "1.2"]
    at = {"SeriesDate": "20260901", "SeriesTime": "1530"}
    assert find(**at, TimezoneOffsetFromUTC="+0000") == ["1.2", "1.3"]
    evening = {"AcquisitionDate": "20260901-20260901", "AcquisitionTime": "2100-2200"}
    assert find(COMBINED, **evening, TimezoneOffsetFromUTC="+0000") == ["1.1"]
    assert find(COMBINED, **evening) == []


def test_a_datetimes_own_offset_goes_before_its_data_sets(find: Find) -> None:
    assert find(AcquisitionDateTime="202609011529+0000") == ["1.2"]
    assert find(AcquisitionDateTime="20260901232900.5+0200") == ["1.1"]
    assert find(AcquisitionDateTime="202609012128+0000-202609012130+0000") == ["1.1"]
    assert find(AcquisitionDateTime="20260901-0400") == ["1.1", "1.2"]
    assert find(AcquisitionDateTime="2026090121-", TimezoneOffsetFromUTC="+0000") == ["1.1"]
    # As it stands, where no zone is asked for.
    assert find(AcquisitionDateTime="2026090123") == ["1.1"]
    assert find(AcquisitionDateTime="20260901-20260902") == ["1.1", "1.2"]


@given(
    moment=st.datetimes(datetime(1800, 1, 3), datetime(2200, 1, 1)).map(lambda m: m.replace(microsecond=0)),
    minutes=st.integers(-48, 56).map(lambda quarters: quarters * 15),
)
def test_a_datetime_to_the_second_is_that_second(moment: datetime, minutes: int) -> None:
    offset = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}{abs(minutes) % 60:02}"
    span, zone = datetime_range(f"{moment:%Y%m%d%H%M%S}{offset}")
    assert zone is not None
    assert zone.utcoffset(None) == timedelta(minutes=minutes)
    assert span.low == moment
    assert span.high is not None
    assert span.high - moment < timedelta(seconds=1)


@pytest.mark.parametrize("value", ["-", "20261301", "2026+2500", "20260901-x", "now", "20260901+0100+0200"])
def test_what_is_no_moment_is_refused(value: str, find: Find) -> None:
    with pytest.raises(InvalidKeyValue):
        find(AcquisitionDateTime=value)
