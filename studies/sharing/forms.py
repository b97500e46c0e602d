"""What a teaching case says."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy as _

from studies.sharing.models import TeachingCase


class TeachingCaseForm(forms.Form):
    """The words of a teaching case; they must name no patient."""

    title = forms.CharField(max_length=120, label=_("Title"), help_text=_("What it teaches, not who it was."))
    history = forms.CharField(required=False, max_length=4000, label=_("History"), widget=forms.Textarea({"rows": 2}))
    findings = forms.CharField(required=False, max_length=8000, label=_("Findings"), widget=forms.Textarea({"rows": 4}))
    diagnosis = forms.CharField(required=False, max_length=200, label=_("Diagnosis"))
    discussion = forms.CharField(
        required=False, max_length=8000, label=_("Discussion"), widget=forms.Textarea({"rows": 4})
    )
    keywords = forms.CharField(required=False, max_length=200, label=_("Keywords"))
    level = forms.ChoiceField(
        choices=TeachingCase.Level.choices, initial=TeachingCase.Level.RESIDENT, label=_("For whom")
    )
