"""Why a review isn't taken."""


class PeerReviewError(Exception):
    """The message is for a person."""


class NotYours(PeerReviewError):
    """The review was given to another, or is done."""


class CommentMissing(PeerReviewError):
    """A discrepancy needs a word on what was missed."""
