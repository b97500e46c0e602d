"""A day's work in the demo: a case in each status, a critical result, a discussion, a review, a teaching file.

For a look at pages that a fresh installation doesn't have yet.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.test import Client
from django.utils import timezone

from accounts.models import Site, User
from studies.dimse.models import Node, PrefetchRule, RoutingRule
from studies.dimse.transfers import send_study
from studies.models import Study
from studies.peer_review.services import sample
from studies.reports.models import CriticalResult
from tests.factories import PASSWORD, principal_of

LOCAL = "127.0.0.1"
WORDS = {
    "findings": "Solid nodule of 8 mm in the right upper lobe, 5 mm a year ago. No effusion. Heart not enlarged.",
    "impression": "Growing nodule in the right upper lobe. PET-CT is recommended.",
}


def install() -> dict[str, str]:
    """Work on the demo's cases; give which study shows which stage."""
    one, resident, lead = (_browser(name) for name in ("radiologist", "resident", "radiologist"))
    studies = list(
        Study.objects.filter(site__slug="north", status=Study.Status.ARRIVED)
        .order_by("-study_date", "accession_number")
        .values_list("study_instance_uid", flat=True)
    )
    stages = dict(zip(("own", "others", "preliminary", "final", "addended", "retracted"), studies, strict=False))
    _write(one, stages["own"])
    _write(resident, stages["others"])
    _sign(resident, stages["preliminary"], "preliminary")
    for stage in ("final", "addended", "retracted"):
        _sign(one, stages[stage])
    one.post(f"/reports/{stages['addended']}/start/", {"reason_for": "A rib fracture was overlooked."})
    _finish(one, stages["addended"], findings="Fracture of the seventh rib on the left.")
    one.post(
        f"/reports/{stages['retracted']}/retract/",
        {"ordinal": 1, "reason_for": "Dictated for another patient.", "password": PASSWORD},
    )
    _flag(one, stages["final"])
    talk = {"text": "@resident what do you make of the left base?", "is_consult": "1"}
    one.post(f"/studies/{stages['final']}/discussion/", talk)
    resident.post(f"/studies/{stages['final']}/discussion/", {"text": "Atelectasis, I'd say. @radiologist"})
    teaching = {"title": "The nodule that grew", "diagnosis": "Adenocarcinoma", "level": "resident", **WORDS}
    one.post(f"/studies/{stages['final']}/teach/", teaching)
    lead.post(f"/peer-review/programmes/{Site.objects.get(slug='north').pk}/", {"percent": 100})
    sample()
    _connect(stages["final"])
    stages["arrived"] = studies[len(stages)]
    return stages


def _browser(name: str) -> Client:
    browser = Client(HTTP_HOST=LOCAL, headers={"HX-Request": "true"})
    browser.force_login(User.objects.get(username=name), backend=settings.AUTHENTICATION_BACKENDS[0])
    return browser


def _write(browser: Client, study: str, **words: str) -> None:
    browser.post(f"/reports/{study}/start/")
    browser.post(f"/reports/{study}/save/", {"revision": 0, **(words or WORDS)})


def _sign(browser: Client, study: str, step: str = "sign") -> None:
    _write(browser, study)
    _finish(browser, study, step=step, revision=1)


def _finish(browser: Client, study: str, *, step: str = "sign", revision: int = 0, **words: Any) -> None:
    if words:
        browser.post(f"/reports/{study}/save/", {"revision": revision, **words})
        revision += 1
    seen = re.findall(r'name="accepted" value="([^"]+)"', browser.get(f"/reports/{study}/checks/").content.decode())
    answer = browser.post(f"/reports/{study}/{step}/", {"revision": revision, "password": PASSWORD, "accepted": seen})
    assert answer.status_code < 400, answer.content


def _flag(browser: Client, study: str) -> None:
    referrer = User.objects.get(username="referrer")
    for category, finding in (("1", "Tension pneumothorax"), ("3", "Growing nodule")):
        flag = {"finding": finding, "category": category, "recipient": f"user:{referrer.pk}"}
        browser.post(f"/reports/{study}/critical/", flag)
    late = timezone.now() - timedelta(hours=1)
    CriticalResult.objects.filter(category=1).update(flagged_at=late - timedelta(hours=1), due_at=late)


def _connect(study: str) -> None:
    site = Site.objects.get(slug="north")
    node = Node.objects.create(
        ae_title="WORKSTATION",
        site=site,
        description="Reading room",
        host=LOCAL,
        port=1,
        may_query=True,
        may_receive=True,
    )
    RoutingRule.objects.create(name="Chest CT to the reading room", site=site)
    PrefetchRule.objects.create(name="Priors of what is ordered", site=site)
    principal = principal_of(User.objects.get(username="admin"))
    send_study(study=Study.objects.get(study_instance_uid=study), node=node, principal=principal)
