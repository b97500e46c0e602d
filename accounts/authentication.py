"""DRF's view of who is signed in: what the middleware found, with CSRF enforced for sessions."""

from __future__ import annotations

from typing import Any

from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request

from accounts.gates import principal_of


class RequestPrincipalAuthentication(SessionAuthentication):
    """Takes over the user of the session or of the bearer token."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        principal = principal_of(request._request)
        if principal.token_id is not None:
            return request._request.user, principal
        return super().authenticate(request)

    def authenticate_header(self, request: Request) -> str:
        """Give the challenge that turns a missing sign-in into 401 (RFC 6750 §3)."""
        return "Bearer"
