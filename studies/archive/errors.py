"""What can go wrong on the way out of storage."""


class ObjectMissing(Exception):
    """The index names an object that storage doesn't have, or has only in part."""


class NotRenderable(Exception):
    """No picture can be made of this instance; the message says why."""
