"""Who a request's credential stands for, remembered for a few seconds: programs ask many times a second.

The live connections, DICOMweb's fast path and the middleware for bearer tokens ask here. What isn't a plain, valid
credential gives None; the caller then refuses, or leaves the request to the views, which say what is wrong.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from threading import Lock
from typing import Any, Generic, TypeVar

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.signals import user_logged_out
from django.db.models.signals import m2m_changed, post_delete, post_save
from django.http import HttpRequest

from accounts.models import ApiToken, Membership, Practice, Role, Site, User
from accounts.principals import Principal, principal_of_user
from accounts.services import token_digest

# In seconds; this process forgets at once. Another may not know of a revocation for twice as long: what it remembers of
# a study rests on what it remembered of a principal.
REMEMBERED = 3.0
MOST_REMEMBERED = 10_000
T = TypeVar("T")
_forgetful: list[Remembered[Any]] = []


@dataclass(frozen=True)
class Credential:
    """A bearer token's text or a session's key, and from where it was shown."""

    token: str
    session_key: str
    ip_address: str | None
    user_agent: str


def address_of(remote_address: str | None, forwarded: str) -> str | None:
    """Give the client's IP address, taken from what the proxy forwarded only where a proxy is trusted."""
    if settings.ATRIUM.trust_proxy and forwarded:
        return forwarded.rsplit(",", 1)[-1].strip()
    return remote_address or None


def credential_of(headers: Mapping[str, str], remote_address: str | None) -> Credential | None:
    """Read the credential from headers (names in lower case); None where there is none, or more than one."""
    authorization = headers.get("authorization", "")
    address = address_of(remote_address, headers.get("x-forwarded-for", ""))
    user_agent = headers.get("user-agent", "")
    if authorization:
        scheme, _, token = authorization.partition(" ")
        return Credential(token.strip(), "", address, user_agent) if scheme.lower() == "bearer" else None
    key = _session_key(headers.get("cookie", ""))
    return Credential("", key, address, user_agent) if key else None


def _session_key(cookies: str) -> str:
    # Python's own parser takes seconds for a hostile cookie; a key needs none of its quoting.
    pairs = (cookie.partition("=") for cookie in cookies.split(";"))
    keys = [value.strip() for name, _, value in pairs if name.strip() == settings.SESSION_COOKIE_NAME]
    return keys[0] if len(keys) == 1 else ""


class Remembered(Generic[T]):
    """Values by key for REMEMBERED seconds, forgotten all at once when any right changes in this process."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._values: OrderedDict[Any, tuple[float, T]] = OrderedDict()
        self._most = most
        # How often it was cleared.
        self.generation = 0
        self._lock = Lock()
        _forgetful.append(self)

    def get(self, key: Any) -> T | None:
        """Give the value, or None when it isn't known or too old."""
        kept = self._values.get(key)
        return kept[1] if kept is not None and kept[0] > time.monotonic() else None

    def put(self, key: Any, value: T, *, since: int | None = None) -> None:
        """Remember the value, unless all was forgotten ``since`` a generation, before which it was asked for."""
        with self._lock:
            if since not in {None, self.generation}:
                return
            self._values[key] = (time.monotonic() + REMEMBERED, value)
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)

    def forget(self, key: Any) -> None:
        """Forget one value."""
        with self._lock:
            self._values.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self.generation += 1


_principals: Remembered[Principal] = Remembered()


def principal_of_credential(credential: Credential) -> Principal | None:
    """Give the principal, from memory when asked for within the last seconds; None when the credential is void."""
    principal = _principals.get(credential)
    if principal is None:
        since = _principals.generation
        principal = _of_token(credential) if credential.token else _of_session(credential)
        if principal is not None:
            _principals.put(credential, principal, since=since)
    return principal


def _of_token(credential: Credential) -> Principal | None:
    token = ApiToken.objects.select_related("user").filter(digest=token_digest(credential.token)).first()
    if token is None or not token.is_valid or not token.user.is_active:
        return None
    return principal_of_user(
        token.user, token=token, ip_address=credential.ip_address, user_agent=credential.user_agent
    )


def _of_session(credential: Credential) -> Principal | None:
    engine = import_module(settings.SESSION_ENGINE)
    request = HttpRequest()
    request.session = engine.SessionStore(credential.session_key)
    user = get_user(request)
    if not isinstance(user, User) or not user.is_active:
        return None
    return principal_of_user(user, ip_address=credential.ip_address, user_agent=credential.user_agent)


def forget_all(**_: Any) -> None:
    """Forget every remembered right of this process."""
    for remembered in _forgetful:
        remembered.clear()


def forget_when_rights_change() -> None:
    """Forget at once when this process signs someone out or changes accounts, roles, tokens or sites."""
    user_logged_out.connect(forget_all, dispatch_uid="forget rights")
    for model in (User, ApiToken, Membership, Role, Practice, Site):
        post_save.connect(forget_all, sender=model, dispatch_uid=f"forget rights {model.__name__}")
        post_delete.connect(forget_all, sender=model, dispatch_uid=f"forget rights {model.__name__}")
    m2m_changed.connect(forget_all, sender=Practice.members.through, dispatch_uid="forget rights of practices")
