"""A share of signed reports is scored by colleagues who don't know whose they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import Membership, Notification, Role, User
from studies.models import Study
from studies.peer_review import selectors, services
from studies.peer_review.models import PeerReview, Programme
from studies.reports.models import Report, ReportPart, ReportVersion, Retraction
from tests.factories import make_instance, principal_of

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture
def colleague(people: dict[str, User], north: Any) -> User:
    """Give a second radiologist of north."""
    person = people["southradiologist"]
    Membership.objects.create(user=person, role=Role.objects.get(slug="radiologist"), site=north)
    return person


@pytest.fixture
def signed(north: Any, people: dict[str, User], ingest_files: Any) -> Callable[[int], list[ReportPart]]:
    def sign(count: int) -> list[ReportPart]:
        ingest_files(north, *(make_instance(StudyInstanceUID=f"1.{n}", PatientID=f"P{n}") for n in range(1, count + 1)))
        return [
            ReportPart.objects.create(
                report=Report.objects.create(study=study),
                kind="report",
                ordinal=1,
                author=people["radiologist"],
                signed_by=people["radiologist"],
                signer_name="Ingrid Solberg",
                sections={"findings": "A nodule.", "impression": "Follow up."},
                signed_at=timezone.now(),
            )
            for study in Study.objects.order_by("pk")
        ]

    return sign


def test_a_colleague_scores_without_learning_who_signed(
    north: Any, colleague: User, signed: Any, client_of: Any
) -> None:
    signed(1)
    Programme.objects.create(site=north, percent=100)
    assert services.sample() == 1
    review = PeerReview.objects.get()
    assert review.reviewer == colleague
    reviewer = client_of("southradiologist")
    page = reviewer.get(f"/peer-review/{review.pk}/").content.decode()
    assert "A nodule." in page
    assert "Solberg" not in page
    assert reviewer.post(f"/peer-review/{review.pk}/", {"score": "3b"}).status_code == 422
    assert reviewer.post(f"/peer-review/{review.pk}/", {"score": "3b", "comment": "A second one."}).status_code == 302
    results = client_of("radiologist").get("/peer-review/").content.decode()
    assert "A second one." in results
    assert "Brandt" not in results
    assert "southradiologist" not in results


def test_nobody_reviews_themselves_or_twice(north: Any, people: Any, signed: Any) -> None:
    signed(1)
    Programme.objects.create(site=north, percent=100)
    assert services.sample() == 0, "the only radiologist of the site signed it"


def test_running_again_draws_nothing_more(north: Any, colleague: User, signed: Any) -> None:
    signed(40)
    Programme.objects.create(site=north, percent=30)
    first = services.sample()
    assert 3 <= first <= 24
    assert services.sample() == 0


def test_without_a_programme_nothing_is_drawn(colleague: User, signed: Any) -> None:
    signed(3)
    assert services.sample() == 0


def test_a_review_is_its_reviewers_alone_and_final(north: Any, colleague: User, signed: Any, client_of: Any) -> None:
    signed(1)
    Programme.objects.create(site=north, percent=100)
    services.sample()
    path = f"/peer-review/{PeerReview.objects.get().pk}/"
    assert client_of("radiologist").get(path).status_code == 404
    reviewer = client_of("southradiologist")
    reviewer.post(path, {"score": "1"})
    assert reviewer.post(path, {"score": "3b", "comment": "changed my mind"}).status_code == 422
    assert PeerReview.objects.get().score == "1"


def test_the_lead_sees_how_scores_are_spread_and_sets_the_share(
    north: Any, people: Any, colleague: User, signed: Any, client_of: Any
) -> None:
    signed(1)
    lead = client_of("radiologist")
    lead.post(f"/peer-review/programmes/{north.pk}/", {"percent": "100"})
    services.sample()
    assert PeerReview.objects.count() == 1
    page = lead.get("/peer-review/figures/").content.decode()
    assert "North Hospital" in page
    assert client_of("resident").get("/peer-review/figures/").status_code == 403


def scored(signed: Any, north: Any, client_of: Any, score: str = "3b") -> PeerReview:
    """Give the review of a report that radiologist signed and a colleague scored."""
    signed(1)
    Programme.objects.create(site=north, percent=100)
    services.sample()
    review = PeerReview.objects.get()
    answer = client_of("southradiologist").post(f"/peer-review/{review.pk}/", {"score": score, "comment": "A second."})
    assert answer.status_code == 302
    return review


@pytest.fixture
def other_lead(people: dict[str, User], north: Any) -> User:
    """Make resident's account another lead radiologist of north."""
    for slug in ("radiologist", "lead_radiologist"):
        Membership.objects.create(user=people["resident"], role=Role.objects.get(slug=slug), site=north)
    return people["resident"]


