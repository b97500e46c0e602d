"""Why a file isn't taken."""

from __future__ import annotations


class Refusal(Exception):
    """A file can't be archived. ``reason`` is for a person; ``status`` the DICOM status (PS3.4 Table B.2-1)."""

    def __init__(self, reason: str, status: int = 0xC000) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


CANNOT_UNDERSTAND = 0xC000
DATASET_DOES_NOT_MATCH = 0xA900
OUT_OF_RESOURCES = 0xA700
PROCESSING_FAILURE = 0x0110
DUPLICATE_SOP_INSTANCE = 0x0111
INVALID_INSTANCE = 0x0117
CLASS_NOT_SUPPORTED = 0x0122
NOT_AUTHORISED = 0x0124
# Of the range that PS3.4 Table B.2-1 leaves for a data set that doesn't belong here.
WAS_REJECTED = 0xA970
# Warnings of PS3.4 Table B.2-1: stored all the same.
COERCED = 0xB000
ELEMENTS_DISCARDED = 0xB006
META_DOES_NOT_MATCH = 0xB007
