"""How often long-lived processes look for reference cycles."""

from __future__ import annotations

import gc

THRESHOLDS = 20_000, 20, 20


def look_less_often() -> None:
    """Leave what a process loaded at its start out of the search, and search rarely.

    A data set makes thousands of objects and no cycles: at Python's own thresholds the search took a twentieth of all
    time of receiving.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
