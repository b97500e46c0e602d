"""The nodes' screens."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.capabilities import Capability
from accounts.gates import capability_required
from accounts.models import Site
from studies.dimse.forms import NodeForm
from studies.dimse.models import Node
from studies.dimse.selectors import nodes_managed_by
from studies.dimse.services import delete_node, save_node
from studies.dimse.verification import verify_node


@require_GET
@capability_required(Capability.NODE_MANAGE)
def nodes(request: HttpRequest) -> HttpResponse:
    """List the nodes that the person manages."""
    context = {
        "nodes": nodes_managed_by(request.principal),  # type: ignore[attr-defined]
        "atrium": settings.ATRIUM,
        "open_site": Site.objects.order_by("pk").first() if settings.ATRIUM.dicom_open else None,
    }
    return render(request, "dimse/nodes.html", context)


@require_http_methods(["GET", "POST"])
@capability_required(Capability.NODE_MANAGE)
def new_node(request: HttpRequest) -> HttpResponse:
    """Add a node."""
    return _edit(request, Node())


@require_http_methods(["GET", "POST"])
@capability_required(Capability.NODE_MANAGE)
def node(request: HttpRequest, pk: int) -> HttpResponse:
    """Show and change a node."""
    return _edit(request, get_object_or_404(nodes_managed_by(request.principal), pk=pk))  # type: ignore[attr-defined]


def _edit(request: HttpRequest, node: Node) -> HttpResponse:
    principal = request.principal  # type: ignore[attr-defined]
    form = NodeForm(request.POST or None, instance=node, principal=principal)
    if request.method == "POST" and form.is_valid():
        save_node(node=form.save(commit=False), principal=principal, secret=form.cleaned_data["secret"])
        messages.success(request, _("%(title)s is saved.") % {"title": node.ae_title})
        return redirect("node", pk=node.pk)
    kept = Node.objects.get(pk=node.pk) if node.pk else None
    status = 422 if form.errors else 200
    return render(request, "dimse/node.html", {"form": form, "node": kept}, status=status)


@require_POST
@capability_required(Capability.NODE_MANAGE)
def verify(request: HttpRequest, pk: int) -> HttpResponse:
    """Call the node and show how far that went."""
    principal = request.principal  # type: ignore[attr-defined]
    node = get_object_or_404(nodes_managed_by(principal), pk=pk)
    steps = verify_node(node) if node.can_be_called else None
    context = {"node": node, "steps": steps}
    if request.headers.get("HX-Request"):
        return render(request, "dimse/_diagnosis.html", context)
    return render(request, "dimse/node.html", {**context, "form": NodeForm(instance=node, principal=principal)})


@require_POST
@capability_required(Capability.NODE_MANAGE)
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Forget the node."""
    principal = request.principal  # type: ignore[attr-defined]
    node = get_object_or_404(nodes_managed_by(principal), pk=pk)
    delete_node(node=node, principal=principal)
    messages.success(request, _("%(title)s is removed.") % {"title": node.ae_title})
    return redirect("nodes")
