"""Report templates and macros: which fit a study, and every write on them."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet

from accounts.capabilities import Capability
from accounts.models import Site, User
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.models import Study
from studies.orders.models import Order
from studies.reports.errors import NoSuchTemplate, NotAllowed
from studies.reports.models import Macro, ReportTemplate, Spelling
from studies.reports.outline import GENERIC, Outline

BUILT_IN = Path(__file__).parent / "built_in"
TRIGGER = re.compile(r"[a-z0-9_äöüßæøåéèêçñ-]{1,40}")
# What a match is worth: a procedure's code says more than words of a description.
_BY_CODE, _BY_BODY_PART, _BY_KEYWORD, _BY_MODALITY = 100, 20, 20, 5


def templates_of(principal: Principal) -> QuerySet[ReportTemplate]:
    """Give the current templates that the principal may write with or manage: shared, their sites' and their own."""
    visible = Q(owner=None, site=None)
    if principal.user is not None:
        visible |= Q(owner=principal.user)
    sites = principal.sites_with(Capability.REPORT_WRITE)
    managed = principal.sites_with(Capability.REPORT_TEMPLATE_MANAGE)
    if sites is None or managed is None:
        visible |= Q(owner=None)
    else:
        visible |= Q(owner=None, site_id__in=sorted(sites | managed))
    return ReportTemplate.objects.filter(visible, is_current=True).select_related("site", "owner").order_by("name")


def templates_for(study: Study, principal: Principal) -> QuerySet[ReportTemplate]:
    """Give the templates with which the principal may report the study."""
    return templates_of(principal).filter(Q(site=None) | Q(site=study.site_id))


def template_for(study: Study, principal: Principal) -> ReportTemplate | None:
    """Give the template that fits the study and its order best; one's own before the site's before the shared."""
    orders = list(Order.objects.filter(study=study))
    codes = {(o.requested_procedure_code.get("scheme"), o.requested_procedure_code.get("value")) for o in orders}
    words = " ".join([study.study_description, *(o.requested_procedure_description for o in orders)]).casefold()
    body_parts = set(filter(None, study.body_part_examined.upper().split("\\")))
    best: tuple[int, int, int] | None = None
    chosen = None
    for template in templates_for(study, principal):
        score = _score(template, set(study.modalities), body_parts, codes, words)
        if score is None:
            continue
        rank = (score, 2 if template.owner_id else 1 if template.site_id else 0, template.pk)
        if best is None or rank > best:
            best, chosen = rank, template
    return chosen


def _score(
    template: ReportTemplate, modalities: set[str], body_parts: set[str], codes: set[tuple[Any, Any]], words: str
) -> int | None:
    """Give how well a template fits; None when it doesn't.

    One that names no study is chosen by hand only: what it begins with would stand in reports of anything.
    """
    if not (
        template.slug or template.modalities or template.procedure_codes or template.body_parts or template.keywords
    ):
        return None
    score = 0
    if template.modalities:
        if not modalities & set(template.modalities):
            return None
        score += _BY_MODALITY
    by_code = any((c.get("scheme"), c.get("value")) in codes for c in template.procedure_codes)
    by_body_part = bool(body_parts & set(template.body_parts))
    by_keyword = sum(1 for k in template.keywords if re.search(rf"\b{re.escape(k.casefold())}", words))
    if (template.procedure_codes or template.body_parts or template.keywords) and not (
        by_code or by_body_part or by_keyword
    ):
        return None
    return score + _BY_CODE * by_code + _BY_BODY_PART * by_body_part + _BY_KEYWORD * min(by_keyword, 2)


@transaction.atomic
def save_template(
    *,
    principal: Principal,
    name: str,
    content: Any,
    family: uuid.UUID | None = None,
    is_own: bool = False,
    site: Site | None = None,
    **more: Any,
) -> ReportTemplate:
    """Make a template, or the next version of one; reports keep the version that they were written with.

    Raises NotAllowed, NoSuchTemplate, InvalidOutline.
    """
    outline = Outline.of(content)
    user = _manager(principal, is_own=is_own, site=site)
    version, slug = 1, ""
    if family is not None:
        current = templates_of(principal).select_for_update(of=("self",)).filter(family=family).first()
        if current is None:
            raise NoSuchTemplate
        _manager(principal, is_own=current.owner_id == user.pk, site=current.site)
        version, slug = current.version + 1, current.slug
        ReportTemplate.objects.filter(pk=current.pk).update(is_current=False)
    template = ReportTemplate.objects.create(
        family=family or uuid.uuid4(),
        version=version,
        slug=slug,
        name=name.strip()[:120] or "Template",
        content=outline.as_json(),
        owner=user if is_own else None,
        site=None if is_own else site,
        created_by=user,
        **more,
    )
    _record(principal, site, {"template": template.name, "version": version, "step": "saved"})
    return template


@transaction.atomic
def retire_template(*, principal: Principal, template: ReportTemplate) -> None:
    """Offer a template no more; what was written with it stays. Raises NotAllowed."""
    user = principal.user
    _manager(principal, is_own=user is not None and template.owner_id == user.pk, site=template.site)
    ReportTemplate.objects.filter(pk=template.pk).update(is_current=False)
    _record(principal, template.site, {"template": template.name, "step": "retired"})


