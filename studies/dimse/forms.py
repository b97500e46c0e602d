"""The node's form."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from accounts.principals import Principal
from studies.dimse.models import Node
from studies.dimse.selectors import sites_with_nodes_of


class NetworksField(forms.CharField):
    """Addresses or networks, separated by commas, spaces or lines."""

    widget = forms.Textarea(attrs={"rows": 2, "placeholder": "10.1.2.0/24"})

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> list[str]:  # type: ignore[override]
        networks = []
        for word in re.split(r"[\s,;]+", value or ""):
            if not word:
                continue
            try:
                networks.append(str(ipaddress.ip_network(word, strict=False)))
            except ValueError as error:
                raise forms.ValidationError(
                    _("“%(word)s” is no address or network. Write 10.1.2.3 or 10.1.2.0/24."), params={"word": word}
                ) from error
        return networks


class NodeForm(forms.ModelForm):
    """One node; the sites on offer are those that the principal manages."""

    port = forms.IntegerField(required=False, min_value=1, max_value=65535, label=_("Port"))
    allowed_addresses = NetworksField(
        required=False, label=_("May call from"), help_text=_("Addresses or networks. Empty: from anywhere.")
    )

    class Meta:
        model = Node
        fields = [
            "ae_title",
            "site",
            "description",
            "host",
            "port",
            "allowed_addresses",
            "may_store",
            "may_query",
            "may_retrieve",
            "may_worklist",
            "is_active",
        ]
        labels = {
            "ae_title": _("AE title"),
            "host": _("Host name or address"),
            "may_store": _("May store images here"),
            "may_query": _("May search its site's studies"),
            "may_retrieve": _("May retrieve its site's images"),
            "may_worklist": _("May ask for the modality worklist and tell what it performed"),
            "is_active": _("Active: its associations are accepted"),
        }
        help_texts = {
            "ae_title": _("As the device calls itself; capital and small letters differ."),
            "host": _("Needed only for calling the node."),
        }

    def __init__(self, *arguments: Any, principal: Principal, **options: Any) -> None:
        super().__init__(*arguments, **options)
        sites = sites_with_nodes_of(principal)
        self.fields["site"].queryset = sites  # type: ignore[attr-defined]
        if len(sites) == 1:
            self.fields["site"].initial = sites[0].pk
