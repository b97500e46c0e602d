"""Every write on accounts."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from accounts.capabilities import BUILT_IN_ROLES, Capability
from accounts.models import ApiToken, Membership, Role, Site, User

TOKEN_PREFIX = "atrium_"  # noqa: S105  a mark by which leaked tokens can be found, no secret


def token_digest(token: str) -> str:
    """Give the hash under which a token is kept. Tokens are random, so that a plain SHA-256 is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


@transaction.atomic
def create_built_in_roles() -> dict[str, Role]:
    """Make or refresh the roles that Atrium brings; give them by slug."""
    roles = {}
    for slug, (name, capabilities) in BUILT_IN_ROLES.items():
        roles[slug], _ = Role.objects.update_or_create(
            slug=slug, defaults={"name": name, "capabilities": sorted(c.value for c in capabilities)}
        )
    return roles


@transaction.atomic
def create_user(
    *,
    username: str,
    password: str,
    role: Role,
    sites: Iterable[Site | None],
    first_name: str = "",
    last_name: str = "",
    email: str = "",
    theme: str = User.Theme.AUTO,
) -> User:
    """Make a user who holds ``role`` at each of ``sites`` (None: at every site)."""
    user = User.objects.create_user(
        username=username, password=password, first_name=first_name, last_name=last_name, email=email, theme=theme
    )
    for site in sites:
        Membership.objects.create(user=user, role=role, site=site)
    return user


@transaction.atomic
def grant_role(*, user: User, role: Role, sites: Iterable[Site | None]) -> None:
    """Let the user hold one more role at each of ``sites`` (None: at every site); one held already changes nothing."""
    for site in sites:
        Membership.objects.get_or_create(user=user, role=role, site=site)


@transaction.atomic
def create_api_token(
    *, user: User, name: str, capabilities: Iterable[Capability] = (), site: Site | None = None, days: int = 365
) -> tuple[ApiToken, str]:
    """Make a token for ``user``; give it and its text, which can't be had again."""
    text = TOKEN_PREFIX + secrets.token_urlsafe(32)
    token = ApiToken.objects.create(
        user=user,
        name=name,
        digest=token_digest(text),
        capabilities=sorted(c.value for c in capabilities),
        site=site,
        expires_at=timezone.now() + timedelta(days=days),
    )
    return token, text
