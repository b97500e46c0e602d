"""Several listener processes that share one port and one database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import generate_uid

from tests.dimse.test_store import send, wait_until
from tests.factories import make_instance
from tests.services.atrium import running_atrium

SENDERS, EACH = 4, 6
COUNTS = """
from portal.audit.models import ViewingWindow
from studies.models import Instance, Series
print(Instance.objects.count(), Series.objects.get().number_of_instances, ViewingWindow.objects.get().instances)
"""


@pytest.mark.database
def test_processes_that_share_a_port_share_no_database_connection(tmp_path: Path) -> None:
    study, series = generate_uid(), generate_uid()
    files = []
    for number in range(SENDERS * EACH):
        path = tmp_path / f"{number}.dcm"
        uids = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": f"{series[:50]}.{number}"}
        path.write_bytes(make_instance(pixels=np.zeros((8, 8), dtype=np.uint16), **uids))
        files.append(path)
    with running_atrium(tmp_path / "atrium", "dicom", ATRIUM_DICOM_PROCESSES="2") as atrium:
        with ThreadPoolExecutor(SENDERS) as senders:
            sent = list(senders.map(lambda n: send(atrium, *files[n::SENDERS]), range(SENDERS)))
        assert [done.returncode for done in sent] == [0] * SENDERS
        total = str(SENDERS * EACH)
        # The trail's counts are written every few seconds, also when nobody calls any more.
        assert wait_until(lambda: atrium.manage("shell", "--no-imports", "-c", COUNTS).split() == [total] * 3)
