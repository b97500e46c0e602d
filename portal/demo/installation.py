"""The demo installation: two sites, their people, nodes and studies."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from django.db import transaction

from accounts.models import Practice, Site, User
from accounts.principals import principal_of_user
from accounts.services import create_built_in_roles, create_user, grant_role
from portal.demo.people import MORE_ROLES, PEOPLE, SITES
from portal.demo.studies import REFERRING_PHYSICIAN, demo_studies
from studies.ingest.services import Outcome, Source, WayIn, ingest, stage
from studies.models import ReferringPhysician
from studies.person_names import identifying

BATCH = 20


def demo_password(data: Path) -> str:
    """Give the demo people's password: from ``ATRIUM_DEMO_PASSWORD``, or random; kept in the data folder."""
    kept = data / "demo-password"
    if kept.exists():
        return kept.read_text().strip()
    password = os.environ.get("ATRIUM_DEMO_PASSWORD") or secrets.token_urlsafe(9)
    kept.touch(mode=0o600)
    kept.write_text(password + "\n")
    return password


@transaction.atomic
def create_people(password: str) -> dict[str, User]:
    """Make the demo's sites and people. Gives them by user name; those that are there already stay as they are."""
    roles = create_built_in_roles()
    sites: dict[str | None, Site | None] = {None: None}
    for slug, name in SITES.items():
        sites[slug], _ = Site.objects.get_or_create(slug=slug, defaults={"name": name})
    people = {}
    for username, (first_name, last_name, role, slugs) in PEOPLE.items():
        people[username] = User.objects.filter(username=username).first() or create_user(
            username=username,
            password=password,
            role=roles[role],
            sites=[sites[slug] for slug in slugs],
            first_name=first_name,
            last_name=last_name,
        )
        for slug in MORE_ROLES.get(username, ()):
            grant_role(user=people[username], role=roles[slug], sites=[sites[at] for at in slugs])
    practice, _ = Practice.objects.get_or_create(name="Okafor Family Practice")
    practice.members.add(people["referrer"])
    ReferringPhysician.objects.update_or_create(
        site=sites["north"],
        name_search=identifying(REFERRING_PHYSICIAN),
        defaults={"name": REFERRING_PHYSICIAN, "user": people["referrer"], "practice": practice},
    )
    return people


def import_studies(importer: User, *, progress: Callable[[str, int], None]) -> list[Outcome]:
    """Import the demo's studies by the one way in; ``progress`` gets each study's description and instances done.

    Gives the outcomes of those that were refused.
    """
    refused = []
    principal = principal_of_user(importer)
    sites = {site.slug: site for site in Site.objects.all()}
    done = 0
    for study in demo_studies():
        source = Source(WayIn.IMPORT, sites[study.site], principal)
        batch = []
        for content in study.instances():
            batch.append(stage([content], file_name=study.description))
            if len(batch) == BATCH:
                refused += [o for o in ingest(batch, source) if not o.is_in]
                done += len(batch)
                progress(study.description, done)
                batch = []
        refused += [o for o in ingest(batch, source) if not o.is_in]
        done += len(batch)
        progress(study.description, done)
    return refused
