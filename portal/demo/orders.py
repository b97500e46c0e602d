"""The demo's orders, reading groups, shifts and targets: every list has something to show.

Most studies meet their order on arrival; one accession number is given to the wrong patient, one order fits twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from django.db import transaction

from accounts.models import Role, Site, User
from accounts.principals import principal_of_user
from portal.demo.phantom import DemoPatient, demo_uid
from portal.demo.studies import (
    DANG,
    FUJIMOTO,
    HADDAD,
    KOWALCZYK,
    LINDQVIST,
    NKOSI,
    NUNEZ,
    OKONKWO,
    REAL_STUDIES,
    REFERRING_PHYSICIAN,
)
from studies.models import Priority
from studies.orders.models import AccessionSeries, Order
from studies.orders.patients import PatientIdentity
from studies.orders.services import OrderDetails, arrive_order, place_order
from studies.worklists.models import AssignmentRule, ReadingGroup, SavedFilter, Shift, TurnaroundTarget

PREFIXES = {"north": "NG", "south": "SC"}
# Accession number: modality, priority, HL7 patient class, indication.
ANSWERED = {
    "NG26110901": ("CT", Priority.HIGH, "O", "Weight loss and night sweats for two months. Nodule seen last year."),
    "NG25108244": ("CT", Priority.ROUTINE, "O", "Cough for six weeks, former smoker."),
    "NG26110902": ("CT", Priority.STAT, "E", "Fall from standing, on apixaban, GCS 14. Bleeding?"),
    "NG26110904": ("DX", Priority.ROUTINE, "O", "Fever and cough. Pneumonia?"),
    "NG26110611": ("MR", Priority.ROUTINE, "O", "Painful arc after a fall. Rotator cuff tear?"),
    "NG26110437": ("US", Priority.ROUTINE, "O", "Murmur at the apex. Mitral regurgitation?"),
    "NG26110315": ("DX", Priority.HIGH, "E", "Trampoline accident. Fracture?"),
    "NG26110108": ("US", Priority.ROUTINE, "O", "Palpable lymph node left neck."),
    "NG26109820": ("NM", Priority.MEDIUM, "O", "Prostate cancer, PSA 38. Bone metastases?"),
    "SC2608801": ("ECG", Priority.HIGH, "E", "Palpitations since this morning."),
    "SC2608802": ("US", Priority.ROUTINE, "O", "Irregular bleeding."),
    "SC2608754": ("CT", Priority.STAT, "E", "Motorcycle accident, pain at the thoracolumbar junction."),
    "SC2608377": ("MR", Priority.ROUTINE, "O", "Headache with visual disturbance."),
}


@dataclass(frozen=True)
class _Scheduled:
    site: str
    patient: DemoPatient
    description: str
    modality: str
    hours_ahead: int
    priority: str = Priority.ROUTINE
    indication: str = ""
    has_arrived: bool = False
    accession_number: str = ""


_SCHEDULED = (
    _Scheduled("north", HADDAD.at("north"), "CT sinuses", "CT", 1, indication="Chronic sinusitis.", has_arrived=True),
    _Scheduled("north", DANG.at("north"), "XR right lower leg, control in cast", "DX", 2),
    _Scheduled("north", OKONKWO.at("north"), "MR lumbar spine", "MR", 4, Priority.HIGH, "Sciatica with foot drop."),
    _Scheduled("north", KOWALCZYK.at("north"), "CT head, control after 6 h", "CT", 6, Priority.STAT, "Subdural?"),
    _Scheduled("north", NUNEZ.at("north"), "US abdomen", "US", 22, indication="Right upper quadrant pain."),
    _Scheduled("south", NKOSI.at("south"), "XR thoracic spine standing", "DX", 26),
    _Scheduled("south", FUJIMOTO.at("south"), "MR cardiac", "MR", 50, indication="Palpitations."),
    # The accession number of Müller-Groß' liver, given to the next patient in the waiting room.
    _Scheduled("north", NUNEZ.at("north"), "MR liver", "MR", 0, accession_number="NG26110903"),
)


@transaction.atomic
def create_orders(people: dict[str, User], *, today: date | None = None) -> None:
    """Place the demo's orders and set up groups, shifts and targets; nothing is done where there are orders already."""
    if Order.objects.exists():
        return
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    day = today or now.date()
    sites = {site.slug: site for site in Site.objects.all()}
    for slug, prefix in PREFIXES.items():
        AccessionSeries.objects.create(site=sites[slug], prefix=prefix)
    _place_answered(people["admin"], sites, day)
    _place_scheduled(people["admin"], sites, now)
    _share_out(people, sites, now)


