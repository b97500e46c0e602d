"""The trail's filter."""

from __future__ import annotations

from django import forms

from portal.audit.models import AuditEvent


class AuditFilterForm(forms.Form):
    """Which events to show."""

    username = forms.CharField(required=False, max_length=150, label="Person or AE title")
    patient_id = forms.CharField(
        required=False,
        max_length=64,
        label="Patient",
        widget=forms.TextInput(
            attrs={
                "placeholder": "Name or ID, in part",
                "data-key": "/",
                "data-key-label": "Who saw a patient: by ID, or by part of it or of the name",
            }
        ),
    )
    study_instance_uid = forms.CharField(required=False, max_length=64, label="Study Instance UID")
    action = forms.ChoiceField(required=False, choices=[("", "Any action"), *AuditEvent.Action.choices])
    outcome = forms.ChoiceField(required=False, choices=[("", "Any outcome"), *AuditEvent.Outcome.choices])
    since = forms.DateField(required=False, label="From", widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(required=False, label="To", widget=forms.DateInput(attrs={"type": "date"}))
