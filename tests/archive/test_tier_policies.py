"""What goes to the cold tier by itself, what stays, what brings it back, and what people see of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pydicom.uid import generate_uid

from accounts.capabilities import Capability
from accounts.models import Role, Site, User
from accounts.services import create_user
from portal.audit.models import AuditEvent
from portal.audit.services import record_viewing
from studies import events
from studies.archive import recalls, tier_policies, tiers
from studies.archive.errors import MoveRefused, NotAuthorised
from studies.archive.models import TierMove, TierPolicy
from studies.models import DomainEvent, Instance, Study
from studies.orders.models import Order
from studies.orders.patients import PatientIdentity
from studies.orders.services import OrderDetails, place_order
from studies.sharing.models import Comment
from studies.trail import subject_of
from tests.archive.tiered import COLD, HOT, cold_tier, lies, move
from tests.factories import PASSWORD, make_instance, principal_of

pytestmark = [pytest.mark.django_db, pytest.mark.database]
ClientOf = Callable[[str], Client]


@pytest.fixture(autouse=True)
def _cold(settings: LazySettings, tmp_path: Path) -> Iterator[None]:
    with cold_tier(settings, "file", tmp_path):
        yield


@pytest.fixture
def admin(people: dict[str, User]) -> Any:
    return principal_of(people["admin"])


@pytest.fixture
def old(north: Site, ingest_files: Any) -> Callable[..., Study]:
    """Give a study that came long ago."""

    def make(site: Site = north, *, days: int = 100, **keywords: Any) -> Study:
        uid = generate_uid()
        ingest_files(site, make_instance(**{"StudyInstanceUID": uid, "AccessionNumber": "", **keywords}))
        at = timezone.now() - timedelta(days=days)
        Study.objects.filter(study_instance_uid=uid).update(
            received_at=at, updated_at=at, used_at=at, unsettled_since=None
        )
        events.deliver_due()
        Study.objects.filter(study_instance_uid=uid).update(updated_at=at)
        return Study.objects.get(study_instance_uid=uid)

    return make


def wanted() -> set[int]:
    return set(TierMove.objects.filter(status="queued", tier=COLD).values_list("study_id", flat=True))


def test_nothing_goes_by_itself_until_a_policy_says_so(old: Any, north: Site, admin: Any) -> None:
    study = old()
    assert tier_policies.propose_moves() == 0
    tier_policies.set_policy(site=north, days=101, principal=admin)
    assert tier_policies.propose_moves() == 0
    tier_policies.set_policy(site=north, days=99, principal=admin)
    assert tier_policies.propose_moves() == 1
    assert wanted() == {study.pk}
    assert tier_policies.propose_moves() == 0, "asked for already"


def test_a_site_goes_by_the_installations_policy_until_it_decides_itself(
    old: Any, north: Site, south: Site, admin: Any
) -> None:
    ours, theirs = old(north), old(south)
    tier_policies.set_policy(site=None, days=30, principal=admin)
    tier_policies.set_policy(site=south, days=None, principal=admin)
    tier_policies.propose_moves()
    assert wanted() == {ours.pk}
    tier_policies.set_policy(site=south, days=None, is_own=False, principal=admin)
    tier_policies.propose_moves()
    assert wanted() == {ours.pk, theirs.pk}
    assert AuditEvent.objects.filter(details__what="tier policy").count() == 3


def test_what_was_looked_at_or_grew_since_stays(old: Any, north: Site, admin: Any, ingest_files: Any) -> None:
    seen, grown = old(), old()
    record_viewing(AuditEvent.Action.VIEW, principal=admin, **subject_of(seen), details={"page": "study"})
    ingest_files(north, make_instance(StudyInstanceUID=grown.study_instance_uid))
    unseen = old()
    tier_policies.set_policy(site=north, days=30, principal=admin)
    tier_policies.propose_moves()
    assert wanted() == {unseen.pk}
    assert Study.objects.get(pk=seen.pk).used_at > timezone.now() - timedelta(minutes=1), "not looked at again today"


def test_what_is_at_work_stays(old: Any, north: Site, admin: Any, people: dict[str, User]) -> None:
    studies = {name: old() for name in ("reading", "acquiring", "claimed", "ordered", "consult", "free")}
    at = timezone.now() - timedelta(days=100)
    Study.objects.filter(pk=studies["reading"].pk).update(status="in_reading")
    Study.objects.filter(pk=studies["acquiring"].pk).update(status="acquiring")
    Study.objects.filter(pk=studies["claimed"].pk).update(claimed_until=timezone.now() + timedelta(minutes=5))
    order = place_order(
        site=north,
        patient=PatientIdentity("P9", "Roe^Jane"),
        details=OrderDetails("CT", "CT", timezone.now()),
        principal=admin,
    )
    Order.objects.filter(pk=order.pk).update(study=studies["ordered"].pk)
    Comment.objects.create(study=studies["consult"], author=people["radiologist"], kind="consult", text="?")
    Study.objects.update(updated_at=at)
    tier_policies.set_policy(site=north, days=30, principal=admin)
    tier_policies.propose_moves()
    assert wanted() == {studies["free"].pk}
    for name, study in studies.items():
        if name != "free":
            with pytest.raises(MoveRefused):
                tiers.to_cold(study)
    assert tier_policies.propose_moves() == 0
    Study.objects.filter(pk=studies["reading"].pk).update(status="final")
    tier_policies.propose_moves(now=timezone.now() + timedelta(days=2))
    assert studies["reading"].pk in wanted()


def test_what_can_not_be_moved_is_not_asked_for_again_and_lets_others_pass(
    old: Any, north: Site, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, whole = old(days=200), old()
    TierMove.objects.create(study=broken, tier=COLD, status="failed", origin="policy", due_at=timezone.now())
    monkeypatch.setattr(tier_policies, "MOST_LOOKED_AT", 1)
    tier_policies.set_policy(site=north, days=30, principal=admin)
    assert [tier_policies.propose_moves() for _ in range(3)] == [0, 1, 0]
    assert wanted() == {whole.pk}


def test_a_run_asks_for_no_more_than_may_wait(
    old: Any, north: Site, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        old()
    monkeypatch.setattr(tier_policies, "MOST_WAITING", 3)
    tier_policies.set_policy(site=north, days=30, principal=admin)
    assert [tier_policies.propose_moves() for _ in range(2)] == [3, 0]


def test_policies_are_for_who_manages_the_sites_storage(
    old: Any, north: Site, south: Site, people: dict[str, User]
) -> None:
    role = Role.objects.create(slug="keeper", name="Keeper", capabilities=[Capability.STORAGE_MANAGE.value])
    keeper = principal_of(create_user(username="keeper", password=PASSWORD, role=role, sites=[north]))
    tier_policies.set_policy(site=north, days=30, principal=keeper)
    for site in (south, None):
        with pytest.raises(NotAuthorised):
            tier_policies.set_policy(site=site, days=30, principal=keeper)
    for days in (0, 10**6):
        with pytest.raises(ValueError, match=str(days)):
            tier_policies.set_policy(site=north, days=days, principal=keeper)
    browser = Client()
    browser.force_login(
        User.objects.get(username="keeper"), backend="allauth.account.auth_backends.AuthenticationBackend"
    )
    page = browser.get(reverse("storage")).content.decode()
    assert "North Hospital" in page
    assert "South Hospital" not in page
    assert "sites that have decided nothing" not in page
    # Who keeps the storage needn't see patients.
    study = old(PatientName="Secret^Sam", PatientID="S1")
    move(study, COLD)
    page = browser.get(reverse("storage")).content.decode()
    assert study.study_instance_uid in page
    assert "SECRET" not in page


def test_opening_or_retrieving_brings_a_study_back_and_is_served_meanwhile(old: Any, client_of: ClientOf) -> None:
    study = old()
    browser = client_of("radiologist")
    instance = Instance.objects.select_related("series").get()
    address = (
        f"/dicom-web/studies/{study.study_instance_uid}/series/{instance.series.series_instance_uid}"
        f"/instances/{instance.sop_instance_uid}/frames/1"
    )
    headers = {"Accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=*'}

    def pixels() -> bytes:
        answer = browser.get(address, headers=headers)
        assert answer.status_code == 200
        return answer.getvalue().split(b"\r\n\r\n", 1)[1][:8192]

    frame = pixels()
    move(study, COLD)
    assert pixels() == frame
    for _ in range(3):
        browser.get(address, headers=headers)
    assert DomainEvent.objects.filter(name="study.wanted").count() == 1, "told once"
    events.deliver_due()
    assert TierMove.objects.get(status="queued").origin == "wanted"
    assert pixels() == frame
    tiers.work_off()
    assert lies() == {"hot"}
    assert pixels() == frame
    assert not tier_policies.propose_moves()


def test_a_hot_study_is_never_said_to_be_wanted(old: Any, client_of: ClientOf) -> None:
    study = old()
    client_of("radiologist").get(f"/dicom-web/studies/{study.study_instance_uid}/metadata")
    assert not DomainEvent.objects.filter(name="study.wanted").exists()


def test_wanted_while_it_still_goes_is_asked_for_again_later(old: Any) -> None:
    study = old()
    tiers.to_cold(study)
    TierMove.objects.update(status="running", attempts=1, lease="elsewhere:1:x", leased_until=timezone.now())
    Study.objects.update(tier=COLD)
    study.refresh_from_db()
    recalls.want(study)
    events.deliver_due()
    event = DomainEvent.objects.get(name="study.wanted")
    assert (event.delivered_at, event.last_error) == (None, "MoveUnderWay")
    tiers.work_off()
    DomainEvent.objects.update(due_at=timezone.now())
    events.deliver_due()
    tiers.work_off()
    assert lies() == {"hot"}


def test_searches_tell_nearline_and_find_by_it(old: Any, client_of: ClientOf) -> None:
    study, other = old(), old()
    move(study, COLD)
    browser = client_of("radiologist")

    def found(level: str, **keys: str) -> dict[str, str]:
        answer = browser.get(f"/dicom-web/{level}", keys)
        content = answer.json() if answer.status_code == 200 else []
        return {one["0020000D"]["Value"][0]: one["00080056"]["Value"][0] for one in content}

    both = {study.study_instance_uid: "NEARLINE", other.study_instance_uid: "ONLINE"}
    assert found("studies") == both
    assert found("instances") == both
    assert found("studies", InstanceAvailability="NEARLINE") == {study.study_instance_uid: "NEARLINE"}
    assert found("studies", InstanceAvailability="ONLINE") == {other.study_instance_uid: "ONLINE"}
    assert found("studies", InstanceAvailability="OFFLINE") == {}
    api = browser.get(f"/api/v1/studies/{study.study_instance_uid}/").json()
    assert api["tier"] == "cold"


def test_a_study_is_moved_from_its_page_and_shows_its_tier(old: Any, client_of: ClientOf) -> None:
    study = old()
    page, action = (
        reverse("study", args=[study.study_instance_uid]),
        reverse("move_study", args=[study.study_instance_uid]),
    )
    browser = client_of("admin")
    assert "Move to cold" in browser.get(page).content.decode()
    browser.post(action, {"tier": "cold"})
    assert "moving to the cold tier" in browser.get(page).content.decode()
    tiers.work_off()
    shown = browser.get(page).content.decode()
    assert "Bring back" in shown
    assert "Cold tier" in shown
    reader = client_of("radiologist").get(page).content.decode()
    assert "Cold tier" in reader
    assert "Bring back" not in reader
    assert "Cold tier" in client_of("radiologist").get(reverse("worklist")).content.decode()
    for name in ("radiologist", "technologist"):
        assert client_of(name).post(action, {"tier": "hot"}).status_code == 403
    browser.post(action, {"tier": "hot"})
    tiers.work_off()
    assert Study.objects.get().tier == HOT


def test_the_storage_page_shows_figures_moves_and_failures_and_takes_policies(
    old: Any, north: Site, client_of: ClientOf
) -> None:
    study, other = old(), old(PatientName="Failed^Fay", PatientID="F1")
    move(study, COLD)
    failed = TierMove.objects.create(
        study=other, tier=COLD, status="failed", origin="policy", error="There's no room.", due_at=timezone.now()
    )
    tier_policies.count_tiers()
    browser = client_of("admin")
    shown = browser.get(reverse("storage")).content.decode()
    assert "FAILED, Fay" in shown
    assert "There&#x27;s no room." in shown
    assert "DOE, Jane" in shown
    figures = {(f.tier): (f.studies, f.instances, f.bytes) for f in north.tier_figures.all()}
    size = Instance.objects.get(series__study=study).object_length
    assert figures["cold"] == (1, 1, size)
    assert figures["hot"][:2] == (1, 1)
    browser.post(reverse("save_tier_policy"), {"site": north.pk, "mode": "days", "days": "90"})
    assert TierPolicy.objects.get().cold_after_days == 90
    assert 'value="90"' in browser.get(reverse("storage")).content.decode()
    wrong = browser.post(reverse("save_tier_policy"), {"site": north.pk, "mode": "days", "days": "x"}, follow=True)
    assert "Give a number of days" in wrong.content.decode()
    assert TierPolicy.objects.get().cold_after_days == 90
    browser.post(reverse("save_tier_policy"), {"site": north.pk, "mode": "installation"})
    assert not TierPolicy.objects.exists()
    browser.post(reverse("run_tier_move_again", args=[failed.pk]))
    tiers.work_off()
    failed.refresh_from_db()
    assert failed.status == "done"
    assert "FAILED, Fay" in browser.get(reverse("storage"), headers={"HX-Request": "true"}).content.decode()


def test_without_a_cold_tier_the_page_says_so_and_the_study_page_shows_none(
    old: Any, client_of: ClientOf, settings: LazySettings
) -> None:
    study = old()
    settings.STORAGES = {name: options for name, options in settings.STORAGES.items() if name != "cold"}
    assert "ATRIUM_COLD_STORAGE_URL" in client_of("admin").get(reverse("storage")).content.decode()
    shown = client_of("admin").get(reverse("study", args=[study.study_instance_uid])).content.decode()
    assert "Storage tier" not in shown
    assert tier_policies.propose_moves() == 0


def test_health_and_figures_know_the_cold_tier(old: Any, client_of: ClientOf, tmp_path: Path) -> None:
    move(old(), COLD)
    old()
    tier_policies.count_tiers()
    browser = client_of("admin")
    figures = browser.get("/metrics").content.decode()
    assert 'atrium_tier_studies{site="north",tier="cold"} 1.0' in figures
    assert 'atrium_tier_moves{status="done"} 1.0' in figures
    assert "atrium_cold_tier_up 1.0" in figures
    assert "Cold tier" in browser.get("/health/").content.decode()
    (tmp_path / "cold").rename(tmp_path / "away")
    assert "atrium_cold_tier_up 0.0" in browser.get("/metrics").content.decode()
    assert any("cold tier" in text for text in browser.get("/readyz").json()["warnings"])
    assert browser.get("/readyz").status_code == 200, "what is hot is served all the same"


def test_cold_studies_without_a_cold_tier_are_warned_of(old: Any, client_of: ClientOf, settings: LazySettings) -> None:
    move(old(), COLD)
    settings.STORAGES = {name: options for name, options in settings.STORAGES.items() if name != "cold"}
    assert any("none is configured" in text for text in client_of("admin").get("/readyz").json()["warnings"])
