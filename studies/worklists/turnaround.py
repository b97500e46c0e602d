"""By when cases are to be read: targets, clocks, and the word that one is late."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlencode

from django.db import transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext

from accounts.capabilities import Capability
from accounts.notifications import notify
from studies import events
from studies.models import Priority, Study
from studies.reading import OPEN_STATUSES, UNFINISHED_STATUSES
from studies.worklists.models import CaseClock, TurnaroundTarget
from studies.worklists.selectors import holders_at

# Where a site has set none.
DEFAULT_MINUTES = {
    Priority.STAT: 60,
    Priority.HIGH: 4 * 60,
    Priority.MEDIUM: 12 * 60,
    Priority.ROUTINE: 24 * 60,
    Priority.LOW: 72 * 60,
}
# From this part of the time on, a clock warns.
WARNS_AT = 0.75
BATCH = 200


def minutes_for(study: Study) -> int:
    """Give the narrowest target that fits: the site's for priority and modality, the site's for priority, ours."""
    targets = dict(
        TurnaroundTarget.objects.filter(site=study.site_id, priority=study.priority).values_list("modality", "minutes")
    )
    fitting = [targets[m] for m in study.modalities if m in targets]
    if fitting:
        return int(min(fitting))
    return int(targets.get("", DEFAULT_MINUTES[Priority(study.priority)]))


@transaction.atomic
def set_clock(*, study_id: int) -> None:
    """Set or correct the clock of an open case; one that became due later may be told as late once more."""
    study = Study.objects.filter(pk=study_id, status__in=UNFINISHED_STATUSES).first()
    if study is None:
        return
    due_at = study.received_at + timedelta(minutes=minutes_for(study))
    clock = CaseClock.objects.filter(study=study).first()
    if clock is None:
        CaseClock.objects.bulk_create(
            [CaseClock(study=study, due_at=due_at)],
            update_conflicts=True,
            unique_fields=["study"],
            update_fields=["due_at"],
        )
    elif clock.due_at != due_at:
        CaseClock.objects.filter(pk=clock.pk).update(due_at=due_at, escalated_at=None)
        # Lists followed the other priority before the clock did.
        events.emit("study.changed", study=study_id)


def escalate_overdue() -> int:
    """Say of each open case that has become late that it is (``case.overdue``), once; give how many."""
    now = timezone.now()
    late = CaseClock.objects.filter(escalated_at__isnull=True, due_at__lte=now)
    told = 0
    for clock in late.select_related("study").order_by("due_at")[:BATCH]:
        with transaction.atomic():
            if not CaseClock.objects.filter(pk=clock.pk, escalated_at__isnull=True).update(escalated_at=now):
                continue
            if clock.study.status in OPEN_STATUSES:
                events.emit("case.overdue", study=clock.study_id)
                events.emit("study.changed", study=clock.study_id)
                told += 1
    return told


def tell_of_late_case(*, study_id: int) -> None:
    """Tell the case's reader that it's late, and of an urgent one the site's leads, too.

    Of others that are nobody's the leads are told once an hour, however many there are: a bell that rings for each is
    heard no more.
    """
    study = Study.objects.select_related("assigned_to", "site").filter(pk=study_id, status__in=OPEN_STATUSES).first()
    if study is None:
        return
    is_urgent = study.priority in {Priority.STAT, Priority.HIGH}
    leads = holders_at([study.site_id], Capability.CASE_ASSIGN)
    if not is_urgent and study.assigned_to is None:
        notify(
            leads,
            key=f"overdue:site{study.site_id}:{timezone.now():%Y%m%d%H}",
            text=gettext("Cases that nobody has are overdue at %(site)s") % {"site": study.site.name},
            url=f"{reverse('worklist')}?{urlencode({'late': 'on', 'assigned': 'nobody', 'site': study.site.slug})}",
        )
        return
    people = {study.assigned_to} if study.assigned_to is not None else set()
    notify(
        people | set(leads) if is_urgent else people,
        key=f"overdue:{study.pk}:{study.priority}",
        text=gettext("A case is overdue: %(modality)s, %(priority)s")
        % {"modality": ", ".join(study.modalities) or "—", "priority": study.get_priority_display()},
        url=reverse("study", kwargs={"study_instance_uid": study.study_instance_uid}),
        is_urgent=is_urgent,
        by_email=is_urgent,
    )
