"""What can go wrong with a report."""

from __future__ import annotations

from studies.reports.models import ReportPart


class ReportError(Exception):
    """A report can't be changed as asked; ``text`` says why and what to do, for the person."""

    text = "The report could not be changed."


class NotAllowed(ReportError):
    """The principal lacks the capability at the study's site."""

    text = "Your role doesn't allow this at the study's site."


class DraftChangedElsewhere(ReportError):
    """The draft was saved by someone else, or in another window, since it was read; ``current`` is the newer one."""

    text = "This draft was changed elsewhere meanwhile."

    def __init__(self, current: ReportPart) -> None:
        super().__init__(self.text)
        self.current = current


class DraftHeldByOther(DraftChangedElsewhere):
    """Another person writes the draft; ``current`` is what they saved."""

    text = "Another person is writing this report."


class DraftIsGone(ReportError):
    """The draft was signed or discarded meanwhile."""

    text = (
        "This draft was signed or discarded elsewhere. Copy the words that you still need, then load the report again."
    )


class ReportNotSigned(ReportError):
    """There's no signed report to which an addendum could be made."""

    text = "There is no signed report yet."


class ReportAlreadySigned(ReportError):
    """The report is signed; what's to be said more goes into an addendum."""

    text = "The report is signed. Write an addendum."


class NothingToSign(ReportError):
    """Neither findings nor impression are written."""

    text = "Write findings or an impression before signing."


class ReasonMissing(ReportError):
    """An addendum needs a reason."""

    text = "Say why the report needs an addendum."


class TextTooLong(ReportError):
    """A section is longer than a section may be."""

    text = "A section is too long; at most 50,000 characters are kept."


class WrongPassword(ReportError):
    """The password isn't the signer's."""

    text = "The password isn't right. Nothing was signed."


class TooManyAttempts(ReportError):
    """Too many wrong passwords in a short time."""

    text = "Too many wrong passwords. Wait ten minutes; your draft is kept."
