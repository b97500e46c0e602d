"""STOW-RS: store (PS3.18 §10.5)."""

from __future__ import annotations

from contextlib import closing

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from accounts.capabilities import Capability
from accounts.gates import principal_of, program_capability_required
from studies.dicomweb.errors import answers_errors
from studies.dicomweb.multipart import BrokenBody
from studies.dicomweb.sites import site_for
from studies.dicomweb.store_answer import End, TooManyRefused, answer, wants_xml
from studies.dicomweb.store_body import Packing, TooLarge, received
from studies.ingest.services import Outcome, Source, StagedFile, WayIn, begin_writing, ingest

BATCH_FILES = 20
BATCH_BYTES = 64 << 20
WRITTEN_FILES = 5
# A body with more bad parts than this isn't read on: it would be told of part by part for ever.
MOST_REFUSED = 1000
may_store = program_capability_required(Capability.STUDY_UPLOAD)


@may_store
@answers_errors
def store(request: HttpRequest, study_instance_uid: str = "") -> HttpResponseBase:
    """Store the instances of the body; give the store instances response (PS3.18 §10.5.3)."""
    as_xml = wants_xml(request)
    source = Source(WayIn.STOW, site_for(request, Capability.STUDY_UPLOAD), principal_of(request))
    outcomes, end = _store(request, source, study_instance_uid)
    return answer(request, outcomes, end, _path, as_xml=as_xml)


def _store(request: HttpRequest, source: Source, study_instance_uid: str) -> tuple[list[Outcome], End | None]:
    """Store what comes, in batches; give the outcomes in order, and what ended the body before its end."""
    outcomes: list[Outcome] = []
    batch: list[StagedFile] = []
    unwritten: list[StagedFile] = []
    packing = Packing()
    refused = 0

    def add(more: list[Outcome]) -> None:
        nonlocal refused
        outcomes.extend(more)
        refused += sum(not outcome.is_in for outcome in more)

    def write() -> None:
        if unwritten:
            begin_writing(unwritten)
            unwritten.clear()

    def ingest_batch() -> None:
        if batch:
            write()
            add(ingest(batch, source, only_study=study_instance_uid))
            batch.clear()
            packing.close()

    with closing(packing), closing(received(request, packing)) as incoming:
        try:
            for one in incoming:
                if refused >= MOST_REFUSED:
                    # Nothing waits: what is counted has just been ingested.
                    if isinstance(one, StagedFile):
                        one.path.unlink(missing_ok=True)
                    return outcomes, TooManyRefused(f"After {refused} refused parts the rest wasn't read.")
                if isinstance(one, Outcome):
                    ingest_batch()
                    add([one])
                    continue
                batch.append(one)
                unwritten.append(one)
                if len(unwritten) >= WRITTEN_FILES:
                    write()
                if len(batch) >= BATCH_FILES or sum(f.size for f in batch) >= BATCH_BYTES:
                    ingest_batch()
        except (BrokenBody, TooLarge) as error:
            ingest_batch()
            return outcomes, error
        except BaseException:
            for file in batch:
                file.path.unlink(missing_ok=True)
            raise
        ingest_batch()
    return outcomes, None


def _path(outcome: Outcome) -> str:
    return (
        f"studies/{outcome.study_instance_uid}/series/{outcome.series_instance_uid}"
        f"/instances/{outcome.sop_instance_uid}"
    )
