"""What all retrievals share: the gate, the trail, multipart messages, validators (PS3.18 §8, §10.4)."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from django.core.cache import caches
from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from accounts.capabilities import Capability
from accounts.gates import program_capability_required
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.viewing import record_viewing
from portal.bodies import BrokenOff
from portal.connections import release_connections
from studies.access import instances_visible_to, visible_study
from studies.archive.errors import NotTranscodable, ObjectMissing
from studies.archive.objects import StoredFile
from studies.archive.recalls import want
from studies.dicomweb.errors import DicomWebError, empty, not_found, warn
from studies.dicomweb.framing import IMMUTABLE, REVALIDATED, closing, etag_of, message_type, names, part_head
from studies.dicomweb.media_types import MediaRange, accepted
from studies.models import Instance, Series, Study
from studies.trail import subject_of

logger = logging.getLogger("atrium.dicomweb")
MOST_FRAMES = 10_000
# In seconds, how long it's known before an answer begins what of it is damaged.
REMEMBERED = 24 * 3600
# Of the index, what is read at once: little at first, as the client waits for the first byte.
FIRST_PAGE, PAGE = 32, 512
T = TypeVar("T")
MAY_RETRIEVE = (Capability.STUDY_VIEW, Capability.STUDY_VIEW_REFERRED)
may_retrieve = program_capability_required(*MAY_RETRIEVE)


class Part(NamedTuple):
    """One part of a multipart message; ``location`` becomes its Content-Location."""

    content_type: str
    content: Iterable[bytes]
    location: str = ""


class Counted(NamedTuple):
    """What is known of an instance without reading it."""

    pk: int
    series_id: int
    revision: int
    transfer_syntax_uid: str
    number_of_frames: int
    object_length: int


@dataclass
class LeftOut:
    """The instances that a message is sent without, or without some frames of: by their transfer syntax, or damaged.

    What is found damaged when the message has begun breaks it off after all the rest, as no header can tell of it any
    more. It's remembered by the form's validator: asked again, the answer tells from its beginning.
    """

    remembered_as: str = ""
    by_syntax: Sequence[Counted] = ()
    remembered: frozenset[int] = frozenset()
    found: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, etag: str, by_syntax: Sequence[Counted], ids: Iterable[int]) -> LeftOut:
        """Give what is known of the instances in a form by its validator, which other instances may share."""
        remembered_as = f"damaged:{etag}"
        remembered: set[int] = set()
        with _without_cache():
            remembered = caches["damaged"].get(remembered_as, set())
        return cls(remembered_as, by_syntax, frozenset(remembered).intersection(ids))

    @property
    def count(self) -> int:
        """How many are known by now."""
        return len(self.by_syntax) + len(self.remembered | self.found)

    def add(self, instance: Instance, error: NotTranscodable) -> None:
        """Leave out what is damaged."""
        if instance.pk not in self.found:
            logger.warning("left out of a retrieval: %s", error, extra={"instance": instance.pk})
            self.found.add(instance.pk)

    def whole_or_broken_off(self, items: Iterable[T]) -> Iterator[T]:
        """Give the items of a message whose headers tell what is left out by now. Raises BrokenOff after the last."""
        told = self.count
        yield from items
        if self.found != self.remembered:
            # What isn't damaged any more was mended.
            with _without_cache():
                others = caches["damaged"].get(self.remembered_as, set()) - self.remembered
                caches["damaged"].set(self.remembered_as, others | self.found, REMEMBERED)
        if self.count > told:
            raise BrokenOff


@contextmanager
def _without_cache() -> Iterator[None]:
    """Go on where the cache can't be reached or written: then the next answer is broken off, too."""
    try:
        yield
    except Exception:  # each cache has errors of its own
        logger.warning("what is damaged can't be remembered", exc_info=True)


@dataclass(frozen=True)
class Retrieval:
    """What one request is for: instances of a study that passed the gate, and what the index says of each, in order."""

    request: HttpRequest
    study: Study
    counted: list[Counted]

    @classmethod
    def of(cls, request: HttpRequest, study: Study, instances: QuerySet[Instance]) -> Retrieval:
        """Raises DicomWebError where there are none."""
        columns = ("series__revision" if name == "revision" else name for name in Counted._fields)
        counted = [Counted(*row) for row in instances.values_list(*columns)]
        if not counted:
            raise not_found()
        return cls(request, study, counted)

    @property
    def syntaxes_of_pixels(self) -> set[str]:
        """The transfer syntaxes of the instances that have frames."""
        return {one.transfer_syntax_uid for one in self.counted if one.number_of_frames}

    def etag(self, *form: str) -> str:
        """Give the validator of the instances in a form."""
        revisions = {(one.series_id, one.revision) for one in self.counted}
        return study_etag(self.study.pk, revisions, self.study.corrections, *form)

    @property
    def ids(self) -> list[int]:
        """The instances' keys, in order."""
        return [one.pk for one in self.counted]

    def leave_trace(self, left_out: LeftOut) -> None:
        """Record what is sent, as far as it's known before."""
        octets = sum(one.object_length for one in self.counted) - sum(one.object_length for one in left_out.by_syntax)
        instances = len(self.counted) - left_out.count
        leave_trace(self.request, self.study, "wado", instances=instances, octets=octets)