def _place_answered(admin: User, sites: dict[str, Site], day: date) -> None:
    studies = [
        ("north", LINDQVIST, "NG26110901", "CT chest, abdomen and pelvis with contrast", 0, time(5, 10)),
        ("north", LINDQVIST, "NG25108244", "CT chest with contrast", 364, time(9, 35)),
        *((s.site, s.person, s.accession_number, s.description, s.days_ago, s.at) for s in REAL_STUDIES),
    ]
    physicians = {s.accession_number: s.referring_physician for s in REAL_STUDIES}
    for site, person, accession_number, description, days_ago, at in studies:
        if accession_number not in ANSWERED:
            continue
        modality, priority, patient_class, indication = ANSWERED[accession_number]
        details = OrderDetails(
            description=description,
            modality=modality,
            scheduled_at=datetime.combine(day - timedelta(days=days_ago), at, tzinfo=UTC),
            accession_number=accession_number,
            study_instance_uid=demo_uid(accession_number),
            priority=priority,
            indication=indication,
            patient_class=patient_class,
            referring_physician_name=physicians.get(accession_number, REFERRING_PHYSICIAN),
        )
        place_order(
            site=sites[site],
            patient=_identity(person.at(site)),
            details=details,
            principal=principal_of_user(admin),
        )


def _place_scheduled(admin: User, sites: dict[str, Site], now: datetime) -> None:
    for one in _SCHEDULED:
        details = OrderDetails(
            description=one.description,
            modality=one.modality,
            scheduled_at=now + timedelta(hours=one.hours_ahead),
            accession_number=one.accession_number,
            priority=one.priority,
            indication=one.indication,
            referring_physician_name=REFERRING_PHYSICIAN,
            patient_class="O",
        )
        order = place_order(
            site=sites[one.site],
            patient=_identity(one.patient),
            details=details,
            principal=principal_of_user(admin),
        )
        if one.has_arrived:
            arrive_order(order=order, principal=principal_of_user(admin))


def _identity(patient: DemoPatient) -> PatientIdentity:
    born = datetime.strptime(patient.birth_date, "%Y%m%d").replace(tzinfo=UTC).date()
    return PatientIdentity(patient.patient_id, patient.patient_name, "", born, patient.sex)


def _share_out(people: dict[str, User], sites: dict[str, Site], now: datetime) -> None:
    north = sites["north"]
    neuro = ReadingGroup.objects.create(
        site=north, name="Neuro", modalities=["CT", "MR"], words=["head", "brain", "spine"]
    )
    body = ReadingGroup.objects.create(site=north, name="Body", modalities=["CT", "MR", "US"])
    neuro.members.set([people["radiologist"]])
    body.members.set([people["radiologist"], people["resident"]])
    AssignmentRule.objects.create(group=neuro, rank=1)
    AssignmentRule.objects.create(group=body, rank=2, is_active=False)
    for username in ("radiologist", "resident"):
        Shift.objects.create(
            site=north,
            user=people[username],
            starts_at=now - timedelta(hours=3),
            ends_at=now + timedelta(days=7),
        )
    for site in sites.values():
        TurnaroundTarget.objects.create(site=site, priority=Priority.STAT, minutes=45)
        TurnaroundTarget.objects.create(site=site, priority=Priority.HIGH, minutes=180)
    SavedFilter.objects.create(
        user=people["radiologist"],
        name="CT head unread",
        query="status=arrived&modality=CT&description=head&sort=priority%2Cdate",
        role=Role.objects.get(slug="radiologist"),
    )
    SavedFilter.objects.create(
        user=people["radiologist"], name="Body, open", query=f"status=arrived&group={body.pk}", group=body
    )
