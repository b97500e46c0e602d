"""Events that Django, allauth and auditlog tell of: sign-ins and model changes."""

from __future__ import annotations

from typing import Any

from auditlog.models import LogEntry
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db.models.signals import post_save
from django.http import HttpRequest

from accounts.middleware import client_address
from accounts.models import User
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record


def _principal(request: HttpRequest | None, user: User | None) -> Principal:
    if request is None:
        return Principal(user=user)
    return Principal(
        user=user, ip_address=client_address(request), user_agent=request.headers.get("User-Agent", "")[:200]
    )


def signed_in(sender: Any, request: HttpRequest, user: User, **kwargs: Any) -> None:
    """Record a sign-in."""
    record(AuditEvent.Action.SIGN_IN, principal=_principal(request, user))


def signed_out(sender: Any, request: HttpRequest, user: User | None, **kwargs: Any) -> None:
    """Record a sign-out."""
    if user is not None:
        record(AuditEvent.Action.SIGN_OUT, principal=_principal(request, user))


def sign_in_failed(sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **kwargs: Any) -> None:
    """Record a refused sign-in with the name that was tried."""
    tried = str(credentials.get("username") or credentials.get("login") or "")[:150]
    record(
        AuditEvent.Action.SIGN_IN_FAILED,
        principal=_principal(request, None),
        outcome=AuditEvent.Outcome.REFUSED,
        details={"login": tried},
    )


def model_changed(sender: Any, instance: LogEntry, created: bool, **kwargs: Any) -> None:
    """Take a change that auditlog logged over into the chain."""
    if not created:
        return
    actor = instance.actor if isinstance(instance.actor, User) else None
    record(
        AuditEvent.Action.CHANGE,
        principal=Principal(user=actor, ip_address=instance.remote_addr),
        details={
            "model": instance.content_type.model,
            "object": instance.object_pk,
            "change": instance.get_action_display(),
            "fields": sorted(instance.changes_dict),
        },
    )


def connect() -> None:
    """Connect the receivers; called once when the app is ready."""
    user_logged_in.connect(signed_in, dispatch_uid="audit")
    user_logged_out.connect(signed_out, dispatch_uid="audit")
    user_login_failed.connect(sign_in_failed, dispatch_uid="audit")
    post_save.connect(model_changed, sender=LogEntry, dispatch_uid="audit")
