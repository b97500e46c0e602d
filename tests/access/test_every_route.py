"""The walk: every route, as every role and as a stranger. A route that this table doesn't know fails the test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from accounts.models import Site, User
from studies.archive.models import NonPatientInstance, TierMove
from studies.dimse.models import Node, PrefetchRule, RoutingRule, Transfer
from studies.findings.models import ImageFinding
from studies.ingest.models import QuarantinedFile
from studies.models import Instance, Study
from studies.orders.models import Reconciliation
from studies.orders.reconciliation import snapshot
from studies.orders.services import OrderDetails, place_order
from studies.peer_review.models import PeerReview
from studies.reports.certificates import certificate_of
from studies.reports.models import CriticalResult, Macro, Report, ReportPart, ReportTemplate, ReportVersion
from studies.sharing.models import Comment, TeachingCase
from studies.workitems.services import create_workitem
from studies.worklists.models import ReadingGroup, SavedFilter
from tests.factories import PEOPLE, ingest_as, make_instance, principal_of
from tests.workitems.workitem_data import scheduled

pytestmark = [pytest.mark.django_db, pytest.mark.database]

EVERYONE = {*PEOPLE, "stranger"}
SIGNED_IN = set(PEOPLE)
# Those who may see a study of north that was referred by the demo's referrer.
OF_NORTH = {"radiologist", "resident", "technologist", "referrer", "admin"}
IMAGES = {*OF_NORTH, "southradiologist"}
UPLOADERS = {"radiologist", "southradiologist", "technologist", "admin"}
OF_SITE = OF_NORTH - {"referrer"}
ORDERERS = {"radiologist", "southradiologist", "technologist", "admin"}
READERS = OF_NORTH - {"technologist"}
WRITERS = {"radiologist", "resident"}
TEMPLATE_KEEPERS = {"radiologist", "resident", "southradiologist", "admin"}

TEACHERS = {"radiologist", "southradiologist", "resident", "admin"}

# Route name to who gets in; all others must be turned away.
ALLOWED: dict[str, set[str]] = {
    "home": SIGNED_IN,
    "theme": SIGNED_IN,
    "healthz": EVERYONE,
    "readyz": EVERYONE,
    "health": {"admin"},
    "metrics": EVERYONE,  # from this machine; from elsewhere see below
    "api_schema": EVERYONE,
    "api_studies": SIGNED_IN,  # an empty list for one who may see none
    "api_study": OF_NORTH,
    "api_report": READERS,
    "audit": {"compliance", "admin"},
    "audit_verify": {"compliance", "admin"},
    "audit_export": {"compliance", "admin"},
    "worklist": IMAGES,
    "dashboard": {"radiologist", "admin"},
    "case_sharing": {"radiologist", "admin"},
    "new_sharing": {"radiologist", "admin"},
    "change_sharing": {"radiologist", "admin"},
    "delete_sharing": {"radiologist", "admin"},
    "worklist_rows": IMAGES,
    "worklist_bulk": {*OF_SITE, "southradiologist"},  # what isn't theirs is left alone
    "save_columns": IMAGES,
    "next_case": {*WRITERS, "southradiologist"},
    "upcoming_cases": {*WRITERS, "southradiologist"},
    "claim_case": OF_NORTH,
    "release_case": WRITERS,
    "assign_case": {*WRITERS, "admin"},
    "case_priority": ORDERERS - {"southradiologist"},
    "saved_filters": IMAGES,
    "saved_filter": {"radiologist"},
    "replace_filter": {"radiologist"},
    "move_filter": IMAGES,
    "delete_filter": IMAGES,
    "study": OF_NORTH,
    "upload": UPLOADERS,
    "upload_file": UPLOADERS,
    "quarantine": {"technologist", "admin"},
    "quarantined_file": {"technologist", "admin"},
    "reports": {*READERS, "southradiologist"},
    "report": READERS,
    "report_pdf": READERS,
    "report_panel": READERS,
    "report_desk": WRITERS,
    "report_start": WRITERS,
    "report_save": WRITERS,
    "report_preview": WRITERS,
    "report_sign": {"radiologist"},
    "report_take_over": WRITERS,
    "report_discard": WRITERS,
    "mismatches": {"technologist", "admin"},
    "reconcile": {"technologist", "admin"},
    "link_study": {"technologist", "admin"},
    "correct_patient": {"technologist", "admin"},
    "needs_no_order": {"technologist", "admin"},
    "undo_reconciliation": {"technologist", "admin"},
    "list_again": {"technologist", "admin"},
    "report_passkey": WRITERS | {"southradiologist"},
    "report_verify": EVERYONE,
    "critical_results": {*READERS, "southradiologist"},
    "critical_result": READERS,
    "critical_acknowledge": READERS,
    "critical_withdraw": WRITERS,
    "report_templates": TEMPLATE_KEEPERS,
    "new_report_template": TEMPLATE_KEEPERS,
    "report_template_editor": TEMPLATE_KEEPERS,
    "import_report_template": TEMPLATE_KEEPERS,
    "report_template": TEMPLATE_KEEPERS,
    "export_report_template": TEMPLATE_KEEPERS,
    "retire_report_template": {"admin"},
    "report_macros": TEMPLATE_KEEPERS,
    "delete_report_macro": {"admin", "radiologist"},
    "report_spelling": TEMPLATE_KEEPERS,
    "report_suggested_words": WRITERS | {"southradiologist"},
    "report_known_word": WRITERS | {"southradiologist"},
    "critical_settings": {"admin"},
    "site_certificates": {"admin"},
    "site_certificate": {"admin"},
    "report_checks": WRITERS,
    "report_preliminary": WRITERS,
    "report_retract": {"radiologist"},
    "report_change_template": WRITERS,
    "report_history": WRITERS,
    "report_version": WRITERS,
    "report_restore": WRITERS,
    "report_priors": WRITERS,
    "report_flag_critical": WRITERS,
    "notifications": SIGNED_IN,
    "notification_bell": SIGNED_IN,
    "notifications_read": SIGNED_IN,
    "notification": set(),  # only the person whose notice it is
    "storage": {"admin"},
    "save_tier_policy": {"admin"},
    "run_tier_move_again": {"admin"},
    "move_study": {"admin"},
    "orders": {*OF_SITE, "southradiologist"},
    "order": OF_SITE,
    "new_order": ORDERERS,
    "order_patients": ORDERERS,
    "arrive_order": ORDERERS - {"southradiologist"},
    "cancel_order": ORDERERS - {"southradiologist"},
    "api_orders": SIGNED_IN,  # an empty list for one who may see none
    "api_order": OF_SITE,
    "api_cancel_order": ORDERERS - {"southradiologist"},
    "nodes": {"admin"},
    "new_node": {"admin"},
    "node": {"admin"},
    "verify_node": {"admin"},
    "delete_node": {"admin"},
    "network": {"admin"},
    "rules": {"admin"},
    "new_routing_rule": {"admin"},
    "routing_rule": {"admin"},
    "try_routing_rule": {"admin"},
    "delete_routing_rule": {"admin"},
    "new_prefetch_rule": {"admin"},
    "prefetch_rule": {"admin"},
    "delete_prefetch_rule": {"admin"},
    "transfers": {"radiologist", "southradiologist", "technologist", "admin"},
    "transfer": {"radiologist", "technologist", "admin"},
    "cancel_transfer": {"radiologist", "technologist", "admin"},
    "run_transfer_again": {"radiologist", "technologist", "admin"},
    "send_study": {"radiologist", "technologist", "admin"},
    "remote_query": {"radiologist", "southradiologist", "technologist", "admin"},
    "remote_retrieve": {"radiologist", "southradiologist", "technologist", "admin"},
    "findings": READERS,
    "remove_finding": WRITERS,
    "finding_picture": WRITERS,  # of an unsigned report
    "viewer_open": OF_NORTH,
    "viewer_first_look": OF_NORTH,
    "viewer_preferences": set(),  # without a study it's 404 for everyone
    "results": {*READERS, "southradiologist"},
    "patient": OF_NORTH,
    "study_objects": OF_NORTH,
    "study_object": OF_NORTH,
    "discussion": OF_NORTH - {"referrer"},
    "close_consult": {"radiologist"},  # whose consult it is; nobody else closes it
    "new_teaching_case": {"radiologist", "resident", "admin"},
    "consults": IMAGES - {"referrer"},
    "teaching_files": TEACHERS,
    "teaching_case": TEACHERS,
    "edit_teaching_case": {"radiologist"},
    "delete_teaching_case": {"radiologist"},
    "peer_reviews": {"radiologist", "southradiologist"},
    "peer_review_figures": {"radiologist", "admin"},
    "set_peer_review_programme": {"radiologist", "admin"},
    "peer_review": {"radiologist"},
    "peer_review_result": {"radiologist", "admin"},
    "viewer": IMAGES,
    "viewer_config": IMAGES,
    "viewer_asset": IMAGES,
    "dicomweb_studies": IMAGES,
    "dicomweb_all_series": IMAGES,
    "dicomweb_all_instances": IMAGES,
    "dicomweb_study": OF_NORTH,
    # A search below a study that isn't theirs finds nothing; see the test of what leaks.
    "dicomweb_study_series": IMAGES,
    "dicomweb_study_instances": IMAGES,
    "dicomweb_series_instances": IMAGES,
    "dicomweb_study_metadata": OF_NORTH,
    "dicomweb_study_bulkdata": OF_NORTH,
    "dicomweb_study_pixeldata": OF_NORTH,
    "dicomweb_study_rendered": OF_NORTH,
    "dicomweb_study_thumbnail": OF_NORTH,
    "dicomweb_series": OF_NORTH,
    "dicomweb_series_metadata": OF_NORTH,
    "dicomweb_series_bulkdata": OF_NORTH,
    "dicomweb_series_pixeldata": OF_NORTH,
    "dicomweb_series_rendered": OF_NORTH,
    "dicomweb_series_thumbnail": OF_NORTH,
    "dicomweb_instance": OF_NORTH,
    "dicomweb_instance_metadata": OF_NORTH,
    "dicomweb_instance_bulkdata": OF_NORTH,
    "dicomweb_instance_pixeldata": OF_NORTH,
    "dicomweb_rendered": OF_NORTH,
    "dicomweb_thumbnail": OF_NORTH,
    "dicomweb_bulkdata": OF_NORTH,
    "dicomweb_frames": OF_NORTH,
    "dicomweb_frame_rendered": OF_NORTH,
    "dicomweb_frame_thumbnail": OF_NORTH,
    "reject": {"radiologist", "technologist", "admin"},
    "rejected": UPLOADERS,
    "restore_rejected": set(),  # without a study there's nothing to restore; see the rejection's tests
    "dicomweb_root": EVERYONE,
    "dicomweb_root_without_slash": EVERYONE,
    "dicomweb_conformance": EVERYONE,
    "dicomweb_openapi": EVERYONE,
    "dicomweb_non_patient": {*IMAGES} - {"referrer"},
    "dicomweb_non_patient_instance": {"radiologist", "resident", "technologist", "admin"},
    "dicomweb_workitems": UPLOADERS,
    "dicomweb_workitem": {"radiologist", "technologist", "admin"},
    "dicomweb_workitem_state": {"radiologist", "technologist", "admin"},
    "dicomweb_workitem_cancel": {"radiologist", "technologist", "admin"},
    "dicomweb_subscriber": {"radiologist", "technologist", "admin"},
    "dicomweb_suspend": UPLOADERS,  # of one's own site
    "dicomweb_events": UPLOADERS,
}
# allauth's own pages hold nothing but the person's own account.
NOT_OURS = ("account_", "mfa_", "socialaccount_")
SECRET = "Geheimnis"


def every_route() -> Iterator[tuple[str, str]]:
    """Give every route's name and pattern."""

    def below(patterns: list[Any], prefix: str) -> Iterator[tuple[str, str]]:
        for pattern in patterns:
            if isinstance(pattern, URLResolver):
                yield from below(pattern.url_patterns, prefix + str(pattern.pattern))
            elif isinstance(pattern, URLPattern):
                yield pattern.name or str(pattern.pattern), prefix + str(pattern.pattern)

    yield from below(get_resolver().url_patterns, "")


