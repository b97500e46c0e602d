"""Why something can't be shared."""


class SharingError(Exception):
    """The message is for a person."""


class NotAllowed(SharingError):
    """The principal may not do that at the study's site."""


class NothingSaid(SharingError):
    """A comment needs words."""


class UnknownColleague(SharingError):
    """A mentioned person doesn't exist or may not see the study."""


class NobodyAsked(SharingError):
    """A request for a second opinion mentions no colleague."""