def first_possible(
    request: HttpRequest, give: Callable[[MediaRange, bool], HttpResponseBase | None]
) -> HttpResponseBase | None:
    """Give the most wanted form that holds everything; where none does, the most wanted that holds anything.

    ``give`` is told whether its answer may be partial, and answers None where it can't be given.
    """
    wanted = accepted(request)
    answers = (give(one, may_be_partial) for may_be_partial in (False, True) for one in wanted)
    return next((answer for answer in answers if answer is not None), None)


def begun(items: Iterator[T], left_out: LeftOut, *, may_be_partial: bool) -> Iterator[T] | None:
    """Give the items, the first of them made; None when none can be, or not all and that's not enough.

    The iterator raises BrokenOff at its end where some were left out that nobody was told of.
    """
    if left_out.count and not may_be_partial:
        return None
    first = next(items, None)
    if first is None or (left_out.count and not may_be_partial):
        return None
    return left_out.whole_or_broken_off(chain([first], items))


def say_what_is_left_out(retrieval: Retrieval, response: HttpResponseBase, left_out: LeftOut) -> HttpResponseBase:
    """Answer with 206 and a warning where the message holds less than was asked for (PS3.18 §10.4.3)."""
    if left_out.count:
        response.status_code = 206
        of_all = f"{left_out.count} of {len(retrieval.counted)} instances"
        warn(retrieval.request, response, f"{of_all} can't be given in this form and are left out, or frames of them.")
    return response


def principal_of_request(request: HttpRequest) -> Principal:
    """Give the one who asks."""
    principal: Principal = request.principal  # type: ignore[attr-defined]
    return principal


def study_for(request: HttpRequest, study_instance_uid: str, way: str) -> Study:
    """Pass the gate and leave the trace. Raises Study.DoesNotExist."""
    study = visible_study(principal_of_request(request), study_instance_uid)
    leave_trace(request, study, way)
    return study


def leave_trace(request: HttpRequest, study: Study, way: str, **counts: int) -> None:
    """Record the retrieval in the trail, once for a quarter of an hour; what was sent is summed up.

    A study of the cold tier is brought back meanwhile.
    """
    want(study)
    if request.method == "HEAD":
        counts = {}
    record_viewing(
        AuditEvent.Action.RETRIEVE,
        principal=principal_of_request(request),
        **subject_of(study),
        details={"way": way},
        **counts,
    )


def instance_for(request: HttpRequest, uids: Mapping[str, str], way: str) -> Instance:
    """Give one instance with its series and study by one query that starts at the gate. Raises DicomWebError."""
    instance = (
        instances_visible_to(principal_of_request(request))
        .filter(
            sop_instance_uid=uids["sop_instance_uid"],
            series__series_instance_uid=uids["series_instance_uid"],
            series__study__study_instance_uid=uids["study_instance_uid"],
        )
        .select_related("series__study")
        .order_by("series__study_id", "pk")
        .first()
    )
    if instance is None:
        raise not_found()
    leave_trace(request, instance.series.study, way)
    return instance


def instances_of(study: Study, series_instance_uid: str = "") -> QuerySet[Instance]:
    """Give the current instances of a study that passed the gate, or of one of its series, in reading order."""
    instances = Instance.objects.filter(series__study=study, is_current=True)
    if series_instance_uid:
        instances = instances.filter(series__series_instance_uid=series_instance_uid)
    return instances.order_by("series__series_number", "series_id", "instance_number", "pk")


