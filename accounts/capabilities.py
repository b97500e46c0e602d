"""What a person or program may do, and the roles that Atrium brings."""

from __future__ import annotations

from django.db import models


class Capability(models.TextChoices):
    """One thing that can be allowed at a site."""

    STUDY_VIEW = "study.view", "See every study of the site"
    STUDY_VIEW_REFERRED = "study.view_referred", "See the studies that one referred"
    STUDY_UPLOAD = "study.upload", "Put studies into the archive"
    QUARANTINE_VIEW = "quarantine.view", "See refused files"
    REPORT_READ = "report.read", "Read signed reports"
    REPORT_WRITE = "report.write", "Write reports and see drafts"
    REPORT_SIGN = "report.sign", "Sign reports"
    AUDIT_VIEW = "audit.view", "Read the audit trail"
    AUDIT_EXPORT = "audit.export", "Export the audit trail"
    NODE_MANAGE = "node.manage", "Manage DICOM nodes"
    ACCOUNT_MANAGE = "account.manage", "Manage users and roles"
    SYSTEM_VIEW = "system.view", "See the installation's health and figures"


BUILT_IN_ROLES: dict[str, tuple[str, frozenset[Capability]]] = {
    "radiologist": (
        "Radiologist",
        frozenset(
            {
                Capability.STUDY_VIEW,
                Capability.STUDY_UPLOAD,
                Capability.REPORT_READ,
                Capability.REPORT_WRITE,
                Capability.REPORT_SIGN,
            }
        ),
    ),
    "resident": (
        "Resident",
        frozenset({Capability.STUDY_VIEW, Capability.REPORT_READ, Capability.REPORT_WRITE}),
    ),
    "technologist": (
        "Technologist",
        frozenset({Capability.STUDY_VIEW, Capability.STUDY_UPLOAD, Capability.QUARANTINE_VIEW}),
    ),
    "referrer": (
        "Referring clinician",
        frozenset({Capability.STUDY_VIEW_REFERRED, Capability.REPORT_READ}),
    ),
    "compliance": (
        "Compliance officer",
        frozenset({Capability.AUDIT_VIEW, Capability.AUDIT_EXPORT}),
    ),
    "administrator": (
        "Administrator",
        frozenset(Capability) - {Capability.REPORT_WRITE, Capability.REPORT_SIGN, Capability.STUDY_VIEW_REFERRED},
    ),
}