def routes() -> Iterator[tuple[str, str]]:
    """Give the name and pattern of every route that is ours."""
    for name, pattern in every_route():
        if not name.startswith(NOT_OURS) and not pattern.startswith("accounts/"):
            yield name, pattern


def path_of(pattern: str, arguments: dict[str, str]) -> str:
    """Give a route's address with the arguments put in. Raises AssertionError where one is missing."""
    path = "/" + pattern
    for parameter, value in arguments.items():
        path = path.replace(parameter, value)
    assert "<" not in path, f"give {path} an argument"
    return path


@pytest.fixture
def arguments(north: Any, people: Any) -> dict[str, str]:
    return one_of_everything(north)


def one_of_everything(north: Site) -> dict[str, str]:
    """Make one of each thing that has a page and give their values for the routes' parameters; a refused file too."""
    files = [make_instance(PatientName=f"{SECRET}^Eva", EncapsulatedDocument=b"x" * 2000), b"no dicom"]
    ingest_as(principal_of(User.objects.get(username="admin")), north, files)
    instance = Instance.objects.get()
    order = place_order(
        site=north,
        patient=instance.series.study.patient,
        details=OrderDetails(description="CT", modality="CT", scheduled_at=timezone.now()),
        principal=principal_of(User.objects.get(username="admin")),
    )
    group, doomed = (ReadingGroup.objects.create(site=north, name=f"{SECRET} {n}") for n in (1, 2))
    now = snapshot(instance.series.study, None)
    step = Reconciliation.objects.create(study=instance.series.study, kind="moved", before=now, after=now)
    report = Report.objects.create(study=instance.series.study)
    author = User.objects.get(username="radiologist")
    ReportPart.objects.create(
        report=report,
        kind="report",
        ordinal=1,
        author=author,
        sections={"findings": SECRET},
        signed_at=timezone.now(),
        verification_code="0123",
    )
    ReportPart.objects.create(report=report, kind="addendum", ordinal=2, author=author, sections={"findings": SECRET})
    consult = Comment.objects.create(study=instance.series.study, author=author, kind="consult", text=SECRET)
    case = TeachingCase.objects.create(source_site=north, author=author, title="A case", state="ready")
    review = PeerReview.objects.create(part=report.parts.get(ordinal=1), site=north, reviewer=author, modality="CT")
    now = timezone.now()
    scored = PeerReview.objects.create(
        part=review.part,
        site=north,
        reviewer=User.objects.get(username="southradiologist"),
        score="3b",
        comment=SECRET,
        completed_at=now,
    )
    version = ReportVersion.objects.create(
        report=report,
        ordinal=2,
        part_kind="addendum",
        kind="saved",
        revision=1,
        author=author,
        began_at=now,
        saved_at=now,
    )
    result = CriticalResult.objects.create(
        study=instance.series.study, category=1, finding=SECRET, flagged_by=author, flagged_at=now, due_at=now
    )
    template = ReportTemplate.objects.filter(is_current=True).earliest("pk")
    macro = Macro.objects.create(trigger="normal", text=SECRET, site=north)
    finding = ImageFinding.objects.create(
        study=instance.series.study,
        kind="key_image",
        author=author,
        tracking_identifier="1",
        sop_instance_uid=instance.sop_instance_uid,
        label=SECRET,
        picture=b"jpeg",
    )
    palette = NonPatientInstance.objects.create(
        site=north,
        category="color-palettes",
        sop_instance_uid="1.2.3",
        sop_class_uid="1.2.840.10008.5.1.4.39.1",
        object_key=instance.object_key,
        object_length=instance.object_length,
        sha256=b"",
    )
    workitem = create_workitem(
        site=north, dataset=scheduled(PatientName=f"{SECRET}^Eva"), principal=principal_of(author)
    ).workitem
    node = Node.objects.create(ae_title=SECRET, site=north)
    study = instance.series.study
    transfer = Transfer.objects.create(
        kind="send", node=node, site=north, study=study, study_instance_uid=study.study_instance_uid
    )
    tier_move = TierMove.objects.create(study=study, tier="cold", status="failed", origin="policy", due_at=now)
    return {
        "storage/moves/<int:pk>": f"storage/moves/{tier_move.pk}",
        "verify/<slug:code>": "verify/0123",
        "critical/<int:pk>": f"critical/{result.pk}",
        "templates/<int:pk>": f"templates/{template.pk}",
        "macros/<int:pk>": f"macros/{macro.pk}",
        "certificates/<int:pk>": f"certificates/{certificate_of(north).pk}",
        "history/<int:pk>": f"history/{version.pk}",
        "notifications/<int:pk>": "notifications/9999",
        "<category:category>/<uid:sop_instance_uid>": f"color-palettes/{palette.sop_instance_uid}",
        "<category:category>": "color-palettes",
        "<uid:workitem_uid>": workitem.sop_instance_uid,
        "<str:ae_title>": "WATCH",
        "<uid:study_instance_uid>": instance.series.study.study_instance_uid,
        "<uid:series_instance_uid>": instance.series.series_instance_uid,
        "<uid:sop_instance_uid>": instance.sop_instance_uid,
        "<str:frames>": "1",
        "<str:path>": "00420011",
        "<path:asset>": "viewer",
        "nodes/<int:pk>": f"nodes/{node.pk}",
        "routing/<int:pk>": f"routing/{RoutingRule.objects.create(name=SECRET, site=north).pk}",
        "prefetch/<int:pk>": f"prefetch/{PrefetchRule.objects.create(name=SECRET, site=north).pk}",
        "transfers/<int:pk>": f"transfers/{transfer.pk}",
        "quarantine/<int:pk>": f"quarantine/{QuarantinedFile.objects.get().pk}",
        "patients/<int:pk>": f"patients/{instance.series.study.patient_id}",
        "discussion/<int:pk>": f"discussion/{consult.pk}",
        "teaching/<int:pk>": f"teaching/{case.pk}",
        "peer-review/<int:pk>/result": f"peer-review/{scored.pk}/result",
        "peer-review/<int:pk>": f"peer-review/{review.pk}",
        "peer-review/programmes/<int:pk>": f"peer-review/programmes/{north.pk}",
        "findings/<int:pk>": f"findings/{finding.pk}",
        "orders/<int:pk>": f"orders/{order.pk}",
        "filters/<int:pk>": f"filters/{SavedFilter.objects.create(user=author, name=SECRET, query='status=final').pk}",
        "<slug:kind>/<int:pk>/delete": f"group/{doomed.pk}/delete",
        "<slug:kind>/<int:pk>": f"group/{group.pk}",
        "<slug:kind>": "group",
        "undo/<int:pk>": f"undo/{step.pk}",
        "<int:pk>": "1",
    }


