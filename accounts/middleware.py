"""Who sends this request: bearer tokens, and the principal that every view asks the gate with."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import resolve_url
from django.utils.functional import SimpleLazyObject

from accounts.gates import problem
from accounts.models import ApiToken
from accounts.principals import Principal, principal_of_user, stranger
from accounts.services import token_digest

GetResponse = Callable[[HttpRequest], HttpResponse]


def client_address(request: HttpRequest) -> str | None:
    """Give the client's IP address, taken from the proxy's header only where a proxy is trusted."""
    return address_of(request.META.get("REMOTE_ADDR"), request.headers.get("X-Forwarded-For", ""))


def address_of(remote_address: str | None, forwarded: str) -> str | None:
    """Give the client's IP address by the connection's and by what the proxy forwarded."""
    if settings.ATRIUM.trust_proxy and forwarded:
        return forwarded.rsplit(",", 1)[-1].strip()
    return remote_address or None


class BearerTokenMiddleware:
    """Signs in the program that sends ``Authorization: Bearer TOKEN``; a bad token is refused at once (RFC 6750)."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.api_token = None  # type: ignore[attr-defined]
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            token = ApiToken.objects.select_related("user").filter(digest=token_digest(text.strip())).first()
            if token is None or not token.is_valid or not token.user.is_active:
                response = JsonResponse(
                    {"title": "The token is unknown, expired or revoked.", "status": 401}, status=401
                )
                response["Content-Type"] = "application/problem+json"
                response["WWW-Authenticate"] = 'Bearer error="invalid_token"'
                return response
            request.api_token = token  # type: ignore[attr-defined]
            # A token is never sent by a browser on its own, so that forgery across sites can't happen.
            request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]
        return self.get_response(request)


class PrincipalMiddleware:
    """Sets ``request.user`` for a token and ``request.principal`` for everyone, read when first needed."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        token: ApiToken | None = request.api_token  # type: ignore[attr-defined]
        if token is not None:
            request.user = token.user
        request.principal = SimpleLazyObject(lambda: _principal(request, token))  # type: ignore[attr-defined]
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


def _principal(request: HttpRequest, token: ApiToken | None) -> Principal:
    address = client_address(request)
    user_agent = request.headers.get("User-Agent", "")
    if not request.user.is_authenticated:
        return stranger(ip_address=address, user_agent=user_agent)
    return principal_of_user(request.user, token=token, ip_address=address, user_agent=user_agent)
