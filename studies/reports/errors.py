"""What can go wrong with a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from studies.reports.models import ReportPart

if TYPE_CHECKING:
    from studies.reports.checks import Check


class ReportError(Exception):
    """A report can't be changed as asked; ``text`` says why and what to do, for the person."""

    text = "The report could not be changed."


class NotAllowed(ReportError):
    """The principal lacks the capability at the study's site."""

    text = "Your role doesn't allow this at the study's site."


class DraftChangedElsewhere(ReportError):
    """Fields of the draft were saved by someone else, or in another window, since they were read.

    ``current`` is the newer one; ``fields`` names those that differ from what was sent.
    """

    text = "This draft was changed elsewhere meanwhile."

    def __init__(self, current: ReportPart, fields: Sequence[str] = ()) -> None:
        super().__init__(self.text)
        self.current = current
        self.fields = tuple(fields)


class DraftHeldByOther(DraftChangedElsewhere):
    """Another person writes the draft; ``current`` is what they saved."""

    text = "Another person is writing this report."


class DraftIsGone(ReportError):
    """The draft was signed or discarded meanwhile."""

    text = (
        "This draft was signed or discarded elsewhere. Copy the words that you still need, then load the report again."
    )


class ReportNotSigned(ReportError):
    """There's no signed report to which an addendum could be made, or that could be retracted."""

    text = "There is no signed report yet."


class ReportAlreadySigned(ReportError):
    """The report is signed; what's to be said more goes into an addendum."""

    text = "The report is signed. Write an addendum."


class DraftIsSignedAsPreliminary(ReportError):
    """A draft that others may have read can't be discarded."""

    text = "This report was signed as preliminary and may have been read. Correct it and sign it as final instead."


class NothingToSign(ReportError):
    """Neither findings nor impression are written."""

    text = "Write findings or an impression before signing."


class ChecksFailed(ReportError):
    """Something is missing, or a warning wasn't seen by the signer; ``checks`` lists all."""

    text = "Look at what was found before signing."

    def __init__(self, checks: Sequence[Check]) -> None:
        super().__init__(self.text)
        self.checks = tuple(checks)


class ReasonMissing(ReportError):
    """An addendum or a retraction needs a reason."""

    text = "Say why."


class AlreadyRetracted(ReportError):
    """The part no longer holds already."""

    text = "This was retracted already."


class TextTooLong(ReportError):
    """A field is longer than a field may be."""

    text = "A section is too long; at most 50,000 characters are kept."


class NoSuchTemplate(ReportError):
    """The template isn't there, or isn't for this person or site."""

    text = "This template isn't there any more."


class NoSuchVersion(ReportError):
    """The version isn't one of this report."""

    text = "This version isn't there."


class WrongCredential(ReportError):
    """The password, code or passkey isn't the signer's."""

    text = "The password, code or passkey isn't right. Nothing was signed or retracted."


class CodeUsedAlready(WrongCredential):
    """The one-time code is right, but it counts once."""

    text = "This one-time code was used already, perhaps to sign in. Wait for the next; nothing was signed."


class TooManyAttempts(ReportError):
    """Too many wrong credentials in a short time."""

    text = "Too many wrong attempts. Wait ten minutes; your draft is kept."
