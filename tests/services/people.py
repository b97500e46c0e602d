"""Sites, people and nodes of an installation that tests run."""

from __future__ import annotations

from accounts.models import Site
from studies.dimse.models import Node
from tests.factories import make_people


def install() -> None:
    """Make sites north and south, the demo's people, and at each site a modality and a workstation."""
    sites = {slug: Site.objects.create(slug=slug, name=f"{slug.title()} Hospital") for slug in ("north", "south")}
    make_people(sites)
    for slug, site in sites.items():
        Node.objects.create(
            ae_title=f"CT_{slug.upper()}", site=site, description="test modality", may_worklist=True, may_perform=True
        )
        Node.objects.create(
            ae_title=f"WS_{slug.upper()}",
            site=site,
            description="test workstation",
            may_store=False,
            may_query=True,
            may_retrieve=True,
        )
