"""Pages of studies however deep they lie, without walking past all that stands before them.

A database finds an offset by counting rows up to it. Here a search's pages leave bookmarks (a place in the list and the
study that stands there), so that the next page begins at one. They are kept in the process for two minutes: while
somebody turns pages, studies that arrive meanwhile don't shift what is still to come.
"""

from __future__ import annotations

import time
from bisect import bisect_right, insort
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import date
from threading import Lock
from typing import Any

from django.db.models import F, Q, QuerySet, Window
from django.db.models.functions import RowNumber

from studies.models import Study

# Up to here counting is as fast as looking up a bookmark.
SHALLOW = 2_000
STEP = 1_000
FAR = 10 * STEP
LIFETIME = 120.0
MOST_LISTS = 64
MOST_BOOKMARKS = 5_000

Bookmark = tuple[int, date, int]


@dataclass
class _List:
    """The bookmarks of one list, by their place: that many studies stand before or at it."""

    begun: float
    bookmarks: list[Bookmark] = field(default_factory=list)
    is_laddered: bool = False


_lists: OrderedDict[Any, _List] = OrderedDict()
_lock = Lock()


def page_of_studies(studies: QuerySet[Study], *, offset: int, limit: int) -> list[int]:
    """Give the ids of a page of ``matching_studies``, in order."""
    if offset < SHALLOW:
        return list(studies.values_list("pk", flat=True)[offset : offset + limit])
    known = _list_of(studies)
    nearest = _nearest(known, offset)
    with _lock:
        is_second, gap = bool(known.bookmarks), offset - (nearest[0] if nearest else 0)
        must_ladder = is_second and gap > FAR and not known.is_laddered
        known.is_laddered |= must_ladder
    if must_ladder:
        _lay_ladder(known, studies)
        nearest = _nearest(known, offset)
    rows = studies
    begin = offset
    if nearest is not None:
        place, day, pk = nearest
        rows = rows.filter(Q(sort_date__lte=day) & (Q(sort_date__lt=day) | Q(pk__lt=pk)))
        begin = offset - place
    found = list(rows.values_list("pk", "sort_date")[begin : begin + limit])
    if found and limit > 0:
        # One more is asked for than is shown, to know whether there are more: the page ends one before.
        last = max(len(found) - 2, 0)
        _leave(known, (offset + last + 1, found[last][1], found[last][0]))
    return [pk for pk, _ in found]


def _list_of(studies: QuerySet[Study]) -> _List:
    key = studies.values_list("pk").query.sql_with_params()
    now = time.monotonic()
    with _lock:
        known = _lists.get(key)
        if known is None or now - known.begun > LIFETIME:
            known = _lists[key] = _List(begun=now)
        _lists.move_to_end(key)
        while len(_lists) > MOST_LISTS:
            _lists.popitem(last=False)
        return known


def _nearest(known: _List, offset: int) -> Bookmark | None:
    with _lock:
        place = bisect_right(known.bookmarks, offset, key=lambda bookmark: bookmark[0])
        return known.bookmarks[place - 1] if place else None


def _leave(known: _List, bookmark: Bookmark) -> None:
    with _lock:
        if bookmark not in known.bookmarks and len(known.bookmarks) < MOST_BOOKMARKS:
            insort(known.bookmarks, bookmark)


def _lay_ladder(known: _List, studies: QuerySet[Study]) -> None:
    """Lay a bookmark at every thousandth study, by one walk of the index."""
    place = Window(RowNumber(), order_by=[F("sort_date").desc(), F("pk").desc()])
    numbered = studies.annotate(place=place).annotate(rest=F("place") % STEP).filter(rest=0).order_by()
    rungs = sorted(numbered.values_list("place", "sort_date", "pk"))
    with _lock:
        known.bookmarks = rungs[:MOST_BOOKMARKS]