def test_the_walk_knows_every_route() -> None:
    assert {name for name, _ in routes()} - set(ALLOWED) - {"wado_uri"} == set()


@pytest.mark.parametrize("person", sorted(EVERYONE))
def test_each_route_lets_in_whom_it_should_and_nobody_else(
    person: str, arguments: dict[str, str], client_of: Any
) -> None:
    browser = Client() if person == "stranger" else client_of(person)
    wrong = []
    for name, pattern in routes():
        path = path_of(pattern, arguments)
        # What an earlier route had to say to this person belongs on no other page.
        browser.cookies.pop("messages", None)
        for method in (browser.get, browser.post, browser.put):
            answer = method(path)
            if answer.status_code != 405:
                break
        is_in = not (
            answer.status_code in {401, 403, 404}
            or (answer.status_code == 302 and answer.headers["Location"].startswith("/accounts/login/"))
        )
        if name == "wado_uri":
            is_in = person in IMAGES and answer.status_code == 400
            if is_in is not (person in IMAGES):
                wrong.append((name, answer.status_code))
            continue
        if is_in is not (person in ALLOWED[name]):
            wrong.append((name, answer.status_code))
        if not is_in and not answer.streaming:
            assert SECRET.encode() not in answer.content
        if answer.streaming:
            b"".join(answer.streaming_content)
    assert wrong == []


