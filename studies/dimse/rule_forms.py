"""Forms for routing and prefetch rules, with rows for conditions and coercions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib.auth import get_user_model
from django.utils.translation import gettext_lazy as _

from accounts.capabilities import Capability
from accounts.models import Membership
from accounts.principals import Principal
from studies.dimse.coercion import Coercion, InvalidCoercion
from studies.dimse.conditions import ATTRIBUTES, OPERATORS, Condition, InvalidCondition
from studies.dimse.models import Node, PrefetchRule, RoutingRule
from studies.dimse.selectors import sites_with_nodes_of
from studies.dimse.transfer_forms import PROFILE_OPTIONS

EMPTY_ROWS = 2
MOST_ROWS = 40
COERCION_ACTIONS = (
    ("set", _("set to")),
    ("prefix", _("prefix by")),
    ("replace", _("in it, replace")),
    ("remove", _("remove")),
)


class ConditionRow(forms.Form):
    """One condition; an empty row is none."""

    attribute = forms.ChoiceField(required=False, choices=[("", "–"), *ATTRIBUTES], label=_("What"))
    operator = forms.ChoiceField(required=False, choices=OPERATORS, label=_("Comparison"))
    value = forms.CharField(required=False, max_length=300, label=_("Value"))

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("attribute"):
            try:
                Condition.of(cleaned)
            except InvalidCondition as error:
                raise forms.ValidationError(str(error)) from error
        return cleaned

    def kept(self) -> dict[str, str] | None:
        """Give what the rule keeps of the row."""
        return Condition.of(self.cleaned_data).as_kept() if self.cleaned_data.get("attribute") else None


class CoercionRow(forms.Form):
    """One coercion; an empty row is none."""

    attribute = forms.CharField(
        required=False, max_length=64, label=_("Attribute"), widget=forms.TextInput(attrs={"placeholder": "PatientID"})
    )
    action = forms.ChoiceField(required=False, choices=COERCION_ACTIONS, label=_("Change"))
    value = forms.CharField(required=False, max_length=300, label=_("Value"))
    replacement = forms.CharField(required=False, max_length=300, label=_("Replacement"))

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("attribute"):
            try:
                Coercion.of(cleaned)
            except InvalidCoercion as error:
                raise forms.ValidationError(str(error)) from error
        return cleaned

    def kept(self) -> dict[str, str] | None:
        """Give what the rule keeps of the row."""
        return Coercion.of(self.cleaned_data).as_kept() if self.cleaned_data.get("attribute") else None


def _rows(kind: Any, data: Any, initial: Sequence[dict[str, str]], prefix: str) -> Any:
    made = forms.formset_factory(kind, extra=EMPTY_ROWS, max_num=MOST_ROWS, absolute_max=MOST_ROWS)
    return made(data, initial=list(initial), prefix=prefix)


class RoutingRuleForm(forms.ModelForm):
    """One routing rule; sites and nodes on offer are those that the principal manages."""

    deidentification = forms.MultipleChoiceField(
        required=False, choices=PROFILE_OPTIONS, widget=forms.CheckboxSelectMultiple, label=_("When de-identifying")
    )

    class Meta:
        model = RoutingRule
        fields = [
            "name",
            "site",
            "order",
            "is_active",
            "stops",
            "nodes",
            "reading_group",
            "assign_to",
            "set_priority",
            "deidentify",
            "deidentification",
        ]
        labels = {
            "order": _("Order"),
            "is_active": _("Active"),
            "stops": _("Last rule: where it applies, no later rule is asked"),
            "nodes": _("Send to"),
            "reading_group": _("Give to the reading group"),
            "assign_to": _("Assign to"),
            "set_priority": _("Set the priority"),
            "deidentify": _("De-identify what is sent (PS3.15 basic profile)"),
        }
        help_texts = {
            "order": _("Small numbers are asked first."),
            "stops": "",
            "conditions": "",
        }
        widgets = {"nodes": forms.CheckboxSelectMultiple}

    def __init__(self, data: Any = None, *, principal: Principal, instance: RoutingRule) -> None:
        super().__init__(data, instance=instance, initial={"deidentification": _chosen(instance.deidentification)})
        sites = sites_with_nodes_of(principal)
        self.fields["site"].queryset = sites  # type: ignore[attr-defined]
        if len(sites) == 1:
            self.fields["site"].initial = sites[0].pk
        self.fields["nodes"].queryset = Node.objects.filter(site__in=sites, may_receive=True)  # type: ignore[attr-defined]
        self.fields["assign_to"].queryset = _readers(sites)  # type: ignore[attr-defined]
        self.reading_groups = _reading_groups(sites)
        self.fields["reading_group"] = forms.ChoiceField(
            required=False,
            label=self.fields["reading_group"].label,
            choices=_as_choices(self.reading_groups, kept=instance.reading_group),
        )
        self.conditions = _rows(ConditionRow, data, instance.conditions, "conditions")
        self.coercions_in = _rows(CoercionRow, data, instance.coercions_in, "in")
        self.coercions_out = _rows(CoercionRow, data, instance.coercions_out, "out")

    def is_valid(self) -> bool:
        rows = [self.conditions.is_valid(), self.coercions_in.is_valid(), self.coercions_out.is_valid()]
        return super().is_valid() and all(rows)

    def clean_deidentification(self) -> dict[str, bool]:
        return dict.fromkeys(self.cleaned_data["deidentification"], True)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        site = cleaned.get("site")
        foreign = [node.ae_title for node in cleaned.get("nodes") or [] if site and node.site_id != site.pk]
        if foreign:
            self.add_error("nodes", _("%(node)s belongs to another site.") % {"node": foreign[0]})
        group = cleaned.get("reading_group")
        if group and site and group not in self.reading_groups.get(site.name, []):
            self.add_error("reading_group", _("%(site)s has no reading group of this name.") % {"site": site.name})
        return cleaned

    def take_rows(self) -> None:
        """Put the rows of a valid form into the rule."""
        for name in ("conditions", "coercions_in", "coercions_out"):
            kept = [row.kept() for row in getattr(self, name)]
            setattr(self.instance, name, [one for one in kept if one is not None])


def _chosen(options: dict[str, Any]) -> list[str]:
    return [name for name, value in options.items() if value]


def _reading_groups(sites: Any) -> dict[str, list[str]]:
    """Give the names of the sites' reading groups, by the site's name. The groups are the worklists' room's."""
    names: dict[str, list[str]] = {}
    named = sites.filter(reading_groups__isnull=False).order_by("name", "reading_groups__name")
    for site, group in named.values_list("name", "reading_groups__name"):
        names.setdefault(site, []).append(group)
    return names


def _as_choices(groups: dict[str, list[str]], *, kept: str) -> list[Any]:
    """Give choices under their sites' names, and one for a kept name that no group has any longer."""
    choices: list[Any] = [("", "–"), *((site, [(name, name) for name in names]) for site, names in groups.items())]
    if kept and not any(kept in names for names in groups.values()):
        choices.append((kept, _("%(name)s (no longer there)") % {"name": kept}))
    return choices


