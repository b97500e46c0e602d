"""What a person or program may do, and the roles that Atrium brings."""

from __future__ import annotations

from django.db import models


class Capability(models.TextChoices):
    """One thing that can be allowed at a site."""

    STUDY_VIEW = "study.view", "See every study of the site"
    STUDY_VIEW_REFERRED = "study.view_referred", "See the studies that one referred"
    STUDY_UPLOAD = "study.upload", "Put studies into the archive"
    STUDY_SEND = "study.send", "Send studies to nodes and query remote nodes"
    STUDY_CORRECT = "study.correct", "Correct identities and reconcile studies with orders"
    STUDY_REJECT = "study.reject", "Reject and restore instances"
    STUDY_DELETE = "study.delete", "Delete studies and objects"
    QUARANTINE_VIEW = "quarantine.view", "See refused files"
    ORDER_MANAGE = "order.manage", "Make and change orders"
    WORKITEM_VIEW = "workitem.view", "See and subscribe to workitems"
    WORKITEM_PERFORM = "workitem.perform", "Make, claim and complete workitems"
    CASE_ASSIGN = "case.assign", "Assign cases to others and see the department's figures"
    REPORT_READ = "report.read", "Read signed reports"
    REPORT_WRITE = "report.write", "Write reports and see drafts"
    REPORT_SIGN = "report.sign", "Sign reports"
    REPORT_TEMPLATE_MANAGE = "report.template", "Manage shared report templates and macros"
    PEER_REVIEW = "report.peer_review", "Score colleagues' signed reports"
    TEACHING_MANAGE = "teaching.manage", "Make and see teaching files"
    AUDIT_VIEW = "audit.view", "Read the audit trail"
    AUDIT_EXPORT = "audit.export", "Export the audit trail"
    NODE_MANAGE = "node.manage", "Manage DICOM nodes"
    ACCOUNT_MANAGE = "account.manage", "Manage users and roles"
    STORAGE_MANAGE = "storage.manage", "See how storage is filled and move studies between its tiers"
    SYSTEM_VIEW = "system.view", "See the installation's health and figures"


BUILT_IN_ROLES: dict[str, tuple[str, frozenset[Capability]]] = {
    "radiologist": (
        "Radiologist",
        frozenset(
            {
                Capability.STUDY_VIEW,
                Capability.STUDY_UPLOAD,
                Capability.STUDY_SEND,
                Capability.STUDY_REJECT,
                Capability.ORDER_MANAGE,
                Capability.WORKITEM_VIEW,
                Capability.WORKITEM_PERFORM,
                Capability.REPORT_READ,
                Capability.REPORT_WRITE,
                Capability.REPORT_SIGN,
                Capability.PEER_REVIEW,
                Capability.TEACHING_MANAGE,
            }
        ),
    ),
    "lead_radiologist": (
        "Lead radiologist",
        frozenset({Capability.CASE_ASSIGN, Capability.REPORT_TEMPLATE_MANAGE}),
    ),
    "resident": (
        "Resident",
        frozenset({Capability.STUDY_VIEW, Capability.REPORT_READ, Capability.REPORT_WRITE, Capability.TEACHING_MANAGE}),
    ),
    "technologist": (
        "Technologist",
        frozenset(
            {
                Capability.STUDY_VIEW,
                Capability.STUDY_UPLOAD,
                Capability.STUDY_SEND,
                Capability.STUDY_CORRECT,
                Capability.STUDY_REJECT,
                Capability.QUARANTINE_VIEW,
                Capability.ORDER_MANAGE,
                Capability.WORKITEM_VIEW,
                Capability.WORKITEM_PERFORM,
            }
        ),
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
        frozenset(Capability)
        - {Capability.REPORT_WRITE, Capability.REPORT_SIGN, Capability.STUDY_VIEW_REFERRED, Capability.PEER_REVIEW},
    ),
}