@pytest.mark.parametrize("person", ["southradiologist", "stranger", "compliance"])
def test_nothing_of_north_leaks_to_others(person: str, arguments: dict[str, str], client_of: Any) -> None:
    browser = Client() if person == "stranger" else client_of(person)
    study = Study.objects.get().study_instance_uid
    for name, pattern in routes():
        path = path_of(pattern, arguments)
        if name.startswith("audit"):
            continue
        answer = browser.get(path)
        body = b"".join(answer.streaming_content) if answer.streaming else answer.content
        assert SECRET.encode() not in body, path
        if name not in {"viewer_asset"} and name.startswith("dicomweb"):
            assert study.encode() not in body, path


def test_a_referrer_sees_only_what_they_referred(north: Any, ingest_files: Any, client_of: Any) -> None:
    ingest_files(
        north,
        make_instance(PatientID="MINE", StudyInstanceUID="1.1"),
        make_instance(PatientID="OTHERS", StudyInstanceUID="1.2", ReferringPhysicianName="Else^Someone"),
    )
    referrer = client_of("referrer")
    assert [s["00100020"]["Value"] for s in referrer.get("/dicom-web/studies").json()] == [["MINE"]]
    assert referrer.get("/studies/1.2/").status_code == 404
    assert b"OTHERS" not in referrer.get("/worklist/").content


