"""Commands that set an installation up, and the supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from django.core.management import CommandError, call_command
from django.test import Client

from accounts.models import Site, User
from portal.demo.installation import create_people
from tests.services.atrium import ROOT
from tests.services.ports import free_port


@pytest.mark.django_db
def test_a_first_installation_has_a_site_and_an_administrator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATRIUM_ADMIN_PASSWORD", "a long enough phrase 7")
    call_command("bootstrap", "--site", "North General", "--admin", "anna")
    assert Site.objects.get().slug == "north-general"
    browser = Client()
    browser.post("/accounts/login/", {"login": "anna", "password": "a long enough phrase 7"})
    assert browser.get("/worklist/").status_code == 200


@pytest.mark.django_db
def test_a_weak_password_makes_no_administrator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATRIUM_ADMIN_PASSWORD", "password")
    with pytest.raises(CommandError):
        call_command("bootstrap", "--site", "North", "--admin", "anna")
    assert not User.objects.exists()


@pytest.mark.django_db
def test_the_demo_people_are_made_once() -> None:
    create_people("first password 1")
    people = create_people("other password 2")
    assert people["radiologist"].check_password("first password 1")
    assert set(people) == {
        *("radiologist", "resident", "technologist", "referrer"),
        *("southradiologist", "compliance", "admin"),
    }


def test_the_supervisor_restarts_what_dies_and_stops_everything(tmp_path: Path) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "ATRIUM_DATA": str(tmp_path),
        "ATRIUM_HTTP_PORT": str(port),
        "ATRIUM_DICOM_PORT": str(free_port()),
        "ATRIUM_WEB_WORKERS": "1",
    }
    manage = [sys.executable, str(ROOT / "manage.py")]
    subprocess.run([*manage, "migrate", "--verbosity", "0"], env=environment, check=True)
    with (tmp_path / "log").open("wb") as log:
        supervisor = subprocess.Popen([*manage, "serve"], env=environment, stdout=log, stderr=log)
    try:
        children = _wait_for_children(supervisor.pid, 4)
        _wait_for_web(port)
        workers = _children(children[0])
        assert workers
        os.kill(children[0], signal.SIGKILL)
        deadline = time.monotonic() + 30
        while set(_children(supervisor.pid)) <= set(children) or len(_children(supervisor.pid)) < 4:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-2000:]
            time.sleep(0.2)
        while [pid for pid in workers if _is_running(pid)]:
            assert time.monotonic() < deadline, "a worker outlives its parent"
            time.sleep(0.2)
        everyone = _children(supervisor.pid)
    finally:
        supervisor.send_signal(signal.SIGINT)
        supervisor.wait(40)
    assert supervisor.returncode == 0
    assert not [pid for pid in everyone if _is_running(pid)]


def _children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _wait_for_children(pid: int, count: int) -> list[int]:
    deadline = time.monotonic() + 30
    while len(_children(pid)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return _children(pid)


def _wait_for_web(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5)
            return
        except (requests.ConnectionError, requests.Timeout):
            assert time.monotonic() < deadline
            time.sleep(0.2)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
