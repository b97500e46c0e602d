"""Names with letters that no mark makes (Đ, Ø, Ł, Æ) are found as those write them who haven't the letter."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.test import Client
from django.utils import timezone

from studies.matching.names import _known
from studies.models import NameForm, ReferringPhysician, Study
from studies.orders.models import Order
from studies.person_names import identifying, searchable
from studies.workitems.models import Workitem
from studies.workitems.services import create_workitem
from tests.factories import make_instance, principal_of
from tests.workitems.workitem_data import scheduled

pytestmark = [pytest.mark.django_db, pytest.mark.database]
WRITTEN = [
    ("Đặng^Thị Hương", "Dang*"),
    ("Đặng^Thị Hương", "ĐẶNG"),
    ("Łódź^Ewa", "Lodz"),
    ("Lodz^Ewa", "Łódź"),
    ("Øster^Bo", "Oster^B*"),
    ("Oster^Bo", "Øster"),
    ("Bjørn^Ægir", "Bjorn^Aegir"),
    ("Aegir^Bjorn", "Ægir^Bjørn"),
    ("Þór^Jón", "Thor"),
    ("Groß^Uwe", "GROSS"),
]
FOLDING = [
    import_module(f"studies.{module}").Migration.operations[0]
    for module in (
        "migrations.0017_folded_names",
        "orders.migrations.0007_folded_names",
        "workitems.migrations.0003_folded_names",
    )
]


@pytest.fixture
def find(north: Any, ingest_files: Any, client_of: Callable[[str], Client]) -> Callable[..., list[str]]:
    """Archive a study for each name, and give the UIDs of the series that a query finds."""

    def found(keyword: str, names: list[str], query: str) -> list[str]:
        for number, name in enumerate(names):
            uids = {
                "StudyInstanceUID": f"1.2.{number}",
                "SeriesInstanceUID": f"1.2.{number}.1",
                "PatientID": f"P{number}",
            }
            ingest_files(north, make_instance(**{**uids, keyword: name}))
        answer = client_of("radiologist").get(f"/dicom-web/series?{query}")
        return sorted(s["0020000E"]["Value"][0] for s in answer.json()) if answer.status_code == 200 else []

    return found


@pytest.mark.parametrize(("name", "key"), WRITTEN)
@pytest.mark.parametrize("keyword", ["PatientName", "OperatorsName", "ResponsiblePerson"])
def test_a_name_is_found_by_either_way_of_writing_it(name: str, key: str, keyword: str, find: Any) -> None:
    assert find(keyword, [name, "Miller^Zoe"], f"{keyword}={key}") == ["1.2.0.1"]


@pytest.mark.parametrize("keyword", ["PatientName", "OperatorsName"])
@pytest.mark.parametrize(("name", "key"), [("Đặng^Thị", "Dank"), ("Ærtz^Bo", "Aertz^Bo"), ("Øster^Bo", "Ostar")])
def test_it_sounds_as_it_is_written_without_the_letter(name: str, key: str, keyword: str, find: Any) -> None:
    assert find(keyword, [name, "Miller^Zoe"], f"{keyword}={key}&fuzzymatching=true") == ["1.2.0.1"]


def test_referring_physicians_are_told_apart_by_such_a_letter(find: Any) -> None:
    # Who is linked to one sees their patients, not the other's.
    names = ["Møller^Bo", "Moller^Bo", "Möller^Bo"]
    assert find("ReferringPhysicianName", names, "ReferringPhysicianName=Møller") == ["1.2.0.1"]
    assert ReferringPhysician.objects.filter(name_search__in=["MØLLER^BO", "MOLLER^BO"]).count() == 2


def test_what_was_kept_before_is_folded_anew_and_back(
    north: Any, ingest_files: Any, people: Any, find: Any, client_of: Callable[[str], Client]
) -> None:
    find("PatientName", ["Đặng^Thị", "Øster^Bo=山田", "Doe^Jane"], "PatientID=P0")
    patient = Study.objects.get(patient_id_value="P0").patient
    Order.objects.create(
        site=north, patient=patient, patient_name_search=searchable(patient.patient_name), scheduled_at=timezone.now()
    )
    create_workitem(
        site=north, dataset=scheduled(PatientName="Łódź^Ewa"), principal=principal_of(people["technologist"])
    )
    editor = SimpleNamespace(connection=connection)

    def kept() -> list[list[str]]:
        return [
            sorted(model.objects.values_list("patient_name_search", flat=True)) for model in (Study, Order, Workitem)
        ]

    today = kept()
    assert today == [["DANG^THI", "DOE^JANE", "OSTER^BO=山田"], ["DANG^THI"], ["LODZ^EWA"]]
    for folding in FOLDING:
        folding.reverse_code(apps, editor)
    assert kept() == [["DOE^JANE", "ØSTER^BO=山田", "ĐANG^THI"], ["ĐANG^THI"], ["ŁODZ^EWA"]]
    NameForm.objects.filter(name_search__in=["DANG^THI", "OSTER^BO=山田", "LODZ^EWA"]).delete()
    _known.clear()
    for folding in FOLDING * 2:
        folding.code(apps, editor)
    assert kept() == today
    browser = client_of("radiologist")
    for query in ("PatientName=Dang*", "PatientName=dank&fuzzymatching=true", "PatientName=山田"):
        assert len(browser.get(f"/dicom-web/studies?{query}").json()) == 1, query


def test_only_letters_of_their_own_are_folded_beyond_marks() -> None:
    assert identifying("Müller^Jürgen^^Dr") == searchable("Müller^Jürgen^^Dr") == "MULLER^JURGEN^^DR"
    assert searchable("山田^太郎=Ямада") == identifying("山田^太郎=Ямада")
    assert searchable("Ǿ") == "O"