def test_a_discrepancy_is_answered_by_its_signer_and_concluded_by_a_lead(
    north: Any, colleague: User, other_lead: User, signed: Any, client_of: Any
) -> None:
    signed(1)
    review = PeerReview.objects.create(part=ReportPart.objects.get(), site=north, reviewer=colleague, modality="CT")
    client_of("southradiologist").post(f"/peer-review/{review.pk}/", {"score": "3b", "comment": "A second one."})
    path = f"/peer-review/{review.pk}/result/"
    told = dict(Notification.objects.values_list("user__username", "url"))
    assert told == {"radiologist": path, "resident": path}
    signer, lead = client_of("radiologist"), client_of("resident")
    assert "Discrepancies" in lead.get("/peer-review/figures/").content.decode()
    assert signer.post(path, {"answer": "It was hidden\x00 by the rib."}).status_code == 302
    shown = lead.get(path).content.decode()
    assert "It was hidden by the rib." in shown
    assert "Brandt" not in shown
    assert lead.post(path, {"score": "2b", "conclusion": ""}).status_code == 422
    assert lead.post(path, {"score": "2b", "conclusion": "Shown at the next conference."}).status_code == 302
    shown = signer.get(path).content.decode()
    assert "Shown at the next conference." in shown
    assert "review-answer" not in shown, "what is concluded is answered no more"
    assert Notification.objects.filter(user__username="radiologist", key__startswith="peer-review-concluded").exists()
    assert not Notification.objects.filter(user__username="resident", read_at=None).exists()
    (row,) = selectors.figures(principal_of(other_lead))
    assert (row["score_2b"], row["score_3b"]) == (1, 0), "the score that stands is counted"


def test_nobody_concludes_on_their_own_report_and_strangers_see_no_result(
    north: Any, colleague: User, signed: Any, client_of: Any
) -> None:
    review = scored(signed, north, client_of)
    path = f"/peer-review/{review.pk}/result/"
    assert client_of("radiologist").post(path, {"score": "1", "conclusion": "All is well."}).status_code == 422
    for person, status in (("southradiologist", 404), ("resident", 403), ("referrer", 403)):
        assert client_of(person).get(path).status_code == status, person
    review.refresh_from_db()
    assert review.concluded_at is None


def test_who_had_a_hand_in_a_report_doesnt_score_it(north: Any, colleague: User, signed: Any) -> None:
    (part,) = signed(1)
    now = timezone.now()
    ReportVersion.objects.create(
        report=part.report,
        ordinal=1,
        part_kind="report",
        kind="preliminary",
        revision=1,
        author=colleague,
        began_at=now,
        saved_at=now,
    )
    Programme.objects.create(site=north, percent=100)
    assert services.sample() == 0


def test_what_was_retracted_is_not_drawn(north: Any, people: Any, colleague: User, signed: Any) -> None:
    (part,) = signed(1)
    Retraction.objects.create(
        part=part, reason="Another's.", retracted_at=timezone.now(), retracted_by=people["radiologist"]
    )
    Programme.objects.create(site=north, percent=100)
    assert services.sample() == 0


def test_a_site_where_nobody_can_score_says_so(north: Any, people: Any, client_of: Any) -> None:
    assert "Nobody can score here yet" in client_of("radiologist").get("/peer-review/figures/").content.decode()
