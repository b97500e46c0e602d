"""Sending a study, the transfers, and remote archives."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.capabilities import Capability
from accounts.gates import capability_required, principal_of
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.access import studies_visible_to, visible_study
from studies.dimse import transfers as services
from studies.dimse.clients import client_of
from studies.dimse.errors import NodeRefuses, NodeUnavailable, NotAllowed
from studies.dimse.models import Node, Transfer, TransferItem
from studies.dimse.monitoring import OPEN, transfers_of
from studies.dimse.transfer_forms import RemoteQueryForm, SendForm, TransferFilterForm, queryable_nodes
from studies.models import Study

PAGE = 50
MOST_ITEMS = 200
MOST_FOUND = 200
# htmx takes the answer and asks no more.
STOP_POLLING = 286
may_send = capability_required(Capability.STUDY_SEND)
may_see_transfers = capability_required(Capability.STUDY_SEND, Capability.NODE_MANAGE)


@require_http_methods(["GET", "POST"])
@may_send
def send_study(request: HttpRequest, study_instance_uid: str) -> HttpResponse:
    """Choose where a study goes; then show how far it is."""
    principal = principal_of(request)
    try:
        study = visible_study(principal, study_instance_uid)
    except Study.DoesNotExist as error:
        raise Http404 from error
    if not principal.may(Capability.STUDY_SEND, study.site_id):
        raise Http404
    form = SendForm(request.POST or None, study=study)
    if request.method == "POST" and form.is_valid():
        try:
            transfer = services.send_study(
                study=study,
                node=form.cleaned_data["node"],
                principal=principal,
                series_instance_uid=form.cleaned_data["series"],
                profile=form.profile(),
            )
        except NotAllowed as refusal:
            form.add_error(None, str(refusal))
        else:
            return redirect("transfer", pk=transfer.pk)
    return render(request, "dimse/send.html", {"form": form, "study": study}, status=422 if form.errors else 200)


@require_GET
@may_see_transfers
def transfers(request: HttpRequest) -> HttpResponse:
    """List transfers, the youngest first, a page by keyset; to htmx only the table."""
    principal = principal_of(request)
    mine = transfers_of(principal)
    form = TransferFilterForm(request.GET, nodes=Node.objects.filter(pk__in=mine.order_by().values("node")))
    chosen = form.cleaned_data if form.is_valid() else {}
    shown = mine
    if chosen.get("status"):
        shown = shown.filter(status__in=OPEN if chosen["status"] == "open" else [chosen["status"]])
    if chosen.get("kind"):
        shown = shown.filter(kind=chosen["kind"])
    if chosen.get("node"):
        shown = shown.filter(node=chosen["node"])
    before = request.GET.get("before", "")
    rows = list((shown.filter(pk__lt=int(before)) if before.isdigit() else shown).order_by("-pk")[: PAGE + 1])
    query = {name: value.pk if isinstance(value, Node) else value for name, value in chosen.items() if value}
    page = rows[:PAGE]
    context = {
        "form": form,
        "transfers": page,
        "visible": _visible_studies(principal, page),
        "query": urlencode(query),
        "is_filtered": bool(query),
        "first_url": f"{reverse('transfers')}?{urlencode(query)}" if before else "",
        "next_url": f"{reverse('transfers')}?{urlencode({**query, 'before': page[-1].pk})}" if len(rows) > PAGE else "",
        "refresh_url": request.get_full_path(),
        "manages_network": principal.may(Capability.NODE_MANAGE),
    }
    template = "dimse/_transfers.html" if request.htmx else "dimse/transfers.html"  # type: ignore[attr-defined]
    return _private(render(request, template, context))


def _visible_studies(principal: Principal, page: list[Transfer]) -> set[int]:
    """Give the ids of those studies of the page that the person may see; of the others no patient is shown."""
    ids = [t.study_id for t in page if t.study_id]
    return set(studies_visible_to(principal).filter(pk__in=ids).values_list("pk", flat=True))


def _private(response: HttpResponse) -> HttpResponse:
    response["Vary"] = "HX-Request"
    response["Cache-Control"] = "no-store"
    return response


@require_GET
@may_see_transfers
def transfer(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one transfer and what became of each instance; to htmx, that asks again and again, only its state."""
    principal = principal_of(request)
    one = get_object_or_404(transfers_of(principal), pk=pk)
    failed = one.items.filter(status=TransferItem.Status.FAILED).order_by("pk")
    context: dict[str, Any] = {
        "transfer": one,
        "failed_items": failed[:MOST_ITEMS],
        "state": one.node.states.filter(kind=one.kind).first(),
        "is_visible": bool(_visible_studies(principal, [one])),
        "ahead": Transfer.objects.filter(node=one.node, kind=one.kind, status__in=OPEN, pk__lt=one.pk).count(),
    }
    if not request.htmx:  # type: ignore[attr-defined]
        return _private(render(request, "dimse/transfer.html", context))
    return _private(render(request, "dimse/_transfer.html", context, status=STOP_POLLING if one.is_over else 200))


