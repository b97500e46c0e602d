"""What the orders' room refuses."""

from __future__ import annotations


class OrderRefused(RuntimeError):
    """Base of what an order's services refuse; the message is for people."""


class NotAllowed(OrderRefused):
    """The principal lacks the capability at the site."""

    def __init__(self) -> None:
        super().__init__("This account may not do that at this site.")


class AccessionNumberTaken(OrderRefused):
    """The accession number is another order's with the same procedure, or another patient's."""

    def __init__(self, accession_number: str) -> None:
        super().__init__(f"The accession number {accession_number} is already in use.")


class OrderIsOver(OrderRefused):
    """The order is completed or cancelled and takes no change."""

    def __init__(self, status: str) -> None:
        super().__init__(f"The order is {status} and can't be changed any more.")


class OrderHasStudy(OrderRefused):
    """The order is answered by another study already, or images came for the order that is to be cancelled."""

    def __init__(self) -> None:
        super().__init__("A study belongs to this order already; undo that link first.")


class CannotUndo(OrderRefused):
    """A later step lies on top of the one that is to be undone."""

    def __init__(self) -> None:
        super().__init__("Something was changed on the study since; undo that first.")


class NotTheSameSite(OrderRefused):
    """Records of two sites are never joined."""

    def __init__(self) -> None:
        super().__init__("Both must belong to the same site.")
