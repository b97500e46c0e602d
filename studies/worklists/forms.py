"""The worklist's filter, and the forms by which a department shares its cases out."""

from __future__ import annotations

from functools import cache
from typing import Any

from django import forms
from django.http import QueryDict
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from accounts.capabilities import Capability
from accounts.models import Site, User
from accounts.principals import Principal
from portal.templatetags.portal_tags import body_part
from studies.access import sites_where
from studies.models import Priority, Study
from studies.orders.forms import MODALITIES
from studies.worklists.models import AssignmentRule, ReadingGroup, SavedFilter, Shift, TurnaroundTarget
from studies.worklists.selectors import (
    SCHEDULED,
    groups_seen_by,
    groups_shared_with,
    readers_at,
    roles_shared_with,
)

BODY_PARTS = (
    *("HEAD", "BRAIN", "NECK", "CSPINE", "TSPINE", "LSPINE", "CHEST", "HEART", "BREAST", "ABDOMEN", "PELVIS"),
    *("SHOULDER", "ELBOW", "HAND", "HIP", "KNEE", "ANKLE", "FOOT", "WHOLEBODY"),
)
# A case's way: it begins as an order without images.
STATUSES = [(SCHEDULED, _("Scheduled")), *Study.Status.choices]


class Choices(forms.MultipleChoiceField):
    """Several of a few values, as boxes in a menu."""

    widget = forms.CheckboxSelectMultiple


