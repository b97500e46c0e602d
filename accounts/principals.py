"""The one who acts: a signed-in person, a program with a token, or a DICOM node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from accounts.capabilities import Capability
from accounts.models import ApiToken, Membership, Site, User

EVERY_SITE = None
Grant = tuple[str, int | None]


@dataclass(frozen=True)
class Principal:
    """Who acts, from where, and what each is granted where.

    ``grants`` holds pairs (capability, site id); the site id None stands for every site.
    """

    grants: frozenset[Grant] = frozenset()
    user: User | None = None
    token_id: int | None = None
    ae_title: str = ""
    ip_address: str | None = None
    user_agent: str = ""
    practice_ids: frozenset[int] = field(default=frozenset())
    teaching_site_ids: frozenset[int] = field(default=frozenset())

    @cached_property
    def name(self) -> str:
        if self.user is not None:
            return self.user.username
        return f"AE:{self.ae_title}" if self.ae_title else "anonymous"

    @property
    def is_stranger(self) -> bool:
        return not self.grants

    def may(self, capability: Capability, site_id: int | None = None) -> bool:
        """Say whether the capability is held at the site, or, without one, anywhere."""
        if site_id is None:
            return any(granted == capability for granted, _ in self.grants)
        return (capability.value, site_id) in self.grants or (capability.value, EVERY_SITE) in self.grants

    def sites_with(self, capability: Capability) -> frozenset[int] | None:
        """Give the ids of the sites where the capability is held; None when it is held at every site."""
        if (capability.value, EVERY_SITE) in self.grants:
            return None
        return frozenset(site_id for granted, site_id in self.grants if granted == capability and site_id is not None)


def stranger(*, ip_address: str | None = None, user_agent: str = "") -> Principal:
    """Give the principal of someone who isn't signed in."""
    return Principal(ip_address=ip_address, user_agent=user_agent)


def principal_of_user(
    user: User, *, token: ApiToken | None = None, ip_address: str | None = None, user_agent: str = ""
) -> Principal:
    """Give the principal of a user with all their memberships, narrowed by the token if there is one."""
    if not user.is_active:
        return stranger(ip_address=ip_address, user_agent=user_agent)
    memberships = Membership.objects.filter(user=user).values_list("role__capabilities", "site_id")
    grants: set[Grant] = {(capability, site_id) for capabilities, site_id in memberships for capability in capabilities}
    teaching_site_ids: frozenset[int] = frozenset()
    if any(capability == Capability.TEACHING_MANAGE for capability, _ in grants):
        teaching_site_ids = frozenset(Site.objects.filter(is_teaching=True).values_list("pk", flat=True))
        grants |= {(Capability.STUDY_VIEW.value, site_id) for site_id in teaching_site_ids}
    if token is not None:
        grants = _narrowed(grants, token)
    return Principal(
        grants=frozenset(grants),
        user=user,
        token_id=token.pk if token else None,
        ip_address=ip_address,
        user_agent=user_agent[:200],
        practice_ids=frozenset(user.practices.values_list("pk", flat=True)),
        teaching_site_ids=teaching_site_ids,
    )


def _narrowed(grants: Iterable[Grant], token: ApiToken) -> set[Grant]:
    allowed = set(token.capabilities)
    narrowed = {(c, s) for c, s in grants if not allowed or c in allowed}
    if token.site_id is None:
        return narrowed
    return {(c, token.site_id) for c, s in narrowed if s in {EVERY_SITE, token.site_id}}


def principal_of_node(
    *, ae_title: str, site_id: int, capabilities: Iterable[Capability], ip_address: str | None
) -> Principal:
    """Give the principal of a DICOM node, which acts at its own site only."""
    return Principal(
        grants=frozenset((c.value, site_id) for c in capabilities), ae_title=ae_title, ip_address=ip_address
    )
