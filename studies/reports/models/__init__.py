"""The report room's state: reports, templates and macros, critical results, certificates."""

from studies.reports.models.certificate import SiteCertificate
from studies.reports.models.critical import CriticalPolicy, CriticalRecipient, CriticalResult, CriticalStep
from studies.reports.models.reading import ReportReading
from studies.reports.models.report import (
    OpenedPrior,
    PreliminarySignature,
    Report,
    ReportPart,
    ReportVersion,
    Retraction,
    SignedPartIsFrozen,
)
from studies.reports.models.template import KnownWord, Macro, ReportTemplate, Spelling

__all__ = [
    "CriticalPolicy",
    "CriticalRecipient",
    "CriticalResult",
    "CriticalStep",
    "KnownWord",
    "Macro",
    "OpenedPrior",
    "PreliminarySignature",
    "Report",
    "ReportPart",
    "ReportReading",
    "ReportTemplate",
    "ReportVersion",
    "Retraction",
    "SignedPartIsFrozen",
    "SiteCertificate",
    "Spelling",
]
