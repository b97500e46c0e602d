"""What a search may ask wrongly."""

from __future__ import annotations


class MatchingError(ValueError):
    """A key that can't be matched; the message says why, and quotes no value."""


class UnknownAttribute(MatchingError):
    """A name that is neither a keyword nor a tag of the data dictionary (PS3.6), nor a path of them."""


class InvalidKeyValue(MatchingError):
    """A value that its attribute can't have, such as a date that is none."""