def may_manage(principal: Principal, template: ReportTemplate) -> bool:
    """Say whether the principal may change the template."""
    if template.owner_id is not None:
        return principal.user is not None and template.owner_id == principal.user.pk
    return _may_share(principal, template.site)


@transaction.atomic
def save_macro(*, principal: Principal, trigger: str, text: str, is_own: bool, site: Site | None = None) -> Macro:
    """Make or change a macro. Raises NotAllowed; ValueError for a trigger that can't be typed."""
    user = _manager(principal, is_own=is_own, site=site)
    trigger = trigger.strip().lstrip(".").lower()
    if not TRIGGER.fullmatch(trigger):
        raise ValueError(trigger)
    macro, _ = Macro.objects.update_or_create(
        owner=user if is_own else None,
        site=None if is_own else site,
        trigger=trigger,
        defaults={"text": text.replace("\r\n", "\n").replace("\x00", "")[:20_000]},
    )
    if not is_own:
        _record(principal, site, {"macro": trigger, "step": "saved"})
    return macro


@transaction.atomic
def delete_macro(*, principal: Principal, macro: Macro) -> None:
    """Delete a macro. Raises NotAllowed."""
    is_own = principal.user is not None and macro.owner_id == principal.user.pk
    if macro.owner_id is not None and not is_own:
        raise NotAllowed
    _manager(principal, is_own=is_own, site=macro.site)
    macro.delete()


def macros_of(principal: Principal) -> QuerySet[Macro]:
    """Give the principal's own macros and those shared at their sites."""
    sites = principal.sites_with(Capability.REPORT_WRITE)
    managed = principal.sites_with(Capability.REPORT_TEMPLATE_MANAGE)
    shared = Q(owner=None)
    if sites is not None and managed is not None:
        shared &= Q(site=None) | Q(site_id__in=sorted(sites | managed))
    return Macro.objects.filter(Q(owner=principal.user) | shared).select_related("site")


def macros_by_trigger(principal: Principal, site_id: int) -> dict[str, str]:
    """Give what each trigger puts in at a site: one's own before the site's before the shared."""
    macros = sorted(macros_of(principal), key=lambda m: 2 if m.owner_id else 1 if m.site_id else 0)
    return {m.trigger: m.text for m in macros if m.site_id in (None, site_id)}


def save_spelling(*, user: User, heard: str, written: str) -> None:
    """Remember how a person writes a word; an empty way of writing forgets it."""
    heard = " ".join(heard.replace("\x00", "").lower().split())[:60]
    written = written.replace("\x00", "").strip()[:120]
    if heard and written:
        Spelling.objects.update_or_create(user=user, heard=heard, defaults={"written": written})
    elif heard:
        Spelling.objects.filter(user=user, heard=heard).delete()


def create_built_in_templates() -> None:
    """Make or renew the templates that Atrium brings; one that a site has changed or retired stays as it is."""
    for path in sorted(BUILT_IN.glob("*.json")):
        described = json.loads(path.read_text())
        content = Outline.of(described.pop("content")).as_json()
        newest = ReportTemplate.objects.filter(slug=path.stem).order_by("-version").first()
        if newest is not None and (
            newest.created_by_id or not newest.is_current or _is_equal(newest, content, described)
        ):
            continue
        with transaction.atomic():
            if newest is not None:
                ReportTemplate.objects.filter(pk=newest.pk).update(is_current=False)
            ReportTemplate.objects.create(
                slug=path.stem,
                family=newest.family if newest else uuid.uuid4(),
                version=newest.version + 1 if newest else 1,
                content=content,
                **described,
            )


def _is_equal(template: ReportTemplate, content: Any, described: Mapping[str, Any]) -> bool:
    return template.content == content and all(getattr(template, name) == value for name, value in described.items())


def plain_content() -> dict[str, Any]:
    """Give the plain outline as a template's content, to begin one with."""
    return GENERIC.as_json()


def words(text: str | Iterable[str]) -> list[str]:
    """Give the comma-separated words of a form's field."""
    parts = text.split(",") if isinstance(text, str) else text
    return [word.strip() for word in parts if word.strip()]


def _manager(principal: Principal, *, is_own: bool, site: Site | None) -> User:
    """Give the person, if they may keep things of their own or share them at the site. Raises NotAllowed."""
    user = principal.user
    if user is None or not (principal.may(Capability.REPORT_WRITE) if is_own else _may_share(principal, site)):
        raise NotAllowed
    return user


def _may_share(principal: Principal, site: Site | None) -> bool:
    if site is not None:
        return principal.may(Capability.REPORT_TEMPLATE_MANAGE, site.pk)
    return principal.sites_with(Capability.REPORT_TEMPLATE_MANAGE) is None


def _record(principal: Principal, site: Site | None, details: dict[str, Any]) -> None:
    record(AuditEvent.Action.CHANGE, principal=principal, site_id=site.pk if site else None, details=details)