def _readers(sites: Any) -> Any:
    memberships = Membership.objects.filter(site__in=sites) | Membership.objects.filter(site__isnull=True)
    ids = [
        user
        for user, capabilities in memberships.values_list("user", "role__capabilities")
        if Capability.REPORT_WRITE in capabilities
    ]
    return get_user_model().objects.filter(pk__in=ids, is_active=True).order_by("username")


class ModalitiesField(forms.CharField):
    """Modalities separated by commas or spaces."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> list[str]:  # type: ignore[override]
        words = [word.upper() for word in (value or "").replace(",", " ").split()]
        if any(len(word) > 16 or not word.isalnum() for word in words):
            raise forms.ValidationError(_("Write modalities like CT, MR."))
        return words


class PrefetchRuleForm(forms.ModelForm):
    """One prefetch rule."""

    modalities = ModalitiesField(
        required=False, label=_("For modalities"), help_text=_("Of the new order or study: CT, MR. Empty: any.")
    )
    at_most = forms.IntegerField(min_value=1, max_value=20, initial=3, label=_("Priors at most"))
    within_years = forms.IntegerField(min_value=1, max_value=50, initial=10, label=_("Not older than (years)"))

    class Meta:
        model = PrefetchRule
        fields = [
            "name",
            "site",
            "is_active",
            "on_order",
            "on_study",
            "modalities",
            "same_modality",
            "same_body_part",
            "at_most",
            "within_years",
            "nodes",
        ]
        labels = {
            "is_active": _("Active"),
            "on_order": _("When an order is placed"),
            "on_study": _("When a study arrives"),
            "same_modality": _("Only priors of the same modality"),
            "same_body_part": _("Only priors of the same body part"),
            "nodes": _("Search and fetch from"),
        }
        widgets = {"nodes": forms.CheckboxSelectMultiple}

    def __init__(self, data: Any = None, *, principal: Principal, instance: PrefetchRule) -> None:
        super().__init__(data, instance=instance)
        sites = sites_with_nodes_of(principal)
        self.fields["site"].queryset = sites  # type: ignore[attr-defined]
        if len(sites) == 1:
            self.fields["site"].initial = sites[0].pk
        self.fields["nodes"].queryset = Node.objects.filter(  # type: ignore[attr-defined]
            site__in=sites, may_be_queried=True
        )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        site = cleaned.get("site")
        foreign = [node.ae_title for node in cleaned.get("nodes") or [] if site and node.site_id != site.pk]
        if foreign:
            self.add_error("nodes", _("%(node)s belongs to another site.") % {"node": foreign[0]})
        return cleaned