def _pages(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    start, size = 0, FIRST_PAGE
    while start < len(ids):
        yield ids[start : start + size]
        start, size = start + size, PAGE


def each_with_study(ids: Sequence[int], study: Study, *, with_attributes: bool = False) -> Iterator[Instance]:
    """Walk through the study's instances with little memory; each knows series and study without another query.

    A client may take its time with each: meanwhile the connection to the database serves others. Raises BrokenOff at
    the end where some were deleted, or moved to another study, since they were listed.
    """
    given = 0
    unread = () if with_attributes else ("attributes",)
    every_series = Series.objects.filter(study=study).defer("attributes").in_bulk()
    for series in every_series.values():
        series.study = study
    for page in _pages(ids):
        rows = Instance.objects.defer(*unread).in_bulk(page)
        release_connections()
        for instance in (rows[pk] for pk in page if pk in rows):
            if instance.series_id in every_series:
                instance.series = every_series[instance.series_id]
                given += 1
                yield instance
    if given < len(ids):
        raise BrokenOff


def each_stored_file(ids: Sequence[int], study: Study) -> Iterator[StoredFile]:
    """Give where the files of the study's instances lie, in a sixth of the time that :func:`each_with_study` takes.

    Raises BrokenOff as that does.
    """
    given = 0
    columns = [column.name for column in fields(StoredFile)]
    for page in _pages(ids):
        rows = Instance.objects.filter(pk__in=page, series__study=study).values_list(*columns)
        files = {row[0]: StoredFile(*row) for row in rows}
        release_connections()
        given += len(files)
        yield from (files[pk] for pk in page if pk in files)
    if given < len(ids):
        raise BrokenOff


def frame_numbers(text: str) -> list[int]:
    """Read a list of frames, counted from 1. Raises DicomWebError."""
    if not re.fullmatch(rf"[0-9]{{1,9}}(,[0-9]{{1,9}}){{0,{MOST_FRAMES - 1}}}", text):
        raise DicomWebError(400, "Frames are numbers from 1, separated by commas.")
    numbers = [int(n) for n in text.split(",")]
    if 0 in numbers:
        raise DicomWebError(400, "Frames are counted from 1.")
    return numbers


def multipart(part_type: str, parts: Iterable[Part], *, boundary: str) -> StreamingHttpResponse:
    """Send parts as multipart/related (RFC 2387), each as soon as it's read: memory holds one chunk at a time.

    The first is made ahead: what can't be given is refused, not broken off. A part whose object is missing is left
    out, and the message broken off after the rest. Raises what making the first part raises, ObjectMissing where no
    part can be made.
    """

    def chunks() -> Iterator[bytes]:
        missing: ObjectMissing | None = None
        for part in parts:
            location = f"\r\nContent-Location: {part.location}" if part.location else ""
            content, is_begun = iter(part.content), False
            try:
                begin = next(content, b"")
                is_begun = True
                yield part_head(boundary, part.content_type + location)
                yield begin
                yield from content
            except ObjectMissing as error:
                logger.error("object missing: %s", error)
                if is_begun:
                    raise BrokenOff from error
                missing = error
            else:
                yield b"\r\n"
        if missing is not None:
            raise BrokenOff from missing
        yield closing(boundary)

    return StreamingHttpResponse(readable(chunks()), content_type=message_type(part_type, boundary))


def readable(pieces: Iterator[T]) -> Iterator[T]:
    """Give the pieces of a message, the first of them made. Raises ObjectMissing where none can be, and BrokenOff."""
    try:
        first = next(pieces)
    except BrokenOff as error:
        raise (error.__cause__ if isinstance(error.__cause__, ObjectMissing) else error) from None

    def each() -> Iterator[T]:
        yield first
        yield from pieces

    return each()


def validated(
    request: HttpRequest, response: HttpResponseBase, etag: str, *, is_immutable: bool = False
) -> HttpResponseBase:
    """Give the answer its validator and how long it may be kept; 304 to a client that has it (RFC 9110 §13.1.2).

    Raises DicomWebError where the client wants another only.
    """
    require_wanted(request, etag)
    # What isn't sent isn't closed either: that would end the request, its database connection included.
    if knows(request, etag):
        response = empty(304)
    response["ETag"] = etag
    for name, value in (IMMUTABLE if is_immutable else REVALIDATED).items():
        response[name] = value
    return response


def knows(request: HttpRequest, etag: str) -> bool:
    """Say whether the client has what the validator names already."""
    return names(request.headers.get("If-None-Match", ""), etag)


def require_wanted(request: HttpRequest, etag: str) -> None:
    """Let pass what is about to be given, unless the client wants another: to go on with what it has begun.

    Raises DicomWebError 412 (RFC 9110 §13.1.1).
    """
    wanted = request.headers.get("If-Match")
    if wanted is not None and not names(wanted, etag, strongly=True):
        raise DicomWebError(412, "It has changed, or its form can't be compared byte by byte.", headers={"ETag": etag})


def content_etag(instance: Instance, *form: str) -> str:
    """Give the validator of what an instance is given as, its study's corrections included."""
    corrections = instance.series.study.corrections
    marks = [json.dumps(corrections, sort_keys=True)] if corrections else []
    return etag_of(bytes(instance.sha256), *form, *marks)


def study_etag(study: int, revisions: Iterable[tuple[int, int]], corrections: dict[str, Any], *form: str) -> str:
    """Give the validator of many instances in a form: it changes with every series' revision, and with corrections."""
    marks: list[Any] = [study, sorted(set(revisions)), corrections, *form]
    return f'"{hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:40]}"'
