"""User Identity Negotiation (PS3.7 D.3.3.7): who sits at the node, proven by password or token."""

from __future__ import annotations

from pathlib import Path

import jwt
from django.conf import settings
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from accounts.models import ApiToken, User
from accounts.passwords import IdentityRefused, user_by_password
from accounts.principals import Principal, principal_of_user
from accounts.services import TOKEN_PREFIX, token_digest
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.dimse.callers import narrowed
from studies.dimse.scp import Session

# PS3.7 Table D.3-14. A name alone proves nothing; Kerberos and SAML aren't verified: the caller is its node then.
USERNAME_AND_PASSCODE, JSON_WEB_TOKEN = 2, 5
ALGORITHMS = ["RS256", "ES256", "EdDSA"]


def on_user_identity(event: Event) -> tuple[bool, bytes | None]:
    """Verify the identity; the association is rejected when it's claimed but not proven."""
    session: Session | None = event.assoc.atrium_session
    if session is None or event.user_id_type not in {USERNAME_AND_PASSCODE, JSON_WEB_TOKEN}:
        return True, None
    caller = session.caller.principal
    try:
        if event.user_id_type == USERNAME_AND_PASSCODE:
            principal = _by_password(event.primary_field, event.secondary_field or b"", caller)
        else:
            principal = _by_token(event.primary_field.decode("ascii", "replace").strip(), caller.ip_address)
    except IdentityRefused as refusal:
        record(
            AuditEvent.Action.SIGN_IN_FAILED,
            principal=caller,
            outcome=AuditEvent.Outcome.REFUSED,
            site_id=session.caller.site.pk,
            details={"way": "DICOM user identity", "reason": str(refusal), **_tried(event)},
        )
        session.last_error = f"User identity refused: {refusal}"
        return False, None
    session.caller = narrowed(session.caller, principal)
    record(
        AuditEvent.Action.SIGN_IN,
        principal=session.caller.principal,
        site_id=session.caller.site.pk,
        details={"way": "DICOM user identity"},
    )
    if event.user_id_type == USERNAME_AND_PASSCODE and event.assoc.requestor.user_identity.positive_response_requested:
        # The library answers only tokens; for passwords the answer is an empty item (PS3.7 D.3.3.7.2).
        answer = UserIdentityNegotiation()
        answer.server_response = b""
        event.assoc.acceptor.add_negotiation_item(answer)
    return True, b""


def _tried(event: Event) -> dict[str, str]:
    """Give the name that was tried; of a token nothing is told."""
    if event.user_id_type != USERNAME_AND_PASSCODE:
        return {}
    return {"login": event.primary_field.decode("utf-8", "replace")[:150]}


def _by_password(name: bytes, password: bytes, caller: Principal) -> Principal:
    try:
        user = user_by_password(
            username=name.decode(),
            password=password.decode(),
            ip_address=caller.ip_address,
            user_agent=f"AE {caller.ae_title}",
        )
    except UnicodeDecodeError as error:
        raise IdentityRefused("not UTF-8") from error
    return principal_of_user(user, ip_address=caller.ip_address)


def _by_token(text: str, address: str | None) -> Principal:
    if text.startswith(TOKEN_PREFIX):
        token = ApiToken.objects.select_related("user").filter(digest=token_digest(text)).first()
        if token is None or not token.is_valid or not token.user.is_active:
            raise IdentityRefused("the token is void")
        return principal_of_user(token.user, token=token, ip_address=address)
    return _by_signed_token(text, address)


def _by_signed_token(text: str, address: str | None) -> Principal:
    """Take a JSON Web Token of the issuer whose public key is configured: its subject is a user name."""
    if not settings.ATRIUM.dicom_jwt_key:
        raise IdentityRefused("signed tokens aren't taken here")
    try:
        claims = jwt.decode(
            text,
            Path(settings.ATRIUM.dicom_jwt_key).read_bytes(),
            algorithms=ALGORITHMS,
            audience=settings.ATRIUM.ae_title,
            options={"require": ["exp", "sub", "aud"]},
        )
    except (jwt.PyJWTError, OSError) as error:
        raise IdentityRefused(f"the signed token is void: {type(error).__name__}") from error
    user = User.objects.filter(username=str(claims["sub"]), is_active=True).first()
    if user is None:
        raise IdentityRefused("nobody has the token's name")
    return principal_of_user(user, ip_address=address)
