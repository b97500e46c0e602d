"""What every service that we offer is made of: its SOP classes, its handlers, its answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom import uid
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.events import Event

from studies.dimse.associations import Live
from studies.dimse.callers import Caller
from studies.dimse.transport import Request

Handler = Callable[[Event], Any]

# PS3.7 Annex C, PS3.4 Tables C.4-1 to C.4-3.
SUCCESS = 0x0000
PENDING, PENDING_WITH_UNSUPPORTED_KEYS, CANCELLED = 0xFF00, 0xFF01, 0xFE00
OUT_OF_RESOURCES, IDENTIFIER_DOES_NOT_MATCH, UNABLE_TO_PROCESS = 0xA700, 0xA900, 0xC000
INVALID_VALUE, DUPLICATE_INSTANCE, MISSING_ATTRIBUTE = 0x0106, 0x0111, 0x0120
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
SOP_CLASS_NOT_SUPPORTED = 0x0122
NOT_AUTHORISED = 0x0124
UNRECOGNISED_OPERATION = 0x0211

# The syntaxes of messages that carry no pixels; explicit little endian first where a peer offers a choice.
MESSAGE_SYNTAXES = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)


@dataclass(frozen=True)
class Service:
    """A service that we offer as SCP.

    ``handlers`` is keyed by pynetdicom's intervention events. Two services may handle the same event (N-CREATE of MPPS
    and of UPS): the abstract syntax of the request's presentation context decides.
    """

    name: str
    sop_classes: Sequence[str]
    handlers: Mapping[evt.InterventionEvent, Handler]
    transfer_syntaxes: Sequence[str] = MESSAGE_SYNTAXES
    # Requests (pynetdicom's primitives) that are answered message by message instead of by an event's handler.
    requests: Mapping[type, Callable[[Request], None]] = field(default_factory=dict)
    # The peer may be the SCP of these by role selection (PS3.7 D.3.3.4): C-GET's storage.
    roles_reversible: bool = False
    # Answers SOP Class Extended Negotiation (PS3.7 D.3.3.5): SOP class and bytes asked for, to bytes granted.
    negotiate: Callable[[str, bytes], bytes] | None = None
    notifications: Mapping[evt.NotificationEvent, Handler] = field(default_factory=dict)


def bindings(services: Sequence[Service]) -> Iterator[tuple[evt.EventType, Handler]]:
    """Give pynetdicom's (event, handler) pairs for all services, one dispatcher an intervention event."""
    by_event: dict[evt.InterventionEvent, dict[str, Handler]] = {}
    for service in services:
        for event, handler in service.handlers.items():
            by_event.setdefault(event, {}).update(dict.fromkeys(service.sop_classes, handler))
        yield from service.notifications.items()
    for event, handlers in by_event.items():
        yield event, _dispatcher(event, handlers)


def requests(services: Sequence[Service]) -> dict[tuple[type, str], Callable[[Request], None]]:
    """Give the handlers of requests that services answer by themselves, by primitive and abstract syntax."""
    return {
        (primitive, sop_class): _counted(primitive, handler)
        for service in services
        for primitive, handler in service.requests.items()
        for sop_class in service.sop_classes
    }


def _counted(primitive: type, handler: Callable[[Request], None]) -> Callable[[Request], None]:
    def handle(request: Request) -> None:
        session: Session = request.association.atrium_session
        session.requests[primitive.__name__.replace("_", "-")] += 1
        handler(request)

    return handle


def negotiate(services: Sequence[Service], asked: Mapping[str, bytes]) -> dict[str, bytes]:
    """Give what each service grants of the extensions asked for."""
    by_class = {sop_class: service.negotiate for service in services for sop_class in service.sop_classes}
    return {
        str(sop_class): negotiated(str(sop_class), information)
        for sop_class, information in asked.items()
        if (negotiated := by_class.get(str(sop_class))) is not None
    }


def _dispatcher(event_type: evt.InterventionEvent, handlers: Mapping[str, Handler]) -> Handler:
    name = event_type.name.removeprefix("EVT_").replace("_", "-")

    def dispatch(event: Event) -> Any:
        if name != "C-STORE":
            session_of(event).requests[name] += 1
        return handlers[event.context.abstract_syntax](event)

    return dispatch


@dataclass
class Session:
    """An accepted association: who calls, and what was asked so far."""

    caller: Caller
    live: Live | None = None
    extensions: dict[str, bytes] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    last_error: str = ""


def session_of(event: Event) -> Session:
    """Give the session in which this request is made."""
    session: Session = event.assoc.atrium_session
    return session


def caller_of(event: Event) -> Caller:
    """Give who sends this request."""
    return session_of(event).caller


def status(code: int, comment: str = "", **keywords: Any) -> Dataset:
    """Give a status with its Error Comment (0000,0902), cut to what LO holds."""
    answer = Dataset()
    answer.Status = code
    if comment:
        answer.ErrorComment = comment[:64]
    for keyword, value in keywords.items():
        setattr(answer, keyword, value)
    return answer
