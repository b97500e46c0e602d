"""Who is told of which workitems (PS3.4 CC.2.3), and whose deletion lock keeps one that is done."""

from __future__ import annotations

import logging
import re

from django.db import transaction

from accounts.capabilities import Capability
from accounts.models import Site
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.workitems.errors import InappropriateAction, InvalidWorkitem, NoSuchWorkitem, NotAuthorised, NotSubscribed
from studies.workitems.matching import condition
from studies.workitems.models import Subscription, Workitem
from studies.workitems.reports import report_state

logger = logging.getLogger("atrium.workitems")
_AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")


@transaction.atomic
def subscribe(*, workitem: Workitem, ae_title: str, principal: Principal, deletion_lock: bool = False) -> None:
    """Tell the AE of everything that happens to a workitem, its present state first; again changes the lock only.

    Raises NotAuthorised, InvalidWorkitem for what is no AE title, NoSuchWorkitem when it has just been removed.
    """
    _check(principal, workitem.site_id, ae_title)
    # Retention waits for us and sees the lock, or we for it and find nothing.
    if Workitem.objects.select_for_update().filter(pk=workitem.pk).first() is None:
        raise NoSuchWorkitem
    _, is_new = Subscription.objects.update_or_create(
        workitem=workitem, ae_title=ae_title, defaults={"site_id": workitem.site_id, "deletion_lock": deletion_lock}
    )
    if is_new:
        report_state(workitem, only=ae_title)
    _record("workitem subscription", workitem.site_id, ae_title, principal, workitem)


@transaction.atomic
def subscribe_globally(
    *, site: Site, ae_title: str, principal: Principal, keys: dict[str, str], deletion_lock: bool = False
) -> None:
    """Tell the AE of all workitems that the keys match, those that are there and those to come.

    Raises NotAuthorised, InvalidWorkitem for what is no AE title or can't be matched.
    """
    _check(principal, site.pk, ae_title)
    meets = condition(keys)
    Subscription.objects.update_or_create(
        site=site, ae_title=ae_title, workitem=None, defaults={"filter": keys, "deletion_lock": deletion_lock}
    )
    present = Workitem.objects.filter(meets, site=site).exclude(subscriptions__ae_title=ae_title).order_by("pk")
    for workitem in present.iterator(chunk_size=500):
        Subscription.objects.create(site=site, ae_title=ae_title, workitem=workitem, deletion_lock=deletion_lock)
        if not workitem.is_final:
            report_state(workitem, only=ae_title)
    _record("workitem subscription", site.pk, ae_title, principal)


@transaction.atomic
def unsubscribe(*, workitem: Workitem, ae_title: str, principal: Principal) -> None:
    """Tell the AE no more of a workitem. Raises NotAuthorised, NotSubscribed."""
    _check(principal, workitem.site_id, ae_title)
    if not Subscription.objects.filter(workitem=workitem, ae_title=ae_title).delete()[0]:
        raise NotSubscribed
    _record("workitem subscription ended", workitem.site_id, ae_title, principal, workitem)


@transaction.atomic
def unsubscribe_globally(*, site: Site, ae_title: str, principal: Principal) -> None:
    """Tell the AE no more of any workitem of the site. Raises NotAuthorised, NotSubscribed."""
    _check(principal, site.pk, ae_title)
    if not Subscription.objects.filter(site=site, ae_title=ae_title).delete()[0]:
        raise NotSubscribed
    _record("workitem subscription ended", site.pk, ae_title, principal)


@transaction.atomic
def suspend_globally(*, site: Site, ae_title: str, principal: Principal) -> None:
    """Stop subscribing the AE to workitems to come; of those it's subscribed to it's told on.

    Raises NotAuthorised, InappropriateAction without a global subscription.
    """
    _check(principal, site.pk, ae_title)
    if not Subscription.objects.filter(site=site, ae_title=ae_title, workitem=None).delete()[0]:
        raise InappropriateAction("There is no global subscription to suspend.")
    _record("workitem subscription suspended", site.pk, ae_title, principal)


def subscribe_to_new(workitem: Workitem) -> None:
    """Subscribe to a new workitem whoever subscribed globally, as their filters say; in the caller's transaction."""
    for wanted in Subscription.objects.filter(site_id=workitem.site_id, workitem=None).order_by("pk"):
        try:
            meets = condition(wanted.filter)
        except InvalidWorkitem:
            # Taken when less was looked at: who makes a workitem isn't to blame.
            logger.warning("the filter of subscription %s can't be matched", wanted.pk)
            continue
        if Workitem.objects.filter(meets, pk=workitem.pk).exists():
            Subscription.objects.create(
                site_id=workitem.site_id,
                ae_title=wanted.ae_title,
                workitem=workitem,
                deletion_lock=wanted.deletion_lock,
            )


def _check(principal: Principal, site_id: int, ae_title: str) -> None:
    if not principal.may(Capability.WORKITEM_VIEW, site_id):
        raise NotAuthorised
    if not _AE_TITLE.fullmatch(ae_title):
        raise InvalidWorkitem("That is no AE title.")


def _record(what: str, site_id: int, ae_title: str, principal: Principal, workitem: Workitem | None = None) -> None:
    record(
        AuditEvent.Action.CHANGE,
        principal=principal,
        site_id=site_id,
        details={"what": what, "subscriber": ae_title, "workitem": workitem.sop_instance_uid if workitem else "all"},
    )
