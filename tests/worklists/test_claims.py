"""Who has a case open to write it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from portal.audit.models import AuditEvent
from studies import reading
from studies.errors import ClaimHeldByOther, NotAllowed
from studies.models import DomainEvent, Study
from tests.factories import principal_of
from tests.worklists.test_worklist import make_study

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def test_the_second_reader_is_told_who_holds_the_case(north: Any, people: Any) -> None:
    study = make_study(north, 1)
    reading.claim_study(study=study, principal=principal_of(people["radiologist"]))
    with pytest.raises(ClaimHeldByOther) as refused:
        reading.claim_study(study=study, principal=principal_of(people["resident"]))
    assert refused.value.holder == people["radiologist"]
    claim = reading.claim_of(study)
    assert claim is not None
    assert claim.holder == people["radiologist"]


def test_a_lapsed_claim_is_nobodys(north: Any, people: Any) -> None:
    study = make_study(north, 1)
    reading.claim_study(study=study, principal=principal_of(people["radiologist"]))
    Study.objects.update(claimed_until=timezone.now() - timedelta(seconds=1))
    assert reading.claim_of(study) is None
    claim = reading.claim_study(study=study, principal=principal_of(people["resident"]))
    assert claim.holder == people["resident"]


def test_renewing_moves_the_end_and_leaves_no_second_trace(north: Any, people: Any) -> None:
    study = make_study(north, 1)
    first = reading.claim_study(study=study, principal=principal_of(people["radiologist"]))
    second = reading.claim_study(study=study, principal=principal_of(people["radiologist"]))
    assert second.until > first.until
    assert AuditEvent.objects.filter(details__what="case claimed").count() == 1
    assert DomainEvent.objects.filter(name="study.changed").count() == 1


def test_taking_over_is_traced_and_releasing_frees(north: Any, people: Any) -> None:
    study = make_study(north, 1)
    reading.claim_study(study=study, principal=principal_of(people["radiologist"]))
    reading.claim_study(study=study, principal=principal_of(people["resident"]), take_over=True)
    assert AuditEvent.objects.get(details__what="case taken over").username == "resident"
    reading.release_study(study=study, principal=principal_of(people["radiologist"]))
    assert reading.claim_of(study) is not None, "only the holder can give it back"
    reading.release_study(study=study, principal=principal_of(people["resident"]))
    assert reading.claim_of(study) is None


def test_only_writers_of_the_site_claim(north: Any, people: Any) -> None:
    study = make_study(north, 1)
    for name in ("southradiologist", "technologist", "referrer"):
        with pytest.raises(NotAllowed):
            reading.claim_study(study=study, principal=principal_of(people[name]))


def test_cases_are_assigned_by_leads_and_taken_by_readers(north: Any, people: Any) -> None:
    study = make_study(north, 1)
    with pytest.raises(NotAllowed):
        reading.assign_study(study=study, reader=people["radiologist"], principal=principal_of(people["resident"]))
    reading.assign_study(study=study, reader=people["resident"], principal=principal_of(people["resident"]))
    reading.assign_study(study=study, reader=people["radiologist"], principal=principal_of(people["admin"]))
    study.refresh_from_db()
    assert study.assigned_to == people["radiologist"]
    assert [e.details["to"] for e in AuditEvent.objects.filter(details__what="case assigned").order_by("pk")] == [
        "resident",
        "radiologist",
    ]


def test_priority_is_changed_by_those_who_may(north: Any, people: Any) -> None:
    study = make_study(north, 1)
    with pytest.raises(NotAllowed):
        reading.set_priority(study=study, priority="STAT", principal=principal_of(people["resident"]))
    reading.set_priority(study=study, priority="STAT", principal=principal_of(people["technologist"]))
    study.refresh_from_db()
    assert study.priority == "STAT"
