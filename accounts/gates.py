"""Decorators that gate a view by capability."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase

from accounts.capabilities import Capability
from accounts.principals import Principal

View = Callable[..., HttpResponseBase]


def capability_required(*capabilities: Capability) -> Callable[[View], View]:
    """Let a screen's view run only for one who holds one of the capabilities somewhere.

    A stranger is sent to the sign-in; a signed-in person without them gets 403.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def gated(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return redirect_to_login(request.get_full_path())
            if not any(request.principal.may(c) for c in capabilities):  # type: ignore[attr-defined]
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return gated

    return decorate


def program_capability_required(*capabilities: Capability) -> Callable[[View], View]:
    """The same for addresses that programs call: 401 and 403 as problem+json (RFC 9457), no redirect."""

    def decorate(view: View) -> View:
        @wraps(view)
        def gated(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return unauthorized()
            if not any(request.principal.may(c) for c in capabilities):  # type: ignore[attr-defined]
                return problem(403, "This account may not do that.")
            return view(request, *args, **kwargs)

        return gated

    return decorate


def principal_of(request: HttpRequest) -> Principal:
    """Give who asks, as the middleware found out."""
    principal: Principal = request.principal  # type: ignore[attr-defined]
    return principal


def unauthorized() -> JsonResponse:
    """Tell a program that it has to say who it is (RFC 6750 §3)."""
    response = problem(401, "Sign in, or send a bearer token.")
    response["WWW-Authenticate"] = "Bearer"
    return response


def problem(status: int, title: str, **members: Any) -> JsonResponse:
    """Give an error as problem+json (RFC 9457)."""
    body = {"type": "about:blank", "title": title, "status": status, **members}
    return JsonResponse(body, status=status, content_type="application/problem+json")
