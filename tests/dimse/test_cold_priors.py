"""Priors in the cold tier, seen from outside: they come back for an order and a new study, and can always be had."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from pydicom.uid import generate_uid

from tests.dimse.test_query import find, keys
from tests.dimse.test_store import store
from tests.factories import make_instance
from tests.services.atrium import Atrium, running_atrium

pytestmark = pytest.mark.database
STUDY, SERIES, INSTANCES = generate_uid(), generate_uid(), [generate_uid() for _ in range(3)]
RULE = """
from accounts.models import Site
from studies.dimse.models import PrefetchRule
PrefetchRule.objects.create(site=Site.objects.get(slug="north"), name="cold priors", at_most=2)
"""
TO_COLD = """
from studies.archive import tiers
from studies.models import Study
tiers.to_cold(Study.objects.get(study_instance_uid="{study}"))
tiers.work_off()
"""
SETTLE = """
from datetime import timedelta
from django.utils import timezone
from studies import arrival
from studies.models import Study
Study.objects.filter(unsettled_since__isnull=False).update(updated_at=timezone.now() - timedelta(minutes=1))
arrival.settle_studies()
"""
UNDELIVERED = "from studies.models import DomainEvent; print(DomainEvent.objects.filter(delivered_at=None).count())"
ORIGIN = "from studies.archive.models import TierMove; print(TierMove.objects.latest('pk').origin)"


@pytest.fixture(scope="module")
def tiered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    folder = tmp_path_factory.mktemp("cold-priors")
    (folder / "cold").mkdir()
    parts = ("web", "dicom", "worker", "network")
    with running_atrium(folder / "atrium", *parts, ATRIUM_COLD_STORAGE_URL=str(folder / "cold")) as atrium:
        atrium.manage("shell", "--no-imports", "-c", RULE)
        for number, uid in enumerate(INSTANCES, start=1):
            path = folder / uid
            path.write_bytes(
                make_instance(
                    PatientID="COLD",
                    StudyDate="20260301",
                    InstanceNumber=number,
                    StudyInstanceUID=STUDY,
                    SeriesInstanceUID=SERIES,
                    SOPInstanceUID=uid,
                )
            )
            assert store(atrium, path) == 0x0000
        atrium.manage("shell", "--no-imports", "-c", SETTLE)
        # Its own arrival, heard later, would bring it back itself.
        wait_until_delivered(atrium)
        yield atrium


def wait_until_delivered(atrium: Atrium) -> None:
    deadline = time.monotonic() + 60
    while atrium.manage("shell", "--no-imports", "-c", UNDELIVERED).strip().splitlines()[-1] != "0":
        assert time.monotonic() < deadline
        time.sleep(0.3)


@pytest.fixture(scope="module")
def token(tiered: Atrium) -> str:
    return tiered.token("radiologist")


def availability(atrium: Atrium, level: str = "STUDY") -> set[str]:
    matches, _ = find(atrium, keys(level, StudyInstanceUID=STUDY, SeriesInstanceUID="", InstanceAvailability=""))
    return {match.InstanceAvailability for match in matches}


def frames(atrium: Atrium, token: str) -> list[bytes]:
    accept = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
    found = []
    for uid in INSTANCES:
        answer = requests.get(
            f"{atrium.url}/dicom-web/studies/{STUDY}/series/{SERIES}/instances/{uid}/frames/1",
            headers={"Authorization": f"Bearer {token}", "Accept": accept},
            timeout=30,
        )
        answer.raise_for_status()
        found.append(answer.content)
    return found


def to_cold(atrium: Atrium) -> None:
    atrium.manage("shell", "--no-imports", "-c", TO_COLD.format(study=STUDY))
    assert availability(atrium) == {"NEARLINE"}
    assert availability(atrium, "SERIES") == {"NEARLINE"}
    assert len(list((atrium.data.parent / "cold").rglob("*.dcm"))) == 3


def wait_until_online(atrium: Atrium) -> None:
    deadline = time.monotonic() + 60
    while availability(atrium) != {"ONLINE"}:
        assert time.monotonic() < deadline
        time.sleep(0.3)


def origin(atrium: Atrium) -> str:
    return atrium.manage("shell", "--no-imports", "-c", ORIGIN).strip().splitlines()[-1]


def test_an_order_brings_the_cold_prior_back(tiered: Atrium, token: str) -> None:
    assert availability(tiered) == {"ONLINE"}
    before = frames(tiered, token)
    to_cold(tiered)
    order = {
        "site": "north",
        "patient_id": "COLD",
        "patient_name": "Doe^Jane",
        "description": "CT thorax",
        "modality": "CT",
        "scheduled_at": "2026-11-27T09:00:00Z",
    }
    headers = {"Authorization": f"Bearer {token}"}
    assert requests.post(f"{tiered.url}/api/v1/orders/", json=order, headers=headers, timeout=30).status_code == 201
    wait_until_online(tiered)
    assert origin(tiered) == "prefetch"
    assert frames(tiered, token) == before


def test_a_study_that_is_sent_brings_the_cold_prior_back(tiered: Atrium, token: str, tmp_path: Path) -> None:
    to_cold(tiered)
    path = tmp_path / "new.dcm"
    path.write_bytes(make_instance(PatientID="COLD", StudyDate="20261126", AccessionNumber="NEW"))
    assert store(tiered, path) == 0x0000
    tiered.manage("shell", "--no-imports", "-c", SETTLE)
    wait_until_online(tiered)
    assert origin(tiered) == "prefetch"


def test_who_opens_a_cold_study_has_its_frames_all_the_time(tiered: Atrium, token: str) -> None:
    before = frames(tiered, token)
    to_cold(tiered)
    deadline = time.monotonic() + 90
    while availability(tiered) != {"ONLINE"}:
        assert frames(tiered, token) == before
        assert time.monotonic() < deadline
    assert frames(tiered, token) == before
    assert origin(tiered) == "wanted"
    assert not list((tiered.data.parent / "cold").rglob("*.dcm"))
