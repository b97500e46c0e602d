"""A share of signed reports is scored by colleagues who don't know whose they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import Membership, Role, User
from studies.models import Study
from studies.peer_review import services
from studies.peer_review.models import PeerReview, Programme
from studies.reports.models import Report, ReportPart
from tests.factories import make_instance

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
