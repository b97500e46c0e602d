"""Patient, study, series, instance: the DICOM information model (PS3.3 A.1.2), a partition for each site.

The same Study Instance UID may be held by two sites; each has its own rows and objects, so that neither
learns of the other's.
"""

from __future__ import annotations

from array import array

from django.conf import settings
from django.db import models
from django.db.models.functions import Coalesce
from django.utils import timezone

from accounts.models import Practice, Site

UID_LENGTH = 64
PN_LENGTH = 324


class Patient(models.Model):
    """A person as one site knows them."""

    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="patients")
    # The patient ID with its issuer, or, where a study came without an ID, that study: nameless people aren't merged.
    identity = models.CharField(max_length=140)
    patient_id = models.CharField(max_length=64, blank=True)
    issuer_of_patient_id = models.CharField(max_length=64, blank=True)
    patient_name = models.CharField(max_length=PN_LENGTH, blank=True)
    patient_birth_date = models.DateField(null=True)
    patient_sex = models.CharField(max_length=16, blank=True)
    merged_into = models.ForeignKey(
        "self",
        null=True,
        on_delete=models.PROTECT,
        related_name="merged_patients",
        help_text="The same person's record.",
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["site", "identity"], name="patient_identity_unique")]
        indexes = [models.Index(fields=["patient_id", "site"], name="patient_patient_id")]

    def __str__(self) -> str:
        return self.patient_id or self.identity


class ReferringPhysician(models.Model):
    """A referring physician as named by a site's studies; linked to an account or a practice by hand, never by name."""

    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="referring_physicians")
    name = models.CharField(max_length=PN_LENGTH)
    name_search = models.CharField(max_length=PN_LENGTH)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="referring_physicians"
    )
    practice = models.ForeignKey(
        Practice, null=True, blank=True, on_delete=models.SET_NULL, related_name="referring_physicians"
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["site", "name_search"], name="referring_physician_unique")]

    def __str__(self) -> str:
        return self.name


class NameForm(models.Model):
    """A form by which a person name that occurs can be found: a group in another script, or how a component sounds.

    A dictionary of names, not of people: rows are only ever added, whatever happens to the studies.
    """

    class Kind(models.TextChoices):
        GROUP = "group", "Ideographic or phonetic group"
        SOUND = "sound", "Phonetic code of a component"

    kind = models.CharField(max_length=5, choices=Kind.choices)
    form = models.CharField(max_length=PN_LENGTH)
    component = models.PositiveSmallIntegerField(default=0, help_text="0 family name, 1 given name, and so on.")
    name_search = models.CharField(max_length=PN_LENGTH)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "form", "component", "name_search"],
                name="name_form_unique",
                opclasses=["varchar_pattern_ops", "varchar_pattern_ops", "int2_ops", "varchar_pattern_ops"],
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.form}"


class Priority(models.TextChoices):
    """How soon a requested procedure is wanted (Requested Procedure Priority, (0040,1003))."""

    STAT = "STAT", "STAT"
    HIGH = "HIGH", "High"
    MEDIUM = "MEDIUM", "Medium"
    ROUTINE = "ROUTINE", "Routine"
    LOW = "LOW", "Low"


