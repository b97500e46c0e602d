"""The worklist's filter."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from accounts.models import Site
from accounts.principals import Principal
from studies.models import Study

MODALITIES = ("CT", "MR", "CR", "DX", "US", "MG", "NM", "PT", "XA", "RF", "ECG", "OT")


class WorklistFilterForm(forms.Form):
    """Which studies to show."""

    q = forms.CharField(required=False, max_length=120, label=_("Patient"))
    accession_number = forms.CharField(required=False, max_length=64, label=_("Accession"))
    modality = forms.ChoiceField(
        required=False, label=_("Modality"), choices=[("", _("All")), *((m, m) for m in MODALITIES)]
    )
    status = forms.ChoiceField(required=False, label=_("Status"), choices=[("", _("All")), *Study.Status.choices])
    site = forms.ChoiceField(required=False, label=_("Site"))
    referrer = forms.CharField(required=False, max_length=120, label=_("Referrer"))
    since = forms.DateField(required=False, label=_("From"), widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(required=False, label=_("To"), widget=forms.DateInput(attrs={"type": "date"}))

    def __init__(self, data: Any, *, principal: Principal) -> None:
        super().__init__(data)
        site_ids = {site_id for _capability, site_id in principal.grants if site_id is not None}
        is_everywhere = any(site_id is None for _capability, site_id in principal.grants)
        sites = Site.objects.all() if is_everywhere else Site.objects.filter(pk__in=site_ids)
        choices = [(site.slug, site.name) for site in sites]
        self.fields["site"].choices = [("", _("All")), *choices]  # type: ignore[attr-defined]
        if len(choices) < 2:
            del self.fields["site"]
        self.fields["q"].widget.attrs |= {
            "placeholder": _("Name or ID"),
            "autocomplete": "off",
            "data-key": "/",
            "data-key-label": _("Find a patient"),
        }
