"""The same code on PostgreSQL, S3 and Redis: real servers, the real processes of Atrium."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import requests

from tests.factories import PASSWORD, make_instance
from tests.services.atrium import Atrium, running_atrium
from tests.services.postgresql import NotAvailable, postgresql
from tests.services.redis import redis_server
from tests.services.s3 import s3_bucket

STUDY = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "SOPInstanceUID": "1.2.3.4.5"}
INSTANCE = "/dicom-web/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.5"


def store_and_fetch(atrium: Atrium) -> None:
    """Send an instance by STOW-RS and get it, its frame and its metadata back."""
    content = make_instance(**STUDY)
    headers = {"Authorization": f"Bearer {atrium.token('radiologist')}"}
    sent = requests.post(
        f"{atrium.url}/dicom-web/studies", content, headers={**headers, "Content-Type": "application/dicom"}, timeout=30
    )
    assert sent.status_code == 200, sent.text
    back = requests.get(
        f"{atrium.url}{INSTANCE}", headers={**headers, "Accept": "application/dicom; transfer-syntax=*"}, timeout=30
    )
    assert back.content == content
    frame = requests.get(f"{atrium.url}{INSTANCE}/frames/1", headers=headers, timeout=30)
    assert content[-8192:] in frame.content
    (metadata,) = requests.get(f"{atrium.url}/dicom-web/studies/1.2.3/metadata", headers=headers, timeout=30).json()
    assert metadata["00080018"]["Value"] == ["1.2.3.4.5"]


def sign_and_wait_for_the_document(atrium: Atrium) -> None:
    """Sign a report in a browser's session and wait until the worker archived it."""
    browser = requests.Session()
    login = f"{atrium.url}/accounts/login/"
    browser.get(login, timeout=30)
    form = {"login": "radiologist", "password": PASSWORD, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
    browser.post(login, form, timeout=30)
    desk = f"{atrium.url}/reports/1.2.3"

    def post(step: str, **fields: str) -> None:
        answer = browser.post(
            f"{desk}/{step}/", {**fields, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}, timeout=30
        )
        assert answer.status_code == 200, answer.text

    post("start")
    post("save", revision="0", findings="nothing remarkable", impression="normal")
    post("sign", revision="1", password=PASSWORD)
    search = f"{atrium.url}/dicom-web/studies/1.2.3/instances?SOPClassUID=1.2.840.10008.5.1.4.1.1.104.1"
    deadline = time.monotonic() + 60
    while browser.get(search, timeout=30).status_code != 200:
        assert time.monotonic() < deadline, atrium.log("worker")[-2000:]
        time.sleep(0.5)


def test_on_postgresql_s3_and_redis_the_path_is_the_same(tmp_path: Path) -> None:
    try:
        with postgresql() as database, s3_bucket() as bucket, redis_server(tmp_path) as broker:
            parts = {"ATRIUM_DATABASE_URL": database, "ATRIUM_STORAGE_URL": bucket, "ATRIUM_BROKER_URL": broker}
            with running_atrium(tmp_path / "atrium", "web", "worker", **parts) as atrium:
                ready = requests.get(f"{atrium.url}/readyz", timeout=30)
                assert ready.json() == {"database": "ok", "storage": "ok", "broker": "ok"}
                store_and_fetch(atrium)
                sign_and_wait_for_the_document(atrium)
                assert not (tmp_path / "atrium" / "objects").exists()
                assert "whole" in atrium.manage("audit", "verify")
    except NotAvailable as reason:
        pytest.skip(str(reason))


def test_embedded_the_path_is_the_same(tmp_path: Path) -> None:
    with running_atrium(tmp_path / "atrium", "web", "worker") as atrium:
        store_and_fetch(atrium)
        sign_and_wait_for_the_document(atrium)


def test_readiness_says_what_is_missing(tmp_path: Path) -> None:
    broker = {"ATRIUM_BROKER_URL": "redis://127.0.0.1:1/0"}
    with running_atrium(tmp_path / "atrium", "web", **broker) as atrium:
        ready = requests.get(f"{atrium.url}/readyz", timeout=30)
        assert (ready.status_code, ready.json()["broker"]) == (503, "unavailable")
