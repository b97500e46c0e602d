"""The storage page, and a study's way between the tiers by hand."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from accounts.capabilities import Capability
from accounts.gates import capability_required, principal_of
from accounts.models import Site
from accounts.principals import Principal
from studies.access import sites_where, studies_visible_to, visible_study
from studies.archive import objects, tier_policies, tiers
from studies.archive.errors import MoveRefused, MoveUnderWay, NotAuthorised
from studies.archive.models import TierFigure, TierMove
from studies.models import Study

LATEST, MOST_SHOWN = 15, 50
INSTALLATION, DAYS, NEVER = "installation", "days", "never"
may_manage = capability_required(Capability.STORAGE_MANAGE)


def _moves(principal: Principal) -> QuerySet[TierMove]:
    sites = sites_where(principal, Capability.STORAGE_MANAGE)
    return TierMove.objects.filter(study__site__in=sites).select_related("study", "requested_by")


def _shown(moves: QuerySet[TierMove], principal: Principal) -> list[tuple[TierMove, bool]]:
    """Give the moves, each with whether the person may see whose study it is: who keeps a storage needn't."""
    found = list(moves)
    seen = set(studies_visible_to(principal).filter(pk__in=[m.study_id for m in found]).values_list("pk", flat=True))
    return [(move, move.study_id in seen) for move in found]


@require_GET
@may_manage
def storage(request: HttpRequest) -> HttpResponse:
    """Show what lies in which tier, what moves, and what the policies are; to htmx only what changes by itself."""
    principal = principal_of(request)
    sites = list(sites_where(principal, Capability.STORAGE_MANAGE))
    moves = _moves(principal)
    context: dict[str, Any] = {
        "has_cold_tier": objects.has_cold_tier(),
        "open_moves": _shown(
            moves.filter(status__in=tiers.OPEN).order_by("-status", "-tier", "due_at")[:MOST_SHOWN], principal
        ),
        "open_count": moves.filter(status__in=tiers.OPEN).count(),
        "failed_moves": _shown(moves.filter(status=TierMove.Status.FAILED).order_by("-pk")[:MOST_SHOWN], principal),
        "done_moves": _shown(moves.filter(status=TierMove.Status.DONE).order_by("-pk")[:LATEST], principal),
    }
    if request.htmx:  # type: ignore[attr-defined]
        return _private(render(request, "archive/_tier_moves.html", context))
    if not TierFigure.objects.exists():
        tier_policies.count_tiers()
    is_everywhere = principal.sites_with(Capability.STORAGE_MANAGE) is None
    context |= {
        "rows": _rows(sites),
        "counted_at": TierFigure.objects.order_by("counted_at").values_list("counted_at", flat=True).first(),
        "default_days": tier_policies.default_policy(),
        "may_set_default": is_everywhere,
    }
    return _private(render(request, "archive/storage.html", context))


def _private(response: HttpResponse) -> HttpResponse:
    response["Vary"] = "HX-Request"
    response["Cache-Control"] = "no-store"
    return response


def _rows(sites: list[Site]) -> list[dict[str, Any]]:
    """Give each site's figures by tier and its policy."""
    figures = {(f.site_id, f.tier): f for f in TierFigure.objects.filter(site__in=sites)}
    policies = tier_policies.policies_of(sites)
    return [
        {
            "site": site,
            "hot": figures.get((site.pk, Study.Tier.HOT)),
            "cold": figures.get((site.pk, Study.Tier.COLD)),
            "policy": policies[site.pk],
        }
        for site in sites
    ]


@require_POST
@may_manage
def save_policy(request: HttpRequest) -> HttpResponse:
    """Decide when a site's studies, or without a site those of the installation, go to the cold tier."""
    principal = principal_of(request)
    site = None
    if request.POST.get("site"):
        sites = sites_where(principal, Capability.STORAGE_MANAGE)
        site = get_object_or_404(sites, pk=request.POST["site"] if request.POST["site"].isdecimal() else 0)
    mode, text = request.POST.get("mode", ""), request.POST.get("days", "").strip()
    try:
        if mode not in {INSTALLATION, DAYS, NEVER}:
            raise ValueError(mode)
        days = int(text[:6]) if mode == DAYS else None
        tier_policies.set_policy(site=site, days=days, is_own=mode != INSTALLATION, principal=principal)
    except ValueError:
        messages.error(request, _("Give a number of days from 1 to 36,500."))
    except NotAuthorised as error:
        raise Http404 from error
    else:
        messages.success(request, _("Saved."))
    return redirect("storage")


@require_POST
@may_manage
def move_again(request: HttpRequest, pk: int) -> HttpResponse:
    """Try a move that failed, or waits, at once."""
    principal = principal_of(request)
    move = get_object_or_404(_moves(principal), pk=pk)
    try:
        tiers.run_again(move=move, principal=principal)
    except MoveRefused as refusal:
        messages.error(request, str(refusal))
    return redirect("storage")


@require_POST
@may_manage
def move_study(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Move a study to the cold tier or bring it back."""
    principal = principal_of(request)
    try:
        study = visible_study(principal, study_instance_uid)
    except Study.DoesNotExist as error:
        raise Http404 from error
    tier = Study.Tier.COLD if request.POST.get("tier") == Study.Tier.COLD else Study.Tier.HOT
    try:
        tiers.request_move(study=study, tier=tier, origin=TierMove.Origin.PERSON, principal=principal)
    except NotAuthorised as error:
        raise Http404 from error
    except (MoveRefused, MoveUnderWay) as refusal:
        messages.error(request, str(refusal))
    else:
        text = _("The study will be moved to the cold tier.") if tier == Study.Tier.COLD else _("It's on its way back.")
        messages.success(request, text)
    return redirect("study", study_instance_uid=study_instance_uid)
