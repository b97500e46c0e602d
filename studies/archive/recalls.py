"""What brings a study back from the cold tier: somebody opens or retrieves it, it's a relevant prior, it grows.

The event ``study.wanted`` tells of it. Whoever asks is served from the cold tier meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from typing import Any

from django.db import DatabaseError, transaction

from studies import events
from studies.archive import objects
from studies.archive.errors import MoveRefused
from studies.archive.models import TierMove
from studies.archive.tiers import to_hot
from studies.models import Study

logger = logging.getLogger("atrium.tiers")
WANTED = "study.wanted"
# Who looks at a study asks for many images: that it's wanted is told once in so long by each process.
SILENT_SECONDS = 60.0
MOST_REMEMBERED = 5_000
_told: OrderedDict[int, float] = OrderedDict()
_lock = threading.Lock()


def want(study: Study, *, origin: str = TierMove.Origin.WANTED) -> None:
    """Say that somebody wants the study; where it's cold it's brought back. Costs nothing for one that's hot."""
    if study.tier == Study.Tier.COLD:
        want_by_id(study.pk, origin=origin)


def want_by_id(study_id: int, *, origin: str = TierMove.Origin.WANTED) -> None:
    """Say that somebody wants a cold study. A database that can't be written hinders no reader."""
    if not objects.has_cold_tier() or (origin == TierMove.Origin.WANTED and not _is_news(study_id)):
        return
    try:
        with transaction.atomic():
            events.emit(WANTED, study=study_id, origin=str(origin))
    except DatabaseError:
        logger.warning("a study's recall can't be asked for", exc_info=True)


def _is_news(study_id: int) -> bool:
    now = time.monotonic()
    with _lock:
        if _told.get(study_id, now) > now:
            return False
        _told[study_id] = now + SILENT_SECONDS
        _told.move_to_end(study_id)
        while len(_told) > MOST_REMEMBERED:
            _told.popitem(last=False)
        return True


def forget_told() -> None:
    """Forget which studies were said to be wanted."""
    with _lock:
        _told.clear()


@events.handle(WANTED)
def bring_back(payload: dict[str, Any]) -> None:
    """Have a wanted study brought back. Raises MoveUnderWay while it goes to the cold tier: asked again later."""
    study = Study.objects.filter(pk=payload["study"]).first()
    if study is not None:
        _recall(study, payload.get("origin", TierMove.Origin.WANTED))


@events.handle("study.settled")
def bring_back_what_grew(payload: dict[str, Any]) -> None:
    """Have a cold study brought back to which new images came: these lie in the hot tier, the others follow."""
    study = Study.objects.filter(pk=payload["study"], tier=Study.Tier.COLD).first()
    if study is not None:
        _recall(study, TierMove.Origin.ARRIVAL)


def _recall(study: Study, origin: str) -> None:
    try:
        to_hot(study, origin=origin)
    except MoveRefused:
        # No cold tier is configured any more.
        logger.warning("a study can't be brought back", extra={"study": study.pk})