class Study(models.Model):
    """An imaging study with what worklists and QIDO-RS filter and sort by.

    The patient's name and ID are kept beside it as well: a list is one index walk, without a join.
    ``attributes`` is the study level's DICOM JSON (PS3.18 F.2) as received, original DA, TM and PN texts included.
    """

    class Status(models.TextChoices):
        ACQUIRING = "acquiring", "Being acquired"
        ARRIVED = "arrived", "Arrived"
        IN_READING = "in_reading", "In reading"
        PRELIMINARY = "preliminary", "Preliminary"
        FINAL = "final", "Final"
        ADDENDED = "addended", "Addended"
        CANCELLED = "cancelled", "Cancelled"

    class Tier(models.TextChoices):
        """Where the archive wants the study's objects; where one lies while they move, storage knows."""

        HOT = "hot", "Hot"
        COLD = "cold", "Cold"

    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="studies")
    patient = models.ForeignKey(Patient, on_delete=models.PROTECT, related_name="studies")
    study_instance_uid = models.CharField(max_length=UID_LENGTH)
    patient_id_value = models.CharField(max_length=64, blank=True)
    patient_name = models.CharField(max_length=PN_LENGTH, blank=True)
    patient_name_search = models.CharField(max_length=PN_LENGTH, blank=True)
    study_date = models.DateField(null=True)
    study_time = models.TimeField(null=True)
    # By which lists are sorted: studies without a date come last on every database.
    sort_date = models.GeneratedField(
        expression=Coalesce("study_date", models.Value("0001-01-01", output_field=models.DateField())),
        output_field=models.DateField(),
        db_persist=True,
    )
    accession_number = models.CharField(max_length=64, blank=True)
    study_id = models.CharField(max_length=64, blank=True)
    study_description = models.CharField(max_length=256, blank=True)
    institution_name = models.CharField(max_length=256, blank=True)
    referring_physician = models.ForeignKey(
        ReferringPhysician, null=True, on_delete=models.SET_NULL, related_name="studies"
    )
    referring_physician_name = models.CharField(max_length=PN_LENGTH, blank=True)
    modalities_in_study = models.CharField(max_length=128, blank=True, help_text="Sorted, joined by backslashes.")
    number_of_series = models.PositiveIntegerField(default=0)
    number_of_instances = models.PositiveIntegerField(default=0)
    has_conflict = models.BooleanField(default=False, help_text="An instance came again with other bytes.")
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.ARRIVED)
    status_at = models.DateTimeField(auto_now_add=True)
    priority = models.CharField(max_length=8, choices=Priority.choices, default=Priority.ROUTINE)
    # By which lists are sorted: the most urgent first.
    priority_rank = models.GeneratedField(
        expression=models.Case(
            *(models.When(priority=value, then=rank) for rank, value in enumerate(Priority.values)),
            default=len(Priority.values),
        ),
        output_field=models.PositiveSmallIntegerField(),
        db_persist=True,
    )
    body_part_examined = models.CharField(max_length=64, blank=True, help_text="Of its series, joined by backslashes.")
    assigned_to = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="assigned_studies"
    )
    claimed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="claimed_studies"
    )
    claimed_until = models.DateTimeField(null=True, help_text="When the claim lapses unless renewed.")
    corrections = models.JSONField(
        default=dict,
        help_text="DICOM JSON that replaces the received attributes in all that leaves; the originals stay.",
    )
    attributes = models.JSONField(default=dict)
    received_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    source_ae_title = models.CharField(max_length=16, blank=True, help_text="Of the node that sent it first.")
    unsettled_since = models.DateTimeField(
        null=True, help_text="When the first instances came that study.settled hasn't told of; see studies.arrival."
    )
    tier = models.CharField(max_length=4, choices=Tier.choices, default=Tier.HOT)
    used_at = models.DateTimeField(
        default=timezone.now,
        help_text="When it was last wanted, as far as the search for studies to move to the cold tier has found out.",
    )

    class Meta:
        verbose_name_plural = "studies"
        constraints = [
            models.UniqueConstraint(fields=["study_instance_uid", "site"], name="study_uid_unique"),
        ]
        indexes = [
            # The trailing columns let a page's ids be found in the index alone, however deep the page lies.
            models.Index(
                fields=["site", "-sort_date", "-id", "number_of_instances", "modalities_in_study"],
                name="study_by_date",
            ),
            models.Index(
                fields=[
                    *("-sort_date", "-id", "site", "number_of_instances", "modalities_in_study", "referring_physician")
                ],
                name="study_by_date_alone",
            ),
            models.Index(
                fields=["patient_name_search", "sort_date", "id", "site", "number_of_instances"],
                name="study_by_name",
                opclasses=["varchar_pattern_ops", "date_ops", "int8_ops", "int8_ops", "int4_ops"],
            ),
            # Without the site in front: whoever sees several sites gets them in one order.
            models.Index(fields=["-received_at", "-id", "site"], name="study_by_arrival"),
            models.Index(fields=["site", "status", "-study_date", "-id"], name="study_by_status"),
            models.Index(fields=["patient_id_value"], name="study_by_patient_id", opclasses=["varchar_pattern_ops"]),
            models.Index(fields=["accession_number"], name="study_by_accession", opclasses=["varchar_pattern_ops"]),
            models.Index(fields=["study_id"], name="study_by_study_id", opclasses=["varchar_pattern_ops"]),
            models.Index(fields=["referring_physician", "-sort_date", "-id"], name="study_by_referrer"),
            models.Index(
                fields=["unsettled_since"], name="study_unsettled", condition=models.Q(unsettled_since__isnull=False)
            ),
            # Few studies wait for a reader at a time: whatever a worklist asks of them is found among these.
            # The trailing columns let most filters be answered by the index alone.
            models.Index(
                fields=[
                    *("site", "priority_rank", "sort_date", "id", "status", "priority", "assigned_to"),
                    *("modalities_in_study", "body_part_examined", "received_at"),
                ],
                name="study_open",
                condition=models.Q(status__in=["arrived", "in_reading", "preliminary"]),
            ),
            # Which studies have lain in the hot tier the longest without being wanted.
            models.Index(fields=["site", "used_at"], name="study_unused", condition=models.Q(tier="hot")),
        ]

    def __str__(self) -> str:
        return self.study_instance_uid

    @property
    def modalities(self) -> list[str]:
        return self.modalities_in_study.split("\\") if self.modalities_in_study else []


