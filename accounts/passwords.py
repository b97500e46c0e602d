"""Signing in by name and password where there's no page to ask for more: the same limits as on the sign-in page."""

from __future__ import annotations

from urllib.parse import urlsplit

from allauth.account.adapter import get_adapter
from django.conf import settings
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from accounts.models import User
from accounts.reauthentication import ways_of


class IdentityRefused(Exception):
    """What was shown signs nobody in; the message says why, for the trail."""


def user_by_password(*, username: str, password: str, ip_address: str | None, user_agent: str = "") -> User:
    """Give the user whose password it is.

    Raises IdentityRefused: it's wrong, it was tried too often for this name or from this address
    (``ACCOUNT_RATE_LIMITS``), or the user has a second factor, which a password alone would pass by.
    """
    request = HttpRequest()
    request.method = "POST"  # what counts as an attempt
    host = urlsplit(settings.ATRIUM.public_url).hostname or "localhost"
    request.META |= {"SERVER_NAME": host, "SERVER_PORT": "443"}
    request.META |= {"REMOTE_ADDR": ip_address or "", "HTTP_USER_AGENT": user_agent}
    if ip_address:
        request.META["HTTP_X_FORWARDED_FOR"] = ip_address
    try:
        user = get_adapter(request).authenticate(request, username=username, password=password)
    except ValidationError as error:
        raise IdentityRefused("tried too often") from error
    if not isinstance(user, User) or not user.is_active:
        raise IdentityRefused("wrong name or password")
    if ways_of(user) - {"password"}:
        raise IdentityRefused("the account has a second factor and needs a token")
    return user
