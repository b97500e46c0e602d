"""Why an operation on a workitem isn't done; ``status`` is the DIMSE status of PS3.4 CC.2 and PS3.7 Annex C."""

from __future__ import annotations


class WorkitemError(Exception):
    """An operation that isn't done. ``reason`` is for a person and holds no patient data."""

    status = 0x0110
    reason = "The request can't be processed."

    def __init__(self, reason: str = "") -> None:
        self.reason = reason or self.reason
        super().__init__(self.reason)


class InvalidWorkitem(WorkitemError):
    """What was sent can't be a workitem, or a change of one."""

    status = 0x0106


class MissingAttribute(InvalidWorkitem):
    status = 0x0120


class MissingAttributeValue(InvalidWorkitem):
    status = 0x0121


class NotAuthorised(WorkitemError):
    status = 0x0124
    reason = "This account may not do that at this site."


class DuplicateWorkitem(WorkitemError):
    status = 0x0111
    reason = "The Workitem already exists."


class MustBeScheduled(InvalidWorkitem):
    status = 0xC309
    reason = "The provided value of UPS State was not SCHEDULED."


class NoSuchWorkitem(WorkitemError):
    status = 0xC307
    reason = "There is no such Workitem."


class NoLongerUpdatable(WorkitemError):
    status = 0xC300
    reason = "The UPS may no longer be updated."


class WrongTransaction(WorkitemError):
    status = 0xC301
    reason = "The Transaction UID is incorrect."


class MissingTransaction(WrongTransaction):
    reason = "The Transaction UID is missing."


class AlreadyInProgress(WorkitemError):
    status = 0xC302
    reason = "The UPS is already IN PROGRESS."


class ScheduledOnlyByCreation(WorkitemError):
    status = 0xC303
    reason = "The UPS may only become SCHEDULED by its creation."


class FinalStateNotMet(WorkitemError):
    status = 0xC304


class NotInProgress(WorkitemError):
    status = 0xC310
    reason = "The UPS is not in the IN PROGRESS state."


class AlreadyCompleted(WorkitemError):
    status = 0xC311
    reason = "The UPS is already COMPLETED."


class InappropriateAction(WorkitemError):
    status = 0xC314
    reason = "The action isn't appropriate for this instance."


class NotSubscribed(WorkitemError):
    status = 0xC307
    reason = "There is no such subscription."