class WorklistFilterForm(forms.Form):
    """Which studies to show."""

    q = forms.CharField(required=False, max_length=120, label=_("Patient"))
    status = Choices(required=False, label=_("Status"), choices=STATUSES)
    modality = Choices(required=False, label=_("Modality"), choices=[(m, m) for m in MODALITIES])
    priority = Choices(required=False, label=_("Priority"), choices=Priority.choices)
    assigned = forms.ChoiceField(
        required=False, label=_("Reader"), error_messages={"invalid_choice": _("nobody whom you see.")}
    )
    site = forms.ModelMultipleChoiceField(
        Site.objects.none(),
        required=False,
        label=_("Site"),
        to_field_name="slug",
        widget=forms.CheckboxSelectMultiple,
        error_messages={"invalid_choice": _("it’s none of those that you see.")},
    )
    group = forms.ModelChoiceField(
        ReadingGroup.objects.none(),
        required=False,
        label=_("Reading group"),
        empty_label=_("All"),
        error_messages={"invalid_choice": _("it’s none of those that you see.")},
    )
    body_part = Choices(required=False, label=_("Body part"), choices=[(part, body_part(part)) for part in BODY_PARTS])
    description = forms.CharField(required=False, max_length=120, label=_("Study has the words"))
    referrer = forms.CharField(required=False, max_length=120, label=_("Referrer"))
    accession_number = forms.CharField(required=False, max_length=64, label=_("Accession"))
    late = forms.BooleanField(required=False, label=_("Overdue only"))
    since = forms.DateField(required=False, label=_("From"), widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(required=False, label=_("To"), widget=forms.DateInput(attrs={"type": "date"}))

    MENUS = ("status", "modality", "priority", "site")
    MORE = ("group", "body_part", "description", "referrer", "accession_number", "since", "until", "late")

    def __init__(self, data: Any, *, principal: Principal) -> None:
        super().__init__(data)
        # Teaching files wait on no worklist.
        site_ids = {site_id for _capability, site_id in principal.grants if site_id is not None}
        site_ids -= principal.teaching_site_ids
        is_everywhere = any(site_id is None for _capability, site_id in principal.grants)
        sites = Site.objects.filter(is_teaching=False) if is_everywhere else Site.objects.filter(pk__in=site_ids)
        self.fields["site"].queryset = sites  # type: ignore[attr-defined]
        # A shared filter may name a site that isn't the reader's; one's only site needs no menu.
        if (sites.count() if is_everywhere else len(site_ids)) < 2:
            self.fields["site"].widget = forms.MultipleHiddenInput()
        self.fields["q"].widget.attrs |= {
            "placeholder": _("Name or ID"),
            "autocomplete": "off",
            "data-key": "/",
            "data-key-label": _("Find a patient"),
        }
        if principal.may(Capability.STUDY_VIEW):
            self.fields["group"].queryset = groups_seen_by(principal)  # type: ignore[attr-defined]
            # Asked for, once, only where the field is drawn or has a value.
            self.fields["assigned"].choices = cache(  # type: ignore[attr-defined]
                lambda: [
                    ("", _("All")),
                    ("me", _("Mine")),
                    ("me_or_nobody", _("Mine and nobody's")),
                    ("nobody", _("Nobody's")),
                    *((str(user.pk), str(user)) for user in readers_at(sites.values_list("pk", flat=True))),
                ]
            )
        else:
            for name in ("group", "assigned", "priority", "status", "late"):
                del self.fields[name]

    def query(self) -> QueryDict:
        """Give what was asked for as a query string, without what is empty or unknown."""
        asked = QueryDict(mutable=True)
        for name in self.fields:
            if self.cleaned_data.get(name):
                values = self.data.getlist(name) if hasattr(self.data, "getlist") else [self.data[name]]
                asked.setlist(name, [value for value in values if value])
        return asked


class SavedFilterForm(forms.Form):
    """A saved filter's name, and who sees it."""

    name = forms.CharField(max_length=60, label=_("Name"))
    share = forms.ChoiceField(required=False, label=_("For"))

    def __init__(self, data: Any = None, *, principal: Principal, kept: SavedFilter | None = None) -> None:
        super().__init__(data, initial={"name": kept.name, "share": _share(kept)} if kept else None)
        self.principal, self.kept = principal, kept
        self.groups = {f"group:{group.pk}": group for group in groups_shared_with(principal)}
        self.roles = {f"role:{role.pk}": role for role in roles_shared_with(principal)}
        if kept is not None and kept.group is not None:
            self.groups.setdefault(_share(kept), kept.group)
        if kept is not None and kept.role is not None:
            self.roles.setdefault(_share(kept), kept.role)
        self.fields["share"].choices = [  # type: ignore[attr-defined]
            ("", _("Only me")),
            *((key, f"{group} ({group.site})") for key, group in self.groups.items()),
            *((key, format_lazy("{} {}", _("Every"), role)) for key, role in self.roles.items()),
        ]

    def clean_name(self) -> str:
        """Refuse the name of another filter of one's own."""
        name: str = self.cleaned_data["name"]
        others = SavedFilter.objects.filter(user=self.principal.user, name=name)
        if self.kept is not None and others.exclude(pk=self.kept.pk).exists():
            raise forms.ValidationError(_("You have a filter of that name already."))
        return name

    def clean(self) -> dict[str, Any]:
        """Give the name and the group or role."""
        share = self.cleaned_data.get("share", "")
        return {
            "name": self.cleaned_data.get("name", ""),
            "group": self.groups.get(share),
            "role": self.roles.get(share),
        }


def _share(kept: SavedFilter) -> str:
    if kept.group_id is not None:
        return f"group:{kept.group_id}"
    return f"role:{kept.role_id}" if kept.role_id is not None else ""


class WordsField(forms.CharField):
    """Words separated by commas, kept as a list."""

    def __init__(self, *, upper: bool = False, **options: Any) -> None:
        super().__init__(required=False, max_length=400, **options)
        self.upper = upper

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> list[str]:  # type: ignore[override]
        words = [word.strip() for word in str(value or "").split(",") if word.strip()]
        return [word.upper() for word in words] if self.upper else words


def _offer(field: Any, choices: Any) -> None:
    """Offer what there is to choose, and choose the only one."""
    field.queryset = choices
    if len(choices) == 1:
        field.empty_label = None


class ReadingGroupForm(forms.ModelForm):
    """A reading group, its members and what is theirs to read."""

    modalities = WordsField(upper=True, label=_("Modalities"), help_text=_("CT, MR; empty: any."))
    body_parts = WordsField(upper=True, label=_("Body parts"), help_text=_("HEAD, BRAIN; empty: any."))
    words = WordsField(label=_("Words in the description"), help_text=_("head, brain, stroke; empty: any."))
    members = forms.ModelMultipleChoiceField(
        User.objects.none(), required=False, label=_("Members"), widget=forms.CheckboxSelectMultiple
    )

    class Meta:
        model = ReadingGroup
        fields = ["site", "name", "modalities", "body_parts", "words", "members"]

    def __init__(self, *arguments: Any, principal: Principal, **options: Any) -> None:
        super().__init__(*arguments, **options)
        sites = sites_where(principal, Capability.CASE_ASSIGN)
        _offer(self.fields["site"], sites)
        readers = readers_at(sites.values_list("pk", flat=True))
        self.fields["members"].queryset = readers  # type: ignore[attr-defined]
        if not readers:
            self.fields["members"].help_text = _("Nobody may write reports here yet: give people a role that does.")


class AssignmentRuleForm(forms.ModelForm):
    """A rule."""

    class Meta:
        model = AssignmentRule
        fields = ["group", "rank", "only_on_shift", "is_active"]
        labels = {"rank": _("Rank"), "only_on_shift": _("Only readers on duty"), "is_active": _("Active")}

    def __init__(self, *arguments: Any, principal: Principal, **options: Any) -> None:
        super().__init__(*arguments, **options)
        sites = sites_where(principal, Capability.CASE_ASSIGN)
        _offer(self.fields["group"], ReadingGroup.objects.filter(site__in=sites))


class ShiftForm(forms.ModelForm):
    """A reader's time on duty."""

    class Meta:
        model = Shift
        fields = ["site", "user", "starts_at", "ends_at"]
        labels = {"user": _("Reader"), "starts_at": _("From (UTC)"), "ends_at": _("To (UTC)")}
        widgets = {
            name: forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")
            for name in ("starts_at", "ends_at")
        }

    def __init__(self, *arguments: Any, principal: Principal, **options: Any) -> None:
        super().__init__(*arguments, **options)
        sites = sites_where(principal, Capability.CASE_ASSIGN)
        _offer(self.fields["site"], sites)
        self.fields["user"].queryset = readers_at(sites.values_list("pk", flat=True))  # type: ignore[attr-defined]


class TurnaroundTargetForm(forms.ModelForm):
    """A turnaround target."""

    class Meta:
        model = TurnaroundTarget
        fields = ["site", "priority", "modality", "minutes"]
        labels = {"modality": _("Modality"), "minutes": _("Minutes")}
        help_texts = {"modality": _("Empty: every modality.")}

    def __init__(self, *arguments: Any, principal: Principal, **options: Any) -> None:
        super().__init__(*arguments, **options)
        sites = sites_where(principal, Capability.CASE_ASSIGN)
        _offer(self.fields["site"], sites)
