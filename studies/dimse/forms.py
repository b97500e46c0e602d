"""The node's form."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _
from pydicom import uid

from accounts.principals import Principal
from studies.dimse.models import Node
from studies.dimse.selectors import sites_with_nodes_of

# What peers are told apart by in practice; the uncompressed ones that every node must read need no choice.
TRANSFER_SYNTAX_CHOICES = [
    (str(syntax), syntax.name)
    for syntax in (
        uid.ExplicitVRLittleEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
        uid.HTJ2KLossless,
        uid.JPEGBaseline8Bit,
        uid.JPEGExtended12Bit,
        uid.JPEGLSNearLossless,
        uid.JPEG2000,
        uid.HTJ2K,
    )
]


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
    secret = forms.CharField(
        required=False,
        label=_("Token or password"),
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        strip=True,
    )
    transfer_syntaxes = forms.TypedMultipleChoiceField(
        required=False,
        choices=TRANSFER_SYNTAX_CHOICES,
        widget=forms.CheckboxSelectMultiple,
        label=_("Transfer syntaxes that it can read"),
        help_text=_("None chosen: whatever it accepts. Implicit little endian is always offered."),
    )
    maximum_associations = forms.IntegerField(
        required=False, min_value=1, max_value=256, label=_("Associations at a time, at most")
    )

    SECTIONS = (
        (_("Identity"), "", ("kind", "ae_title", "site", "description", "is_active")),
        (_("How we call it"), "dimse", ("host", "port", "uses_tls", "calling_ae_title")),
        (_("How we call it"), "dicomweb", ("base_url", "credentials", "username", "secret")),
        (
            _("What it may do here"),
            "dimse",
            (
                "may_store",
                "may_query",
                "may_retrieve",
                "may_worklist",
                "may_perform",
                "wants_availability_notification",
                "allowed_addresses",
                "maximum_associations",
            ),
        ),
        (_("What we do there"), "", ("may_receive", "may_be_queried")),
        (_("What we do there: retrieving"), "dimse", ("retrieve_by",)),
        (_("Its peculiarities"), "", ("character_set", "transfer_syntaxes", "allows_lossy")),
    )

    class Meta:
        model = Node
        fields = [
            "kind",
            "ae_title",
            "site",
            "description",
            "is_active",
            "host",
            "port",
            "uses_tls",
            "calling_ae_title",
            "base_url",
            "credentials",
            "username",
            "may_store",
            "may_query",
            "may_retrieve",
            "may_worklist",
            "may_perform",
            "wants_availability_notification",
            "allowed_addresses",
            "maximum_associations",
            "may_receive",
            "may_be_queried",
            "retrieve_by",
            "character_set",
            "transfer_syntaxes",
            "allows_lossy",
        ]
        labels = {
            "kind": _("Speaks"),
            "ae_title": _("AE title"),
            "host": _("Host name or address"),
            "uses_tls": _("TLS, both ways"),
            "calling_ae_title": _("Our AE title towards it"),
            "base_url": _("DICOMweb address"),
            "credentials": _("Signs in by"),
            "username": _("User name"),
            "may_store": _("May store images here"),
            "may_query": _("May search its site's studies"),
            "may_retrieve": _("May retrieve its site's images"),
            "may_worklist": _("May ask for the modality worklist and tell what it performed"),
            "may_perform": _("May make, see, claim and complete workitems (UPS)"),
            "wants_availability_notification": _("Is told when a study is available (IAN)"),
            "may_receive": _("Studies may be sent to it"),
            "may_be_queried": _("May be searched, and studies retrieved from it"),
            "retrieve_by": _("Retrieve by"),
            "character_set": _("Character set"),
            "allows_lossy": _("May get lossy copies where it reads nothing else"),
            "is_active": _("Active: its associations are accepted, its queue is worked off"),
        }
        help_texts = {
            "ae_title": _(
                "As the device calls itself; capital and small letters differ. DICOMweb: a short name of your choice."
            ),
            "host": _("Needed only for calling the node."),
            "uses_tls": _("We call it by TLS, and it must call us by TLS."),
            "base_url": _("The root under which /studies lies."),
            "character_set": _("What it means where it doesn't say, or says it wrongly."),
            "calling_ae_title": _("Empty: the usual one."),
            **dict.fromkeys(("wants_availability_notification", "may_receive", "may_be_queried", "may_worklist"), ""),
            "allows_lossy": "",
        }
        widgets = {"base_url": forms.URLInput(attrs={"placeholder": "https://pacs.example/dicom-web"})}

    def __init__(self, *arguments: Any, principal: Principal, **options: Any) -> None:
        super().__init__(*arguments, **options)
        sites = sites_with_nodes_of(principal)
        self.fields["site"].queryset = sites  # type: ignore[attr-defined]
        if len(sites) == 1:
            self.fields["site"].initial = sites[0].pk
        for name in ("kind", "credentials", "retrieve_by"):
            self.fields[name].required = False
        if self.instance.sealed_secret:
            self.fields["secret"].help_text = _("One is kept. Type a new one to replace it.")

    def sections(self) -> list[dict[str, Any]]:
        """Give the fields in groups, each with the kind of node that it concerns (empty: both)."""
        return [
            {"title": title, "kind": kind, "fields": [self[name] for name in names]}
            for title, kind, names in self.SECTIONS
        ]

    def clean_kind(self) -> str:
        return self.cleaned_data["kind"] or Node.Kind.DIMSE

    def clean_credentials(self) -> str:
        return self.cleaned_data["credentials"] or Node.Credentials.NONE

    def clean_retrieve_by(self) -> str:
        return self.cleaned_data["retrieve_by"] or Node.RetrieveBy.AUTOMATIC

    def clean_maximum_associations(self) -> int:
        return int(self.cleaned_data["maximum_associations"] or Node().maximum_associations)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("kind") == Node.Kind.DICOMWEB:
            # It calls us over HTTP with a token of its own; no association may be opened in its name.
            rights = ("may_store", "may_query", "may_retrieve", "may_worklist", "may_perform")
            for name in (*rights, "wants_availability_notification"):
                cleaned[name] = False
            if not cleaned.get("base_url"):
                self.add_error("base_url", _("Enter the address of its DICOMweb root."))
            has_secret = cleaned.get("secret") or self.instance.sealed_secret
            if cleaned.get("credentials") != Node.Credentials.NONE and not has_secret:
                self.add_error("secret", _("Enter the token or password."))
            if cleaned.get("credentials") == Node.Credentials.BASIC and not cleaned.get("username"):
                self.add_error("username", _("Enter the user name."))
        elif (cleaned.get("may_receive") or cleaned.get("may_be_queried")) and not (
            cleaned.get("host") and cleaned.get("port")
        ):
            self.add_error("host", _("To call it, its host and port are needed."))
        return cleaned
