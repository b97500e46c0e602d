"""Who comes at the same moment: senders of one study, a sender and a deletion, a deletion lock and retention.

Before real servers of two processes, on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import pydicom
import pytest
import requests

from tests.factories import make_instance
from tests.services.atrium import Atrium, running_atrium

pytestmark = pytest.mark.database
ROUNDS = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    with running_atrium(tmp_path_factory.mktemp("races"), "web", ATRIUM_WEB_WORKERS="2") as atrium:
        yield atrium


@pytest.fixture(scope="module")
def headers(server: Atrium) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.token('admin')}"}


def at_once(*works: Callable[[], requests.Response]) -> list[requests.Response]:
    """Do all at the same moment, as near as threads come to it."""
    barrier = threading.Barrier(len(works))

    def work(one: Callable[[], requests.Response]) -> requests.Response:
        barrier.wait(30)
        return one()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(work, works))


@pytest.fixture(scope="module")
def send(server: Atrium, headers: dict[str, str]) -> Callable[[bytes], Callable[[], requests.Response]]:
    def sending(content: bytes) -> Callable[[], requests.Response]:
        return lambda: requests.post(
            f"{server.url}/dicom-web/studies?site=north",
            content,
            headers={**headers, "Content-Type": "application/dicom"},
            timeout=60,
        )

    return sending


def found(server: Atrium, headers: dict[str, str], path: str) -> list[dict[str, Any]]:
    answer = requests.get(f"{server.url}/dicom-web/{path}", headers=headers, timeout=60)
    assert answer.status_code in {200, 204}, answer.text
    return answer.json() if answer.status_code == 200 else []


def test_the_same_instance_from_many_senders_at_once_is_one(server: Atrium, headers: dict[str, str], send: Any) -> None:
    for number in range(ROUNDS):
        study = f"1.1.{number}"
        content = make_instance(StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1", PatientID=f"SAME{number}")
        answers = at_once(*[send(content)] * 4)
        assert [a.status_code for a in answers] == [200] * 4, [a.text for a in answers]
        (one,) = found(server, headers, f"studies?PatientID=SAME{number}")
        assert one["00201208"]["Value"] == [1]
        assert len(found(server, headers, f"studies/{study}/instances")) == 1


def test_two_versions_of_an_instance_at_once_are_the_first_and_a_second(
    server: Atrium, headers: dict[str, str], send: Any
) -> None:
    for number in range(ROUNDS):
        uids = {name: f"1.2.{number}{more}" for name, more in (("StudyInstanceUID", ""), ("SeriesInstanceUID", ".1"))}
        files = [
            make_instance(**uids, SOPInstanceUID=f"1.2.{number}.1.1", PatientID=f"TWO{number}", ImageComments=words)
            for words in ("the one", "the other")
        ]
        answers = at_once(*[send(content) for content in files])
        assert sorted(a.status_code for a in answers) == [200, 202], [a.text for a in answers]
        (one,) = found(server, headers, f"studies/1.2.{number}/instances")
        first = files[[a.status_code for a in answers].index(200)]
        accept = {**headers, "Accept": "application/dicom; transfer-syntax=*"}
        assert requests.get(one["00081190"]["Value"][0], headers=accept, timeout=30).content == first


def test_instances_of_a_new_study_from_many_senders_are_all_counted(
    server: Atrium, headers: dict[str, str], send: Any
) -> None:
    for number in range(ROUNDS):
        study = f"1.3.{number}"
        files = [
            make_instance(StudyInstanceUID=study, SeriesInstanceUID=f"{study}.{n % 2}", PatientID=f"ALL{number}")
            for n in range(6)
        ]
        assert {a.status_code for a in at_once(*[send(content) for content in files])} == {200}
        (one,) = found(server, headers, f"studies?PatientID=ALL{number}")
        assert (one["00201206"]["Value"], one["00201208"]["Value"]) == ([2], [6])


def test_a_study_that_is_deleted_while_it_is_sent_is_whole_or_gone(
    server: Atrium, headers: dict[str, str], send: Any
) -> None:
    """Whatever was answered is so: what is said to be stored after the deletion is there, and nothing half."""
    for number in range(2 * ROUNDS):
        study = f"1.4.{number}"
        series = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "PatientID": f"GONE{number}"}
        old, new = make_instance(**series), make_instance(**series)
        assert send(old)().status_code == 200

        def delete(study: str = study) -> requests.Response:
            return requests.delete(f"{server.url}/dicom-web/studies/{study}", headers=headers, timeout=60)

        deleted, again, stored = at_once(delete, send(old), send(new))
        assert deleted.status_code == 204, deleted.text
        # What was there already when it came, and gone when that was to be said, is the sender's to keep.
        assert again.status_code in {200, 409}, again.text
        assert stored.status_code == 200, stored.text
        left = found(server, headers, f"studies/{study}/instances")
        sent = {pydicom.dcmread(BytesIO(content)).SOPInstanceUID: content for content in (old, new)}
        for one in left:
            accept = {**headers, "Accept": "application/dicom; transfer-syntax=*"}
            kept = requests.get(one["00081190"]["Value"][0], headers=accept, timeout=30)
            assert kept.content == sent[one["00080018"]["Value"][0]]
        counted = found(server, headers, f"studies?PatientID=GONE{number}")
        assert [s["00201208"]["Value"] for s in counted] == ([[len(left)]] if left else [])
        assert delete().status_code == (204 if left else 404)
        assert found(server, headers, f"studies?PatientID=GONE{number}") == []


def test_a_deletion_lock_that_was_granted_holds_and_one_that_came_too_late_is_refused(server: Atrium) -> None:
    script = "from tests.workitems.racing import main; main()"
    seen = json.loads(server.manage("shell", "--no-imports", "-c", script).strip().splitlines()[-1])
    assert seen == [
        {"first": "subscriber", "answer": "subscribed", "kept": True, "locked": True},
        {"first": "retention", "answer": "NoSuchWorkitem", "kept": False, "locked": False},
    ]
