"""Transfers with everything real: our processes, killed in the middle; an archive that sends back by C-MOVE."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid
from pynetdicom import AE, AllStoragePresentationContexts, evt

from tests.factories import make_instance
from tests.services.atrium import Atrium, running_atrium
from tests.services.dicom_peers import dcmqrscp, tool

INSTANCES = 40


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    with running_atrium(tmp_path_factory.mktemp("atrium"), "dicom", "network") as running:
        yield running


def state(atrium: Atrium) -> tuple[Any, ...]:
    """Give status, completed and failed of the youngest transfer; without Django, that takes seconds to start."""
    with closing(sqlite3.connect(atrium.data / "atrium.sqlite3")) as database:
        query = "SELECT status, completed, failed FROM dimse_transfer ORDER BY id DESC LIMIT 1"
        return tuple(database.execute(query).fetchone())


def shell(atrium: Atrium, code: str) -> str:
    return atrium.manage("shell", "--no-imports", "-c", code).strip().splitlines()[-1]


def wait_until(is_so: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.1)
    return is_so()


def test_killed_in_the_middle_the_rest_goes_out_when_we_are_back(installation: Atrium, tmp_path: Path) -> None:
    received: list[str] = []

    def on_store(event: evt.Event) -> int:
        received.append(str(event.request.AffectedSOPInstanceUID))
        time.sleep(0.1)
        return 0x0000

    peer = AE("PEER")
    peer.supported_contexts = AllStoragePresentationContexts
    server = peer.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)])
    try:
        study, series = generate_uid(), generate_uid()
        files = tmp_path / "files"
        files.mkdir()
        for number in range(INSTANCES):
            (files / f"{number}.dcm").write_bytes(
                make_instance(StudyInstanceUID=study, SeriesInstanceUID=series, InstanceNumber=number)
            )
        installation.manage("import", str(files), "--site", "north")
        shell(
            installation,
            f"""
from accounts.models import Site
from studies.dimse.models import Node
from studies.dimse.transfers import current_instances, queue_sending
from studies.models import Study
node = Node.objects.create(ae_title="PEER", site=Site.objects.get(slug="north"), host="127.0.0.1",
    port={server.server_address[1]}, may_receive=True)
study = Study.objects.get(study_instance_uid="{study}")
print(queue_sending(study=study, node=node, instances=current_instances(study)))
""",
        )
        assert wait_until(lambda: len(received) >= 3)
        installation.kill("network")
        sent_before = len(received)
        assert sent_before < INSTANCES
        installation.start("network")
        # As the scheduler does every ten seconds.
        shell(installation, "from studies.dimse.queue import start_due_queues; print(start_due_queues())")
        assert wait_until(lambda: len(set(received)) == INSTANCES), installation.log("network")[-2000:]
        assert wait_until(lambda: state(installation)[0] == "done")
        assert state(installation) == ("done", INSTANCES, 0)
        # What was told to the database in batches may go twice, never less than once.
        assert len(received) <= INSTANCES + 30
    finally:
        server.shutdown()


def test_an_archive_that_knows_only_c_move_sends_to_our_listener(installation: Atrium, tmp_path: Path) -> None:
    file = tmp_path / "one.dcm"
    study = generate_uid()
    file.write_bytes(make_instance(PatientID="MOVED", StudyInstanceUID=study))
    with dcmqrscp(tmp_path / "qr", installation.dicom_port) as port:
        subprocess.run([tool("storescu"), "-aec", "QRSCP", "127.0.0.1", str(port), str(file)], check=True)
        shell(
            installation,
            f"""
from accounts.models import Site
from studies.dimse.models import Node
from studies.dimse.transfers import queue_retrieval
node = Node.objects.create(ae_title="QRSCP", site=Site.objects.get(slug="north"), host="127.0.0.1", port={port},
    may_be_queried=True, retrieve_by="move")
print(queue_retrieval(node=node, study_instance_uid="{study}"))
""",
        )
        assert wait_until(lambda: state(installation)[0] in {"done", "failed"})
    assert state(installation) == ("done", 1, 0)
    with closing(sqlite3.connect(installation.data / "atrium.sqlite3")) as database:
        query = "SELECT source_ae_title FROM studies_study WHERE study_instance_uid = ?"
        assert database.execute(query, [study]).fetchone() == ("QRSCP",)
