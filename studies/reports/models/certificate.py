"""With what a site signs its PDFs."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from accounts.models import Site


class SiteCertificate(models.Model):
    """A site's signing key and certificate; the newest signs, older ones stay to verify what they signed."""

    class Origin(models.TextChoices):
        MADE = "made", "Made here"
        UPLOADED = "uploaded", "Uploaded"

    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="certificates")
    origin = models.CharField(max_length=8, choices=Origin.choices)
    subject = models.CharField(max_length=300)
    sha256 = models.CharField(max_length=64, help_text="Fingerprint, hexadecimal.")
    certificate = models.TextField(help_text="PEM.")
    chain = models.TextField(blank=True, help_text="Issuers up to the root, PEM.")
    encrypted_key = models.TextField(help_text="PKCS#8 PEM, encrypted with a key derived from the secret key.")
    not_before = models.DateTimeField()
    not_after = models.DateTimeField()
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["site", "-id"], name="site_certificate_newest")]

    def __str__(self) -> str:
        return self.subject
