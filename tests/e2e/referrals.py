"""What a referring clinician finds: results of one patient from two sites, signed at the desk, one of them critical."""

from __future__ import annotations

import re

import imagecodecs
import numpy as np
from django.conf import settings
from django.test import Client

from accounts.models import Role, Site, User
from accounts.services import grant_role
from studies.findings.models import ImageFinding
from studies.models import Instance, ReferringPhysician, Study
from studies.person_names import searchable
from tests.factories import PASSWORD, REFERRER, ingest_as, make_instance, principal_of

LOCAL = "127.0.0.1"
# Study UID: site, day, name, impression; the newest is signed first.
RESULTS = {
    "1.2.1": ("north", "20260801", "Ekman^Saga", "Pulmonary embolism, both lower lobes."),
    "1.2.2": ("south", "20250301", "Ekman^Saga", "Healed fracture of the fifth rib."),
    "1.2.3": ("north", "20260901", "Falk^Nils", "No abnormality."),
}
CRITICAL = "1.2.1"


def install() -> None:
    """Put the studies into the archive and sign their reports as a radiologist does."""
    sites = {site.slug: site for site in Site.objects.all()}
    users = {user.username: user for user in User.objects.all()}
    grant_role(user=users["referrer"], role=Role.objects.get(slug="referrer"), sites=[sites["south"]])
    ReferringPhysician.objects.create(
        site=sites["south"], name=REFERRER, name_search=searchable(REFERRER), user=users["referrer"]
    )
    reader = Client(HTTP_HOST=LOCAL)
    reader.force_login(users["radiologist"], backend=settings.AUTHENTICATION_BACKENDS[0])
    for uid, (site, day, name, impression) in RESULTS.items():
        file = make_instance(
            StudyInstanceUID=uid, StudyDate=day, PatientName=name, PatientID=name[:4], AccessionNumber=uid
        )
        ingest_as(principal_of(users["admin"]), sites[site], [file])
        reader.post(f"/reports/{uid}/start/")
        if uid == CRITICAL:
            _mark_key_image(uid, users["radiologist"])
            flag = {"finding": "Embolism", "category": "1", "recipient": f"user:{users['referrer'].pk}"}
            reader.post(f"/reports/{uid}/critical/", flag, headers={"HX-Request": "true"})
        reader.post(f"/reports/{uid}/save/", {"revision": 0, "findings": "As said below.", "impression": impression})
        seen = re.findall(r'name="accepted" value="([^"]+)"', reader.get(f"/reports/{uid}/checks/").content.decode())
        answer = reader.post(f"/reports/{uid}/sign/", {"revision": 1, "password": PASSWORD, "accepted": seen})
        assert Study.objects.get(study_instance_uid=uid).status == Study.Status.FINAL, answer.content


def _mark_key_image(uid: str, author: User) -> None:
    picture = imagecodecs.jpeg8_encode((np.arange(64 * 64) % 256).astype(np.uint8).reshape(64, 64))
    instance = Instance.objects.get(series__study__study_instance_uid=uid)
    ImageFinding.objects.create(
        study=instance.series.study,
        kind=ImageFinding.Kind.KEY_IMAGE,
        author=author,
        tracking_identifier="1.2.9",
        sop_instance_uid=instance.sop_instance_uid,
        series_instance_uid=instance.series.series_instance_uid,
        picture=picture,
    )
