"""The orders' forms."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.capabilities import Capability
from accounts.models import Site
from accounts.principals import Principal
from studies.access import sites_where
from studies.models import Priority
from studies.orders.models import Order
from studies.orders.patients import PatientIdentity
from studies.orders.services import OrderDetails, changeable_details
from studies.person_names import displayed

MODALITIES = ("CT", "MR", "CR", "DX", "US", "MG", "NM", "PT", "XA", "RF", "ECG", "ES", "OP", "OT")
_MODALITY_CHOICES = [("", _("All")), *((m, m) for m in MODALITIES)]
SEXES = [("", "—"), ("F", _("Female")), ("M", _("Male")), ("O", _("Other"))]


def _date_widget() -> forms.DateInput:
    return forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")


class OrderFilterForm(forms.Form):
    """Which orders to show."""

    q = forms.CharField(required=False, max_length=120, label=_("Patient or accession"))
    modality = forms.ChoiceField(required=False, label=_("Modality"), choices=_MODALITY_CHOICES)
    status = forms.ChoiceField(required=False, label=_("Status"), choices=[("", _("All")), *Order.Status.choices])
    priority = forms.ChoiceField(required=False, label=_("Priority"), choices=[("", _("All")), *Priority.choices])
    site = forms.ChoiceField(required=False, label=_("Site"))
    since = forms.DateField(required=False, label=_("From"), widget=_date_widget())
    until = forms.DateField(required=False, label=_("To"), widget=_date_widget())

    def __init__(self, data: Any, *, principal: Principal) -> None:
        super().__init__(data)
        sites = (
            sites_where(principal, Capability.STUDY_VIEW) | sites_where(principal, Capability.ORDER_MANAGE)
        ).distinct()
        choices = [(site.slug, site.name) for site in sites]
        self.fields["site"].choices = [("", _("All")), *choices]  # type: ignore[attr-defined]
        if len(choices) < 2:
            del self.fields["site"]
        self.fields["q"].widget.attrs |= {
            "placeholder": _("Name, ID or accession"),
            "autocomplete": "off",
            "data-key": "/",
            "data-key-label": _("Find an order"),
        }


class OrderForm(forms.Form):
    """An order as typed at the desk. Site and patient can be chosen only for a new one."""

    site = forms.ModelChoiceField(Site.objects.none(), label=_("Site"), empty_label=None)
    patient_id = forms.CharField(max_length=64, label=_("Patient ID"))
    patient_name = forms.CharField(max_length=300, label=_("Name"), help_text=_("Family, given names"))
    patient_birth_date = forms.DateField(required=False, label=_("Born"), widget=_date_widget())
    patient_sex = forms.ChoiceField(required=False, label=_("Sex"), choices=SEXES)
    description = forms.CharField(max_length=256, label=_("Procedure"))
    modality = forms.ChoiceField(label=_("Modality"), choices=_MODALITY_CHOICES[1:])
    priority = forms.ChoiceField(label=_("Priority"), choices=Priority.choices, initial=Priority.ROUTINE)
    scheduled_at = forms.DateTimeField(
        label=_("When (UTC)"),
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    indication = forms.CharField(required=False, label=_("Indication"), widget=forms.Textarea(attrs={"rows": 2}))
    referring_physician_name = forms.CharField(required=False, max_length=300, label=_("Referring physician"))
    patient_class = forms.ChoiceField(
        required=False,
        label=_("Patient class"),
        choices=Order.PatientClass.choices,
        initial=Order.PatientClass.OUTPATIENT,
    )
    patient_location = forms.CharField(required=False, max_length=64, label=_("Location"))
    station_ae_title = forms.CharField(required=False, max_length=16, label=_("Station (AE title)"))
    accession_number = forms.CharField(
        required=False, max_length=16, label=_("Accession number"), help_text=_("Empty: the site's next number.")
    )

    PATIENT = ("site", "patient_id", "patient_name", "patient_birth_date", "patient_sex")

    def __init__(self, data: Any = None, *, principal: Principal, order: Order | None = None) -> None:
        super().__init__(data, initial=self._initial(order))
        if order is not None:
            for name in (*self.PATIENT, "accession_number"):
                del self.fields[name]
        else:
            sites = sites_where(principal, Capability.ORDER_MANAGE)
            self.fields["site"].queryset = sites  # type: ignore[attr-defined]
            if len(sites) == 1:
                self.fields["site"].initial = sites[0].pk
                self.fields["site"].widget = forms.HiddenInput()
            for name in ("patient_id", "patient_name"):
                self.fields[name].widget.attrs |= {"autocomplete": "off", "data-patient-search": ""}
            self.fields["patient_id"].widget.attrs["autofocus"] = True
        self.fields["description"].widget.attrs |= {"list": "procedures", "autocomplete": "off"}
        self.fields["referring_physician_name"].widget.attrs |= {"list": "physicians", "autocomplete": "off"}

    @staticmethod
    def _initial(order: Order | None) -> dict[str, Any]:
        if order is None:
            return {"scheduled_at": timezone.now().replace(second=0, microsecond=0)}
        step = order.scheduled_steps.order_by("pk").first()
        initial = {name: getattr(order, name, None) for name in changeable_details()}
        initial |= {
            "description": order.requested_procedure_description,
            "referring_physician_name": displayed(order.referring_physician_name),
        }
        if step is not None:
            initial |= {
                "modality": step.modality,
                "scheduled_at": step.scheduled_at,
                "station_ae_title": step.scheduled_station_ae_title,
            }
        return initial

    def clean_patient_name(self) -> str:
        """Give the name as DICOM writes it."""
        return dicom_name(self.cleaned_data["patient_name"])

    def clean_referring_physician_name(self) -> str:
        """Give the name as DICOM writes it."""
        return dicom_name(self.cleaned_data["referring_physician_name"])

    def clean_scheduled_at(self) -> datetime:
        """Refuse what is typed wrong by a century."""
        moment: datetime = self.cleaned_data["scheduled_at"]
        if abs((moment - datetime.now(UTC)).days) > 5 * 366:
            raise forms.ValidationError(_("That is more than five years away."))
        return moment

    def identity(self) -> PatientIdentity:
        """Give the patient that was typed or chosen."""
        data = self.cleaned_data
        return PatientIdentity(
            patient_id=data["patient_id"].strip(),
            patient_name=data["patient_name"],
            patient_birth_date=data["patient_birth_date"],
            patient_sex=data["patient_sex"],
        )

    def details(self) -> OrderDetails:
        """Give what is asked for."""
        return OrderDetails(**self.changes(), accession_number=self.cleaned_data["accession_number"])

    def changes(self) -> dict[str, Any]:
        """Give the values by the names of OrderDetails."""
        names = [name for name in changeable_details() if name in self.fields]
        return {name: self.cleaned_data[name] for name in names}


def dicom_name(text: str) -> str:
    """Give ``"Doe, Jane Ann, Dr"`` as DICOM's PN ``"Doe^Jane^Ann^Dr"``; text with ``^`` stays as it is."""
    text = " ".join(text.replace("\\", " ").split())
    if "^" in text or "," not in text:
        return text
    family, forenames, *rest = (part.strip() for part in text.split(","))
    given, _, middle = forenames.partition(" ")
    prefix = rest[0] if rest else ""
    return "^".join((family, given, middle, prefix)).rstrip("^")
