"""The list's cells: each column shows its own, and whatever comes from outside is text."""

from __future__ import annotations

from datetime import date, time, timedelta
from typing import Any

import pytest
from django.utils import timezone

from studies.models import Patient, Study
from studies.orders.models import Order
from studies.worklists.columns import COLUMNS
from studies.worklists.models import CaseClock
from tests.orders.test_orders import place
from tests.worklists.test_worklist import make_study

pytestmark = [pytest.mark.django_db, pytest.mark.database]

HOSTILE = """<img src=x onerror='a("b")'>"""


def every_column(client: Any, query: str = "") -> str:
    client.post("/worklist/columns/", {"column": [*COLUMNS]})
    return str(client.get(f"/worklist/?{query}", HTTP_HX_REQUEST="true").content.decode())


def test_every_column_shows_its_own(north: Any, people: Any, client_of: Any) -> None:
    study = make_study(
        north,
        1,
        patient_name="Doe^Jane^Ann=山田^花子",
        study_date=date(2026, 3, 1),
        study_time=time(9, 5),
        study_description="CT thorax",
        accession_number="ACC1",
        referring_physician_name="Okafor^Ada",
        modalities_in_study="CT\\SR",
        body_part_examined="CHEST\\NECK",
        number_of_instances=12_345,
        priority="STAT",
        has_conflict=True,
        assigned_to=people["radiologist"],
        claimed_by=people["resident"],
        claimed_until=timezone.now() + timedelta(minutes=5),
    )
    Patient.objects.update(patient_birth_date=date(1958, 11, 3), patient_sex="F")
    CaseClock.objects.create(study=study, due_at=study.received_at + timedelta(hours=1))
    page = every_column(client_of("radiologist"))
    for text in (
        *(
            'href="/studies/1.2.1/"',
            "DOE, Jane Ann (山田 花子)",
            "Arrived",
            "STAT",
            "2026-03-01",
            "09:05",
            "CT thorax",
            "P1",
        ),
        *("1958-11-03", "67 y F", "ACC1", "OKAFOR, Ada", "12345", "Chest, Neck", "North Hospital", "is-mine"),
        *(
            '<span class="chips"><span class="chip">CT</span></span>',
            "has the case open until",
            "An instance came twice",
        ),
        *(f"{study.received_at:%Y-%m-%d %H:%M}", f'data-due="{(study.received_at + timedelta(hours=1)).isoformat()}"'),
    ):
        assert text in page, text
    referrer = client_of("referrer").get("/worklist/", HTTP_HX_REQUEST="true").content.decode()
    assert "has the case open" not in referrer, "whose desk it lies on is the department's own business"


def test_no_column_lets_markup_through(north: Any, people: Any, client_of: Any) -> None:
    reader = people["radiologist"]
    reader.last_name = HOSTILE
    reader.save()
    north.name = HOSTILE
    north.save()
    texts = (
        *("patient_name", "study_description", "accession_number", "referring_physician_name"),
        *("modalities_in_study", "body_part_examined"),
    )
    make_study(
        north,
        1,
        **dict.fromkeys(texts, HOSTILE),
        assigned_to=reader,
        claimed_by=reader,
        claimed_until=timezone.now() + timedelta(minutes=5),
    )
    Study.objects.update(patient_id_value=HOSTILE)
    order = place(people, north, description=HOSTILE)
    Order.objects.update(accession_number=HOSTILE, modality="<img src=x>")
    Patient.objects.update(patient_name=HOSTILE, patient_id=HOSTILE, patient_sex="<img src=x>")
    page = every_column(client_of("radiologist"), "status=scheduled&status=arrived")
    rows = page[page.index("<tbody") :]
    assert f"/orders/{order.pk}/" in rows
    assert "<img" not in rows
    assert "'" not in rows.replace("&#x27;", "")
    assert rows.count("&lt;img") > 2 * len(texts)


def test_the_site_is_a_usual_column_only_where_there_are_several(north: Any, client_of: Any) -> None:
    make_study(north, 1)
    assert 'data-label="Site"' in client_of("radiologist").get("/worklist/").content.decode()
    assert 'data-label="Site"' not in client_of("resident").get("/worklist/").content.decode()
