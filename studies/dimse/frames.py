"""FRAME level of Composite Instance Root Retrieve (PS3.4 Annex Y): which frames are asked for, and sending them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from pydicom import Dataset
from pynetdicom.presentation import PresentationContext

from studies.archive.errors import FramesNotFound, NotMultiframe, NotTimed, NotTranscodable, ObjectMissing
from studies.archive.extraction import Extraction, Selection, syntaxes_of
from studies.dimse.messages import store_request
from studies.dimse.sending import send_data, without_meta
from studies.dimse.transport import TunedAssociation
from studies.models import Instance

logger = logging.getLogger("atrium.dimse")
FRAME = "FRAME"
# PS3.4 Table Y.4-1.
NO_SUCH_FRAMES, NO_NEW_OBJECT, NOT_EXTRACTABLE, NOT_TIME_BASED, INVALID_REQUEST = 0xAA00, 0xAA01, 0xAA02, 0xAA03, 0xAA04
ONE_OF = ("SimpleFrameList", "CalculatedFrameList", "TimeRange")
MEDIUM_PRIORITY = 0


class NotRetrievable(Exception):
    """The frames can't be had; with the status that says so."""

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status, self.comment = status, comment


def selection_of(identifier: Dataset) -> Selection:
    """Read which frames a request wants (PS3.4 §Y.3.2.2). Raises NotRetrievable."""
    given = [keyword for keyword in ONE_OF if keyword in identifier and not identifier[keyword].is_empty]
    if len(given) != 1:
        raise NotRetrievable(INVALID_REQUEST, "One frame list or time range is needed.")
    values = _values(identifier[given[0]].value)
    if given == ["TimeRange"]:
        if len(values) != 2 or float(values[0]) > float(values[1]):
            raise NotRetrievable(INVALID_REQUEST, "The time range has no begin and end.")
        return Selection(seconds=(float(values[0]), float(values[1])))
    numbers = [int(value) for value in values]
    if min(numbers) < 1:
        raise NotRetrievable(INVALID_REQUEST, "Frames count from 1.")
    if given == ["SimpleFrameList"]:
        if sorted(set(numbers)) != numbers:
            raise NotRetrievable(INVALID_REQUEST, "The frame numbers don't increase.")
        return Selection(simple=tuple(numbers))
    triplets = tuple(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=False))
    if len(numbers) % 3 or any(first > last for first, last, _step in triplets):
        raise NotRetrievable(INVALID_REQUEST, "The calculated frame list has no whole triplets.")
    return Selection(calculated=triplets)


def _values(value: Any) -> list[Any]:
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]


def extraction_of(instance: Instance, selection: Selection) -> Extraction:
    """Give the new instance of the chosen frames. Raises NotRetrievable."""
    try:
        extraction = Extraction(instance, selection)
        extraction.stored(1)
    except NotMultiframe as error:
        raise NotRetrievable(NO_NEW_OBJECT, "The instance has no frames to choose from.") from error
    except FramesNotFound as error:
        raise NotRetrievable(NO_SUCH_FRAMES, "None of the frames is there.") from error
    except NotTimed as error:
        raise NotRetrievable(NOT_TIME_BASED, "The instance doesn't say when frames were made.") from error
    except (NotTranscodable, ObjectMissing) as error:
        raise NotRetrievable(NOT_EXTRACTABLE, "The frames can't be told apart.") from error
    return extraction


def send_extraction(
    association: TunedAssociation,
    extraction: Extraction,
    *,
    message_id: int,
    contexts: Sequence[PresentationContext],
    originator: tuple[str, int] | None = None,
) -> int | None:
    """Send the new instance and give the peer's status; None where it can't be sent. Raises AssociationLost."""
    instance = extraction.instance
    own = {str(c.transfer_syntax[0]): c for c in contexts if c.abstract_syntax == instance.sop_class_uid}
    command = store_request(
        sop_class_uid=instance.sop_class_uid,
        sop_instance_uid=extraction.sop_instance_uid,
        message_id=message_id,
        priority=MEDIUM_PRIORITY,
        originator=originator,
    )
    for syntax in syntaxes_of(instance, list(own)):
        try:
            chunks = extraction.file(syntax)
        except (NotTranscodable, ObjectMissing) as error:
            logger.warning("frames can't be sent: %s", type(error).__name__)
            continue
        return int(send_data(association, own[syntax].context_id or 0, command, without_meta(chunks)).Status)
    return None
