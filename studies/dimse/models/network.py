"""The nodes of the DICOM network, and who is or was connected."""

from __future__ import annotations

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator, URLValidator
from django.db import models
from django.db.models import Q

from accounts.models import Site


class Node(models.Model):
    """A DICOM application that may talk to us or that we talk to, and what each side may do.

    ``ae_title`` names the node also where it speaks DICOMweb and needs none.
    """

    class Kind(models.TextChoices):
        DIMSE = "dimse", "DICOM network (DIMSE)"
        DICOMWEB = "dicomweb", "DICOMweb"

    class Credentials(models.TextChoices):
        NONE = "none", "None"
        BEARER = "bearer", "Bearer token"
        BASIC = "basic", "User name and password"

    class RetrieveBy(models.TextChoices):
        AUTOMATIC = "auto", "C-GET, or C-MOVE where the node knows no C-GET"
        GET = "get", "C-GET"
        MOVE = "move", "C-MOVE"

    class CharacterSet(models.TextChoices):
        """Specific Character Set (0008,0005): what a node means that doesn't say, or says it wrongly."""

        DECLARED = "", "As declared"
        LATIN_1 = "ISO_IR 100", "Western European (ISO_IR 100)"
        LATIN_2 = "ISO_IR 101", "Central European (ISO_IR 101)"
        CYRILLIC = "ISO_IR 144", "Cyrillic (ISO_IR 144)"
        ARABIC = "ISO_IR 127", "Arabic (ISO_IR 127)"
        GREEK = "ISO_IR 126", "Greek (ISO_IR 126)"
        HEBREW = "ISO_IR 138", "Hebrew (ISO_IR 138)"
        LATIN_5 = "ISO_IR 148", "Turkish (ISO_IR 148)"
        JAPANESE = "\\ISO 2022 IR 87", "Japanese (ISO 2022 IR 87)"
        KOREAN = "\\ISO 2022 IR 149", "Korean (ISO 2022 IR 149)"
        CHINESE = "GB18030", "Chinese (GB18030)"
        UNICODE = "ISO_IR 192", "Unicode (ISO_IR 192)"

    ae_title = models.CharField(
        max_length=16, unique=True, validators=[RegexValidator(r"^[\x20-\x5b\x5d-\x7e]{1,16}$", "1 to 16 characters.")]
    )
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.DIMSE)
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="nodes")
    description = models.CharField(max_length=120, blank=True)
    is_active = models.BooleanField(default=True)

    host = models.CharField(max_length=255, blank=True)
    port = models.PositiveIntegerField(null=True, blank=True)
    uses_tls = models.BooleanField(default=False, help_text="We call it by TLS, and it must call us by TLS.")
    calling_ae_title = models.CharField(max_length=16, blank=True, help_text="Ours towards it; empty: the usual one.")
    base_url = models.CharField(
        max_length=300, blank=True, validators=[URLValidator(["http", "https"])], help_text="DICOMweb root."
    )
    credentials = models.CharField(max_length=8, choices=Credentials.choices, default=Credentials.NONE)
    username = models.CharField(max_length=150, blank=True)
    sealed_secret = models.TextField(blank=True, help_text="Token or password, by portal.sealing.")

    may_store = models.BooleanField(default=True)
    may_query = models.BooleanField(default=False)
    may_retrieve = models.BooleanField(default=False)
    may_perform = models.BooleanField(
        default=False, help_text="Workitems (UPS): make, see, claim, complete, subscribe."
    )
    may_worklist = models.BooleanField(default=False, help_text="Modality worklist and performed procedure steps.")
    allowed_addresses = models.JSONField(default=list, blank=True, help_text="Networks in CIDR form; empty: any.")
    maximum_associations = models.PositiveSmallIntegerField(
        default=16, validators=[MinValueValidator(1), MaxValueValidator(256)]
    )
    wants_availability_notification = models.BooleanField(default=False)

    may_receive = models.BooleanField(default=False, help_text="People and rules may send studies to it.")
    may_be_queried = models.BooleanField(default=False, help_text="We search it and retrieve from it.")
    retrieve_by = models.CharField(max_length=4, choices=RetrieveBy.choices, default=RetrieveBy.AUTOMATIC)
    character_set = models.CharField(max_length=20, choices=CharacterSet.choices, blank=True)
    transfer_syntaxes = models.JSONField(
        default=list, blank=True, help_text="Transfer Syntax UIDs that it can read; empty: whatever it accepts."
    )
    allows_lossy = models.BooleanField(default=False, help_text="May be sent lossy copies where nothing else fits.")

    class Meta:
        ordering = ["ae_title"]

    def __str__(self) -> str:
        return self.ae_title

    @property
    def is_dicomweb(self) -> bool:
        return self.kind == self.Kind.DICOMWEB

    @property
    def can_be_called(self) -> bool:
        """Say whether we know where it is."""
        return bool(self.base_url) if self.is_dicomweb else bool(self.host and self.port)


class AssociationLog(models.Model):
    """An association with a node, live while ``closed_at`` is empty.

    ``recent`` holds triples of the last minute: seconds since the epoch, instances and bytes that had passed till then.
    """

    class Outcome(models.TextChoices):
        LIVE = "live", "Live"
        RELEASED = "released", "Released"
        ABORTED = "aborted", "Aborted"
        LOST = "lost", "The listener stopped"

    node = models.ForeignKey(Node, null=True, on_delete=models.SET_NULL, related_name="associations")
    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="+")
    ae_title = models.CharField(max_length=16)
    address = models.CharField(max_length=45)
    uses_tls = models.BooleanField(default=False)
    is_outgoing = models.BooleanField(default=False, help_text="We requested it.")
    listener = models.CharField(max_length=80, help_text="Host name and process id, so that a dead one's are closed.")
    outcome = models.CharField(max_length=8, choices=Outcome.choices, default=Outcome.LIVE)
    opened_at = models.DateTimeField(auto_now_add=True)
    closed_at = models.DateTimeField(null=True)
    stored = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    received_bytes = models.BigIntegerField(default=0)
    sent = models.PositiveIntegerField(default=0)
    sent_bytes = models.BigIntegerField(default=0)
    recent = models.JSONField(default=list)
    requests = models.JSONField(default=dict, help_text="Other requests by their DIMSE name: how many.")
    last_error = models.CharField(max_length=200, blank=True, help_text="In plain words, never patient data.")

    class Meta:
        indexes = [
            models.Index(fields=["node", "-opened_at"], name="association_by_node"),
            models.Index(fields=["-opened_at"], name="association_by_time"),
            models.Index(fields=["listener"], name="association_live", condition=Q(closed_at__isnull=True)),
        ]

    def __str__(self) -> str:
        return f"{self.ae_title} {self.opened_at}"


class AvailabilityNotice(models.Model):
    """What a node told of instances that can be had somewhere (Instance Availability Notification)."""

    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="availability_notices")
    ae_title = models.CharField(max_length=16)
    sop_instance_uid = models.CharField(max_length=64)
    study_instance_uid = models.CharField(max_length=64)
    instances = models.PositiveIntegerField()
    content = models.JSONField(help_text="DICOM JSON.")
    received_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["sop_instance_uid", "site"], name="availability_notice_unique"),
        ]
        indexes = [models.Index(fields=["study_instance_uid"], name="availability_by_study")]

    def __str__(self) -> str:
        return f"{self.ae_title} {self.study_instance_uid}"