def test_members_of_a_practice_see_each_others_patients(
    north: Any, people: Any, ingest_files: Any, client_of: Any
) -> None:
    from accounts.models import Practice
    from studies.models import ReferringPhysician

    ingest_files(north, make_instance(PatientID="COLLEAGUE", ReferringPhysicianName="Partner^Pat"))
    practice = Practice.objects.create(name="Practice")
    practice.members.add(people["referrer"])
    ReferringPhysician.objects.filter(name="Partner^Pat").update(practice=practice)
    assert b"COLLEAGUE" in client_of("referrer").get("/worklist/").content


def test_a_token_is_narrowed_to_its_capabilities_and_site(
    people: Any, north: Any, south: Any, ingest_files: Any
) -> None:
    from accounts.capabilities import Capability
    from accounts.services import create_api_token

    ingest_files(north, make_instance(PatientID="N"))
    ingest_files(south, make_instance(PatientID="S"))
    _, text = create_api_token(user=people["radiologist"], name="t", capabilities=[Capability.STUDY_VIEW], site=south)
    headers = {"HTTP_AUTHORIZATION": f"Bearer {text}"}
    found = Client().get("/dicom-web/studies", **headers).json()
    assert [s["00100020"]["Value"] for s in found] == [["S"]]
    assert (
        Client().post("/upload/files/?name=x", b"x", content_type="application/octet-stream", **headers).status_code
        == 403
    )
    assert Client().get("/dicom-web/studies", HTTP_AUTHORIZATION="Bearer wrong").status_code == 401


def test_figures_are_not_for_other_machines(client: Client) -> None:
    assert client.get("/metrics", REMOTE_ADDR="192.0.2.7").status_code == 403
