"""Who sends this request: bearer tokens, and the principal that every view asks the gate with."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import resolve_url
from django.utils.functional import SimpleLazyObject

from accounts.credentials import Credential, address_of, principal_of_credential
from accounts.gates import problem
from accounts.principals import Principal, principal_of_user, stranger

GetResponse = Callable[[HttpRequest], HttpResponse]


def client_address(request: HttpRequest) -> str | None:
    """Give the client's IP address."""
    return address_of(request.META.get("REMOTE_ADDR"), request.headers.get("X-Forwarded-For", ""))


class BearerTokenMiddleware:
    """Signs in the program that sends ``Authorization: Bearer TOKEN``; a bad token is refused at once (RFC 6750)."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            user_agent = request.headers.get("User-Agent", "")
            principal = principal_of_credential(Credential(text.strip(), "", client_address(request), user_agent))
            if principal is None:
                response = JsonResponse(
                    {"title": "The token is unknown, expired or revoked.", "status": 401}, status=401
                )
                response["Content-Type"] = "application/problem+json"
                response["WWW-Authenticate"] = 'Bearer error="invalid_token"'
                return response
            request.principal = principal  # type: ignore[attr-defined]
            # A token is never sent by a browser on its own, so that forgery across sites can't happen.
            request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]
        return self.get_response(request)


class PrincipalMiddleware:
    """Sets ``request.user`` for a token and ``request.principal`` for everyone else, read when first needed."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        principal: Principal | None = getattr(request, "principal", None)
        if principal is None:
            request.principal = SimpleLazyObject(lambda: _principal(request))  # type: ignore[attr-defined]
        else:
            # Others may ask by the same token at the same time: each has an object of its own.
            request.user = copy(principal.user)  # type: ignore[assignment]
        return self.get_response(request)


class SignedOutMiddleware:
    """Answers 401 where a part of a page, or a script, would be led to the sign-in: it would show that in its place."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        is_led_away = isinstance(response, HttpResponseRedirect) and response.url.startswith(
            resolve_url(settings.LOGIN_URL)
        )
        if is_led_away and not request.user.is_authenticated and _is_part(request):
            return problem(401, "Sign in again.")
        return response


def _is_part(request: HttpRequest) -> bool:
    return "HX-Request" in request.headers or request.headers.get("Accept") == "application/json"


def _principal(request: HttpRequest) -> Principal:
    address = client_address(request)
    user_agent = request.headers.get("User-Agent", "")
    if not request.user.is_authenticated:
        return stranger(ip_address=address, user_agent=user_agent)
    return principal_of_user(request.user, ip_address=address, user_agent=user_agent)