@require_POST
@may_see_transfers
def cancel_transfer(request: HttpRequest, pk: int) -> HttpResponse:
    """Take a transfer out of its queue."""
    principal = principal_of(request)
    services.cancel(transfer=get_object_or_404(transfers_of(principal), pk=pk), principal=principal)
    return redirect("transfer", pk=pk)


@require_POST
@may_see_transfers
def run_transfer_again(request: HttpRequest, pk: int) -> HttpResponse:
    """Queue what failed again."""
    principal = principal_of(request)
    services.run_again(transfer=get_object_or_404(transfers_of(principal), pk=pk), principal=principal)
    return redirect("transfer", pk=pk)


@require_http_methods(["GET", "POST"])
@may_send
def remote_query(request: HttpRequest) -> HttpResponse:
    """Ask a remote archive and list what it has; by POST, so that patients stay out of addresses."""
    principal = principal_of(request)
    form = RemoteQueryForm(request.POST or None, principal=principal)
    context: dict[str, Any] = {
        "form": form,
        "found": None,
        "error": "",
        "has_nodes": queryable_nodes(principal).exists(),
        "may_manage_nodes": principal.may(Capability.NODE_MANAGE),
    }
    status = 200
    if request.method == "POST":
        if form.is_valid():
            node, query = form.cleaned_data["node"], form.query()
            try:
                context["found"] = client_of(node).find(query, at_most=MOST_FOUND)
            except (NodeUnavailable, NodeRefuses) as error:
                context["error"] = str(error)
            found = context["found"] or []
            record(
                AuditEvent.Action.SEARCH,
                principal=principal,
                outcome=AuditEvent.Outcome.FAILURE if context["error"] else AuditEvent.Outcome.SUCCESS,
                site_id=node.site_id,
                details={"way": "remote", "node": node.ae_title, "keys": query.as_keywords(), "results": len(found)},
            )
            context.update(node=node, held=_held(node, [f.study_instance_uid for f in found]), most=MOST_FOUND)
        else:
            status = 422
    return _private(render(request, "dimse/remote.html", context, status=status))


def _held(node: Node, uids: list[str]) -> set[str]:
    studies = Study.objects.filter(site_id=node.site_id, study_instance_uid__in=uids)
    return set(studies.values_list("study_instance_uid", flat=True))


@require_POST
@may_send
def remote_retrieve(request: HttpRequest) -> HttpResponse:
    """Fetch chosen studies from a remote archive."""
    principal = principal_of(request)
    node_id = request.POST.get("node", "")
    uids = [uid for uid in request.POST.getlist("study") if uid and len(uid) <= 64 and set(uid) <= set("0123456789.")]
    node = queryable_nodes(principal).filter(pk=int(node_id)).first() if node_id.isdigit() else None
    if node is None or not uids:
        messages.error(request, _("Choose at least one study to be retrieved."))
        return redirect("remote_query")
    queued = []
    for uid in uids[:MOST_FOUND]:
        try:
            queued.append(services.retrieve_study(node=node, study_instance_uid=uid, principal=principal))
        except NotAllowed as refusal:
            messages.error(request, str(refusal))
            return redirect("remote_query")
    if len(queued) == 1:
        return redirect("transfer", pk=queued[0].pk)
    messages.success(request, _("%(count)s studies are on their way.") % {"count": len(queued)})
    return redirect(f"{reverse('transfers')}?kind=retrieve")