class Series(models.Model):
    """A series; ``revision`` counts its changes, so that anything built from it knows when it's stale."""

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="series")
    series_instance_uid = models.CharField(max_length=UID_LENGTH)
    modality = models.CharField(max_length=16, blank=True)
    series_number = models.BigIntegerField(null=True)
    series_description = models.CharField(max_length=256, blank=True)
    body_part_examined = models.CharField(max_length=32, blank=True)
    number_of_instances = models.PositiveIntegerField(default=0)
    revision = models.PositiveIntegerField(default=0)
    metadata_due_at = models.DateTimeField(null=True, help_text="When to build its metadata; null once they are.")
    attributes = models.JSONField(default=dict)
    received_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "series"
        constraints = [
            models.UniqueConstraint(fields=["study", "series_instance_uid"], name="series_uid_unique"),
        ]
        indexes = [
            models.Index(fields=["series_instance_uid"], name="series_by_uid"),
            models.Index(fields=["study", "series_number", "id"], name="series_in_order"),
            models.Index(
                fields=["metadata_due_at"],
                name="series_metadata_due",
                condition=models.Q(metadata_due_at__isnull=False),
            ),
            models.Index(fields=["modality", "study"], name="series_by_modality"),
        ]

    def __str__(self) -> str:
        return self.series_instance_uid


class Instance(models.Model):
    """An instance and where its bytes lie: (object key, offset, length, sha256).

    Frames are found without a parse: native ones at ``pixel_data_offset + n * frame_length``, encapsulated ones by
    ``frame_offsets``. Offsets count from the instance's first byte. Where neither is set but there are frames, the
    data set is deflated or packed in bits and must be decoded.
    """

    series = models.ForeignKey(Series, on_delete=models.CASCADE, related_name="instances")
    sop_instance_uid = models.CharField(max_length=UID_LENGTH)
    sop_class_uid = models.CharField(max_length=UID_LENGTH)
    version = models.PositiveSmallIntegerField(default=1)
    is_current = models.BooleanField(
        default=True,
        help_text="What queries and views show: the version first received, unless rejected; later ones wait.",
    )
    rejection_code = models.CharField(
        max_length=16,
        blank=True,
        help_text="Title code of the rejection note (PS3.16 CID 7011); empty when not rejected.",
    )
    instance_number = models.BigIntegerField(null=True)
    rows = models.PositiveIntegerField(null=True)
    columns = models.PositiveIntegerField(null=True)
    bits_allocated = models.PositiveSmallIntegerField(null=True)
    number_of_frames = models.PositiveIntegerField(default=0, help_text="0 without pixel data.")
    attributes = models.JSONField(default=dict)
    transfer_syntax_uid = models.CharField(max_length=UID_LENGTH)
    object_key = models.CharField(max_length=400)
    object_offset = models.BigIntegerField(default=0)
    object_length = models.BigIntegerField()
    sha256 = models.BinaryField(max_length=32)
    dataset_offset = models.PositiveIntegerField(
        help_text="Where the data set begins, after the file meta information."
    )
    dataset_sha256 = models.BinaryField(max_length=32)
    pixel_data_offset = models.BigIntegerField(null=True)
    frame_length = models.BigIntegerField(null=True)
    frame_offsets = models.BinaryField(null=True)
    frames_are_fragmented = models.BooleanField(default=False)
    received_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["series", "sop_instance_uid", "version"], name="instance_version_unique"),
        ]
        indexes = [
            models.Index(fields=["sop_instance_uid"], name="instance_by_uid"),
            models.Index(fields=["series", "instance_number", "id"], name="instance_in_order"),
        ]

    def __str__(self) -> str:
        return self.sop_instance_uid

    def frame_span(self, frame: int) -> tuple[int, int]:
        """Give (offset, length) in bytes of a frame, counted from 1.

        Raises IndexError where there's no such frame, LookupError where frames have no place of their own.
        """
        if not 1 <= frame <= self.number_of_frames:
            raise IndexError(frame)
        if self.frame_offsets is not None:
            spans = array("Q", bytes(self.frame_offsets))
            return spans[2 * frame - 2], spans[2 * frame - 1]
        if self.pixel_data_offset is not None and self.frame_length is not None:
            return self.pixel_data_offset + (frame - 1) * self.frame_length, self.frame_length
        raise LookupError("frames must be decoded")


class StatusChange(models.Model):
    """A study's step to another status: who and when."""

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="status_changes")
    status = models.CharField(max_length=12, choices=Study.Status.choices)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    changed_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]
        indexes = [models.Index(fields=["status", "changed_at"], name="status_change_by_time")]

    def __str__(self) -> str:
        return f"{self.study_id} {self.status}"


class DomainEvent(models.Model):
    """The outbox: what happened in one room and concerns another, kept until delivered."""

    name = models.CharField(max_length=60)
    payload = models.JSONField(default=dict, help_text="Row ids and UIDs, never patient data.")
    created_at = models.DateTimeField(auto_now_add=True)
    due_at = models.DateTimeField()
    attempts = models.PositiveSmallIntegerField(default=0)
    delivered_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=200, blank=True)

    class Meta:
        indexes = [models.Index(fields=["due_at"], name="event_due", condition=models.Q(delivered_at__isnull=True))]

    def __str__(self) -> str:
        return f"{self.name} {self.payload}"
