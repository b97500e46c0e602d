"""Proving once more who sits at the keyboard: password, one-time code or passkey, checked by django-allauth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, validate_totp_code
from allauth.mfa.utils import decrypt
from allauth.mfa.webauthn.internal import auth as webauthn
from django.core.exceptions import ValidationError
from fido2.webauthn import UserVerificationRequirement

from accounts.models import User


@dataclass(frozen=True)
class Credential:
    """What a person gave to prove who they are; one of the three is enough."""

    password: str = ""
    code: str = ""
    passkey: str = ""

    @property
    def way(self) -> str:
        return "passkey" if self.passkey else "one-time code" if self.code else "password"


def ways_of(user: User) -> frozenset[str]:
    """Give the ways by which the user can prove who they are: password, totp, webauthn."""
    types = set(Authenticator.objects.filter(user=user).values_list("type", flat=True))
    kept = types & {Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN}
    return frozenset({str(kind) for kind in kept} | ({"password"} if user.has_usable_password() else set()))


def is_proven(user: User, credential: Credential) -> bool:
    """Say whether the credential is the user's. A passkey's challenge is the one that this session was given."""
    if credential.passkey:
        return _is_passkey_of(user, credential.passkey)
    if credential.code:
        authenticator = Authenticator.objects.filter(user=user, type=Authenticator.Type.TOTP).first()
        return authenticator is not None and TOTP(authenticator).validate_code(credential.code.replace(" ", ""))
    return bool(credential.password) and user.check_password(credential.password)


def is_used_code(user: User, credential: Credential) -> bool:
    """Say whether a credential that was refused is a one-time code, right but taken before (RFC 6238 §5.2)."""
    authenticator = Authenticator.objects.filter(user=user, type=Authenticator.Type.TOTP).first()
    if not credential.code or authenticator is None:
        return False
    return bool(validate_totp_code(decrypt(authenticator.data["secret"]), credential.code.replace(" ", "")))


def passkey_challenge(user: User) -> dict[str, Any]:
    """Give WebAuthn's request options for the user's passkeys; the challenge is kept in the session.

    The authenticator must verify the person (W3C WebAuthn §6.1, flag UV): a key that is only touched proves that
    somebody sits there, not who.
    """
    options, state = webauthn.get_server().authenticate_begin(
        credentials=webauthn.get_credentials(user), user_verification=UserVerificationRequirement.REQUIRED
    )
    webauthn.set_state(state)
    return dict(options)


def _is_passkey_of(user: User, response: str) -> bool:
    try:
        webauthn.complete_authentication(user, json.loads(response))
    except (ValidationError, ValueError, KeyError, TypeError):
        return False
    return True
