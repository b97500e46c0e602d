"""Why a finding isn't taken."""


class FindingError(Exception):
    """A finding can't be kept; the message is for a person."""


class NotAllowed(FindingError):
    """The principal may not write reports at the study's site."""


class NoSuchImage(FindingError):
    """The study has no such image, or none that the principal may see."""


class Unusable(FindingError):
    """The viewer sent something that is no measurement and no key image."""
