"""Rules by which studies find their way, and priors their way here."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from accounts.models import Site
from studies.dimse.models.network import Node
from studies.models import Priority, Study


class RoutingRule(models.Model):
    """Where studies of a site go when all of the rule's conditions hold, and how they're changed on the way."""

    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="routing_rules")
    name = models.CharField(max_length=80)
    order = models.PositiveIntegerField(default=100, help_text="Small ones first.")
    is_active = models.BooleanField(default=True)
    conditions = models.JSONField(default=list, blank=True, help_text="[{attribute, operator, value}]; all must hold.")
    nodes = models.ManyToManyField(Node, blank=True, related_name="routing_rules")
    assign_to = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    reading_group = models.CharField(max_length=60, blank=True)
    set_priority = models.CharField(max_length=8, choices=Priority.choices, blank=True)
    coercions_in = models.JSONField(default=list, blank=True, help_text="[{action, attribute, value}] for the index.")
    coercions_out = models.JSONField(default=list, blank=True, help_text="The same, for what is sent.")
    deidentify = models.BooleanField(default=False)
    deidentification = models.JSONField(default=dict, blank=True, help_text="Options of the profile.")
    stops = models.BooleanField(default=False, help_text="No later rule is asked when this one applied.")

    class Meta:
        ordering = ["order", "pk"]
        constraints = [models.UniqueConstraint(fields=["site", "name"], name="routing_rule_name_unique")]

    def __str__(self) -> str:
        return self.name


class RoutedStudy(models.Model):
    """That a rule was applied to a study, and up to which instance; what comes later goes the same way."""

    rule = models.ForeignKey(RoutingRule, on_delete=models.CASCADE, related_name="routed")
    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="routed")
    last_instance_id = models.BigIntegerField(default=0)
    applied_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["rule", "study"], name="routed_once")]

    def __str__(self) -> str:
        return f"{self.rule_id} {self.study_id}"


class PrefetchRule(models.Model):
    """Which priors are fetched from where when an order or a study of the site comes."""

    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="prefetch_rules")
    name = models.CharField(max_length=80)
    is_active = models.BooleanField(default=True)
    on_order = models.BooleanField(default=True)
    on_study = models.BooleanField(default=True)
    modalities = models.JSONField(default=list, blank=True, help_text="Of the new study; empty: any.")
    same_modality = models.BooleanField(default=True)
    same_body_part = models.BooleanField(default=False)
    at_most = models.PositiveSmallIntegerField(default=3)
    within_years = models.PositiveSmallIntegerField(default=10)
    nodes = models.ManyToManyField(Node, blank=True, related_name="prefetch_rules")

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["site", "name"], name="prefetch_rule_name_unique")]

    def __str__(self) -> str:
        return self.name
