"""What can go wrong on the way out of storage."""


class ObjectMissing(Exception):
    """The index names an object that storage doesn't have, or has only in part."""


class NotRenderable(Exception):
    """No picture can be made of this instance; the message says why."""


class OutsidePicture(NotRenderable):
    """The part that was asked for lies outside of the picture."""


class NotTranscodable(Exception):
    """The instance can't be given in the wanted transfer syntax; the message says why."""


class NotMultiframe(Exception):
    """The instance is of a kind that has no frames to choose from."""


class FramesNotFound(Exception):
    """None of the frames that were asked for is there."""


class NotTimed(Exception):
    """Frames were asked for by time, and the instance doesn't say when they were made."""


class NotCorrectable(ValueError):
    """A correction names what may not be corrected, or gives a value that its VR doesn't allow."""


class DeletionRefused(Exception):
    """Something must not be deleted; the message says why."""


class NotAuthorised(Exception):
    """The principal may not do that at the study's site."""


class MoveRefused(Exception):
    """A study can't be moved to the tier now; the message says why."""


class MoveUnderWay(Exception):
    """The study is on its way to the other tier; ask again when it's there."""
