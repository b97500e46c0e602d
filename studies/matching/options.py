"""How keys are to be matched."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """What was negotiated (PS3.4 §C.5.1.1.1.1) or asked for in the query (PS3.18 §8.3.4)."""

    is_fuzzy: bool = False
    takes_empty: bool = False
    takes_many: bool = False
    combines_datetime: bool = False
