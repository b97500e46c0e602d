"""What the desk shows: the panel beside the images and its context."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from accounts.capabilities import Capability
from accounts.models import User
from accounts.reauthentication import ways_of
from studies.models import Study
from studies.reading import claim_of
from studies.reports import critical, drafts, selectors
from studies.reports.checks import checks_of
from studies.reports.history import section_changes
from studies.reports.models import PreliminarySignature, ReportPart
from studies.reports.outline import Field, Outline, Section
from studies.reports.requests import principal_of
from studies.reports.spelling import checked_language
from studies.reports.templates import macros_by_trigger, templates_for


def panel(request: HttpRequest, study: Study, **more: Any) -> HttpResponse:
    """Give the report beside the images: the desk to a writer, the signed report to a reader."""
    response = render(request, "reports/_panel.html", {**panel_context(request, study), **more})
    response["Cache-Control"] = "no-store"
    return response


def panel_context(request: HttpRequest, study: Study) -> dict[str, Any]:
    """Give what the panel shows the person."""
    principal = principal_of(request)
    may_write = selectors.may_write(principal, study)
    parts = selectors.signed_parts(study)
    preliminary = selectors.preliminary_of(study)
    if parts or preliminary:
        selectors.record_reading(principal, study)
    standing = [part for part in parts if not part.is_retracted]
    draft = selectors.open_draft_of(study) if may_write else None
    claim = claim_of(study) if may_write else None
    is_held = claim is not None and (principal.user is None or claim.holder.pk != principal.user.pk)
    # Words can be typed as soon as the case is open; the draft is begun, and the case claimed, by the first of them.
    is_unbegun = may_write and draft is None and not standing and not is_held
    if is_unbegun:
        draft = drafts.blank_draft(study=study, principal=principal)
    context: dict[str, Any] = {
        "study": study,
        "parts": parts,
        "standing": standing,
        "preliminary": preliminary,
        "draft": draft,
        "is_unbegun": is_unbegun,
        "is_own": draft is not None and principal.user is not None and draft.author_id == principal.user.pk,
        "may_write": may_write,
        "may_sign": may_write and principal.may(Capability.REPORT_SIGN, study.site_id),
        "critical_results": critical.critical_results_of(principal).filter(study=study),
    }
    if may_write and principal.user is not None:
        context["cosigned"] = cosigned_parts(parts)
        context["recipients"] = critical.recipients_for(study)
        context["deadlines"] = critical.deadlines_of(study)
        context["ways"] = ways_of(principal.user)
        context["claim"] = claim if is_held else None
    if draft is not None and principal.user is not None and context["is_own"]:
        context |= {
            "fields": desk_sections(draft.outline, draft.values),
            "checks": [] if is_unbegun else checks_of(draft),
            "templates": templates_for(study, principal) if draft.kind == ReportPart.Kind.REPORT else [],
            "macros": macros_by_trigger(principal, study.site_id),
            "spellings": {s.heard: s.written for s in principal.user.report_spellings.all()},
            **offline_names(principal.user, study, draft),
            # Words from before the window heard that its draft was begun.
            "offline_before": _offline(principal.user, f"new-{study.pk}"),
            "comparison_offer": selectors.comparison_text(study, principal),
            "dictation": settings.ATRIUM.dictation,
            "language": draft.template.language if draft.template is not None else "",
            "spelling": checked_language(draft.template),
        }
    elif draft is not None and principal.user is not None:
        # Whether words wait for this person its browser knows; the key comes with taking over.
        context["offline_name"] = offline_names(principal.user, study, draft)["offline_name"]
    if draft is not None and preliminary is not None:
        context["tracked"] = [section for section in tracked_changes(preliminary, draft) if section.is_changed]
    return context


def cosigned_parts(parts: Sequence[ReportPart]) -> list[dict[str, Any]]:
    """Give, for each part that was signed as preliminary before, what was changed until it was signed as final."""
    return [
        {
            "part": part,
            "preliminary": preliminary,
            "changes": [one for one in tracked_changes(preliminary, part) if one.is_changed],
        }
        for part in parts
        if (preliminary := part.preliminary) is not None
    ]


def tracked_changes(preliminary: PreliminarySignature, part: ReportPart) -> list[Any]:
    """Give what was changed since the part was signed as preliminary."""
    titles = [*part.section_texts, *preliminary.section_texts]
    return section_changes(preliminary.sections, part.sections, titles)


def desk_sections(outline: Outline, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give the outline's sections as the desk shows them with these values."""
    sections = []
    shown = outline.shown(values)
    shortcut = 0
    for section in outline.sections:
        fields = []
        for field in section.fields:
            shortcut += 1
            fields.append(
                {
                    **_field(section, field, values),
                    "shown": field.id in shown,
                    "shortcut": shortcut if shortcut < 10 else "",
                }
            )
        sections.append({"id": section.id, "title": section.title, "role": section.role, "fields": fields})
    return sections


def _field(section: Section, field: Field, values: Mapping[str, Any]) -> dict[str, Any]:
    value = values.get(field.id, field.empty())
    return {
        "id": field.id,
        "type": field.type,
        "label": section.title if field.id == section.id and len(section.fields) == 1 else field.label or section.title,
        "help": field.help,
        "required": field.required,
        "options": [
            {"value": option, "chosen": option == value or (isinstance(value, list) and option in value)}
            for option in field.options
        ],
        "unit": field.unit,
        "minimum": field.minimum,
        "maximum": field.maximum,
        "value": value,
        "rows": 5 if field.id == "findings" else 2 if field.id == section.id else 1,
        "condition_field": field.show_if.field if field.show_if else "",
        "condition_values": "\n".join(field.show_if.values) if field.show_if else "",
    }


def offline_names(user: User, study: Study, draft: ReportPart) -> dict[str, str]:
    """Give under which name, and locked with which key, a browser keeps words that it couldn't send.

    Only this person's session gets the key.
    """
    return _offline(user, str(draft.pk) if draft.pk else f"new-{study.pk}")


def _offline(user: User, what: str) -> dict[str, str]:
    message = f"offline words {user.pk} {what}".encode()
    key = hmac.new(settings.SECRET_KEY.encode(), message, hashlib.sha256).digest()
    return {"offline_name": f"atrium.draft.{user.pk}.{what}", "offline_key": base64.b64encode(key).decode()}
