"""Forms for sending a study, finding transfers and asking a remote archive."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from accounts.capabilities import Capability
from accounts.principals import Principal
from studies.archive.deidentification import Profile
from studies.dimse.client import Query
from studies.dimse.models import Node, Transfer
from studies.models import Study

PROFILE_OPTIONS = (
    ("retain_modified_dates", _("Keep dates, moved by the same number of days for the patient")),
    ("clean_descriptors", _("Keep descriptions, cleaned of names and numbers")),
    ("retain_patient_characteristics", _("Keep age, sex, size and weight")),
    ("retain_device", _("Keep which device made it")),
    ("retain_institution", _("Keep the institution")),
    ("retain_uids", _("Keep the UIDs (the study can then be traced back)")),
    ("retain_safe_private", _("Keep private elements known to be safe")),
    ("allow_burned_in", _("Also images that may show text, such as ultrasound (look at them first)")),
)


def sendable_nodes(site_id: int) -> Any:
    """Give the nodes to which studies of the site may be sent."""
    return Node.objects.filter(site_id=site_id, may_receive=True, is_active=True)


class SendForm(forms.Form):
    """Where a study goes, how much of it, and whether its patient is named."""

    node = forms.ModelChoiceField(queryset=Node.objects.none(), label=_("To"), empty_label=None)
    series = forms.ChoiceField(required=False, label=_("What"), widget=forms.RadioSelect)
    deidentify = forms.BooleanField(required=False, label=_("De-identify the copy (PS3.15 basic profile)"))
    options = forms.MultipleChoiceField(
        required=False,
        choices=PROFILE_OPTIONS,
        widget=forms.CheckboxSelectMultiple,
        label=_("When de-identifying"),
    )

    def __init__(self, *arguments: Any, study: Study, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.fields["node"].queryset = sendable_nodes(study.site_id)  # type: ignore[attr-defined]
        self.fields["node"].label_from_instance = _node_label  # type: ignore[attr-defined]
        whole = _("The whole study (%(count)s)") % {"count": study.number_of_instances}
        self.fields["series"].choices = [  # type: ignore[attr-defined]
            ("", whole),
            *(
                (
                    one.series_instance_uid,
                    f"{one.modality or '–'} {one.series_number if one.series_number is not None else ''} "
                    f"{one.series_description} ({one.number_of_instances})",
                )
                for one in study.series.order_by("series_number", "pk")
            ),
        ]

    def profile(self) -> Profile | None:
        """Give the chosen profile, None for an identified copy."""
        if not self.cleaned_data["deidentify"]:
            return None
        return Profile.of(dict.fromkeys(self.cleaned_data["options"], True))


def _node_label(node: Node) -> str:
    return f"{node.ae_title} – {node.description}" if node.description else node.ae_title


class TransferFilterForm(forms.Form):
    """Which transfers are listed."""

    status = forms.ChoiceField(
        required=False,
        label=_("State"),
        choices=[("", _("Any")), ("open", _("Waiting or running")), *Transfer.Status.choices],
    )
    kind = forms.ChoiceField(required=False, label=_("Direction"), choices=[("", _("Both")), *Transfer.Kind.choices])
    node = forms.ModelChoiceField(required=False, queryset=Node.objects.none(), label=_("Node"), empty_label=_("Any"))

    def __init__(self, *arguments: Any, nodes: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.fields["node"].queryset = nodes  # type: ignore[attr-defined]


class RemoteQueryForm(forms.Form):
    """What a remote archive is asked for."""

    node = forms.ModelChoiceField(queryset=Node.objects.none(), label=_("Archive"), empty_label=None)
    patient_id = forms.CharField(required=False, max_length=64, label=_("Patient ID"))
    patient_name = forms.CharField(
        required=False, max_length=100, label=_("Patient name"), help_text=_("Family^Given; * stands for anything.")
    )
    accession_number = forms.CharField(required=False, max_length=64, label=_("Accession number"))
    date_from = forms.DateField(required=False, label=_("From"), widget=forms.DateInput(attrs={"type": "date"}))
    date_to = forms.DateField(required=False, label=_("Until"), widget=forms.DateInput(attrs={"type": "date"}))
    modality = forms.CharField(required=False, max_length=16, label=_("Modality"))

    def __init__(self, *arguments: Any, principal: Principal, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.fields["node"].queryset = queryable_nodes(principal)  # type: ignore[attr-defined]
        self.fields["node"].label_from_instance = _node_label  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors and not any(value for name, value in cleaned.items() if name != "node"):
            raise forms.ValidationError(_("Say at least one thing to search for; a whole archive is too much."))
        return cleaned

    def query(self) -> Query:
        """Give the question for the node."""
        data = self.cleaned_data
        first, last = (f"{data[name]:%Y%m%d}" if data[name] else "" for name in ("date_from", "date_to"))
        name = data["patient_name"].strip()
        return Query(
            patient_id=data["patient_id"].strip(),
            patient_name=name if not name or "*" in name or "?" in name else f"{name}*",
            accession_number=data["accession_number"].strip(),
            study_date=first if first == last else f"{first}-{last}",
            modality=data["modality"].strip().upper(),
        )


def queryable_nodes(principal: Principal) -> Any:
    """Give the remote archives that the principal may ask: those of sites where they send and retrieve studies."""
    nodes = Node.objects.filter(may_be_queried=True, is_active=True)
    sites = principal.sites_with(Capability.STUDY_SEND)
    return nodes if sites is None else nodes.filter(site_id__in=sites)
