"""Sites, people, what they may do where, and the tokens of their programs."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.utils import timezone


class Site(models.Model):
    """A hospital, department or practice that keeps its studies apart from the others'."""

    slug = models.SlugField(max_length=32, unique=True)
    name = models.CharField(max_length=120)
    is_teaching = models.BooleanField(
        default=False, help_text="Holds de-identified copies, seen by all who may make teaching files."
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class User(AbstractUser):
    """A person or a program with an account."""

    class Theme(models.TextChoices):
        AUTO = "auto", "As the device"
        LIGHT = "light", "Light"
        DARK = "dark", "Dark"

    theme = models.CharField(max_length=5, choices=Theme.choices, default=Theme.AUTO)

    def __str__(self) -> str:
        return self.get_full_name() or self.username


class Role(models.Model):
    """A named set of capabilities."""

    slug = models.SlugField(max_length=32, unique=True)
    name = models.CharField(max_length=80)
    capabilities = models.JSONField(default=list)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A role held by a user at a site; without a site, at every site of the installation."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.ForeignKey(Role, on_delete=models.PROTECT, related_name="memberships")
    site = models.ForeignKey(Site, on_delete=models.CASCADE, null=True, blank=True, related_name="memberships")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "role", "site"], name="membership_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} {self.role_id} {self.site_id}"


class Practice(models.Model):
    """Referring clinicians who see each other's patients."""

    name = models.CharField(max_length=120, unique=True)
    members = models.ManyToManyField(User, related_name="practices", blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class ApiToken(models.Model):
    """A bearer token of a program that acts for a user; only its hash is kept."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=80)
    digest = models.CharField(max_length=64, unique=True)
    capabilities = models.JSONField(default=list, help_text="Empty: all that the user may.")
    site = models.ForeignKey(Site, on_delete=models.CASCADE, null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name

    @property
    def is_valid(self) -> bool:
        return self.revoked_at is None and self.expires_at > timezone.now()


class Notification(models.Model):
    """Something that a person should know; its text names no patient, as it may leave by e-mail."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="notifications")
    key = models.CharField(max_length=100, help_text="What it's about: a person is told once of a key.")
    text = models.CharField(max_length=200)
    url = models.CharField(max_length=200, help_text="Path to where it's dealt with.")
    is_urgent = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)
    read_at = models.DateTimeField(null=True)
    email_due_at = models.DateTimeField(null=True, help_text="When to try to send it; empty once sent or unwanted.")
    email_attempts = models.PositiveSmallIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="notification_once")]
        indexes = [
            models.Index(fields=["user", "-id"], name="notification_newest"),
            models.Index(
                fields=["email_due_at"], name="notification_email", condition=models.Q(email_due_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return self.text
