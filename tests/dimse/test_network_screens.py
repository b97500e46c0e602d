"""The network's screens: send, transfers, rules, the monitor."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pydicom.uid import generate_uid

from accounts.models import Site
from portal.audit.models import AuditEvent
from portal.sealing import unseal
from studies.dimse import associations, queue, transfers
from studies.dimse.models import AssociationLog, Node, PrefetchRule, RoutingRule, Transfer
from studies.dimse.monitoring import rate_of
from studies.models import Study
from studies.worklists.models import ReadingGroup
from tests.factories import make_instance
from tests.services.dicom_peers import storescp
from tests.services.ports import free_port

pytestmark = pytest.mark.django_db
ClientOf = Callable[[str], Client]
HTMX = {"HX-Request": "true"}


@pytest.fixture
def study(north: Site, ingest_files: Any) -> Study:
    uid = generate_uid()
    ingest_files(north, *(make_instance(StudyInstanceUID=uid, SeriesInstanceUID=generate_uid()) for _ in range(2)))
    return Study.objects.get()


def node_at(site: Site, port: int, **fields: Any) -> Node:
    return Node.objects.create(ae_title="PACS", site=site, host="127.0.0.1", port=port, may_receive=True, **fields)


def test_a_study_is_sent_from_its_page_and_the_progress_is_seen(
    study: Study, north: Site, client_of: ClientOf, tmp_path: Path
) -> None:
    browser = client_of("technologist")
    send_url = reverse("send_study", args=[study.study_instance_uid])
    assert send_url in browser.get(reverse("study", args=[study.study_instance_uid])).content.decode()
    assert "no node to send to" in browser.get(send_url).content.decode()
    with storescp(tmp_path / "in") as port:
        node = node_at(north, port)
        answer = browser.post(send_url, {"node": node.pk, "series": ""})
        shown = browser.get(answer.headers["Location"], headers=HTMX)
        assert "0 of 2 instances" in shown.content.decode()
        assert shown.status_code == 200
        queue.work_off(node.pk, "send")
    shown = browser.get(answer.headers["Location"], headers=HTMX)
    assert "2 of 2 instances" in shown.content.decode()
    assert shown.status_code == 286  # htmx stops asking


def test_deidentifying_by_hand_keeps_the_chosen_options(study: Study, north: Site, client_of: ClientOf) -> None:
    node = node_at(north, 104)
    client_of("radiologist").post(
        reverse("send_study", args=[study.study_instance_uid]),
        {"node": node.pk, "deidentify": "on", "options": ["retain_device"]},
    )
    options = Transfer.objects.get().deidentification
    assert options is not None
    assert [name for name, value in options.items() if value] == ["retain_device"]


def test_a_transfer_that_waits_tells_why_and_can_be_tried_cancelled_and_run_again(
    study: Study, north: Site, client_of: ClientOf
) -> None:
    browser = client_of("technologist")
    node = node_at(north, free_port())
    url = browser.post(reverse("send_study", args=[study.study_instance_uid]), {"node": node.pk}).headers["Location"]
    queue.work_off(node.pk, "send")
    shown = browser.get(url).content.decode()
    assert "can&#x27;t be reached" in shown
    assert "nothing gets lost" in shown
    pk = Transfer.objects.get().pk
    browser.post(reverse("cancel_transfer", args=[pk]))
    assert Transfer.objects.get().status == "cancelled"
    browser.post(reverse("run_transfer_again", args=[pk]))
    assert Transfer.objects.get().status == "queued"
    listed = browser.get(reverse("transfers"), {"status": "open"}).content.decode()
    assert "DOE, Jane" in listed
    assert "DOE, Jane" not in browser.get(reverse("transfers"), {"status": "done"}).content.decode()


def test_another_sites_transfers_are_not_seen(study: Study, north: Site, client_of: ClientOf) -> None:
    client_of("technologist").post(
        reverse("send_study", args=[study.study_instance_uid]), {"node": node_at(north, 104).pk}
    )
    other = client_of("southradiologist")
    assert "PACS" not in other.get(reverse("transfers")).content.decode()
    assert other.get(reverse("transfer", args=[Transfer.objects.get().pk])).status_code == 404


def test_a_dicomweb_nodes_token_is_sealed_and_never_shown(north: Site, client_of: ClientOf) -> None:
    browser = client_of("admin")
    entry = {
        "kind": "dicomweb",
        "ae_title": "CLOUD",
        "site": north.pk,
        "is_active": "on",
        "base_url": "https://pacs.example/dicom-web",
        "credentials": "bearer",
        "may_store": "on",
    }
    assert "Enter the token" in browser.post(reverse("new_node"), entry).content.decode()
    browser.post(reverse("new_node"), {**entry, "secret": "s3cret-token"})
    node = Node.objects.get()
    assert "s3cret" not in node.sealed_secret
    assert unseal(node.sealed_secret) == "s3cret-token"
    assert not node.may_store
    assert b"s3cret" not in browser.get(reverse("node", args=[node.pk])).content
    browser.post(reverse("node", args=[node.pk]), entry)
    node.refresh_from_db()
    assert unseal(node.sealed_secret) == "s3cret-token"
    assert not any("s3cret" in str(e.details) for e in AuditEvent.objects.all())


def rule_entry(site: Site, **fields: Any) -> dict[str, Any]:
    rows = {f"{p}-{n}": v for p in ("conditions", "in", "out") for n, v in (("TOTAL_FORMS", 1), ("INITIAL_FORMS", 0))}
    return {"name": "Night CT", "site": site.pk, "order": 10, "is_active": "on", **rows, **fields}


def test_a_routing_rule_is_made_tried_and_removed(study: Study, north: Site, client_of: ClientOf) -> None:
    browser = client_of("admin")
    node = node_at(north, 104)
    entry = rule_entry(
        north,
        nodes=[node.pk],
        **{"conditions-0-attribute": "modality", "conditions-0-operator": "is", "conditions-0-value": "CT"},
        **{"out-0-attribute": "PatientID", "out-0-action": "prefix", "out-0-value": "N-"},
    )
    assert browser.post(reverse("new_routing_rule"), entry).status_code == 302
    rule = RoutingRule.objects.get()
    assert rule.conditions == [{"attribute": "modality", "operator": "is", "value": "CT"}]
    assert rule.coercions_out[0]["attribute"] == "PatientID"
    assert list(rule.nodes.all()) == [node]
    tried = browser.post(reverse("try_routing_rule", args=[rule.pk]), headers=HTMX).content.decode()
    assert "1 of the last 1 studies" in tried
    assert "Night CT" in browser.get(reverse("rules")).content.decode()
    browser.post(reverse("delete_routing_rule", args=[rule.pk]))
    whats = [e.details.get("what") for e in AuditEvent.objects.filter(action="change").order_by("sequence")]
    assert [w for w in whats if w and w.startswith("rule")] == ["rule added", "rule removed"]


def row(attribute: str, operator: str, value: str) -> dict[str, str]:
    return {"conditions-0-attribute": attribute, "conditions-0-operator": operator, "conditions-0-value": value}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (row("study_description", "matches", "("), "no regular expression"),
        (row("time", "between", "night"), "18:00-07:00"),
        ({"out-0-attribute": "PixelData", "out-0-action": "remove"}, "may not be coerced"),
        ({"name": ""}, "required"),
    ],
)
def test_a_wrong_rule_is_explained(north: Site, client_of: ClientOf, fields: dict[str, str], words: str) -> None:
    answer = client_of("admin").post(reverse("new_routing_rule"), rule_entry(north, **fields))
    assert answer.status_code == 422
    assert words in answer.content.decode()
    assert not RoutingRule.objects.exists()


def test_a_rule_takes_no_node_of_another_site(north: Site, south: Site, client_of: ClientOf) -> None:
    answer = client_of("admin").post(reverse("new_routing_rule"), rule_entry(north, nodes=[node_at(south, 104).pk]))
    assert "belongs to another site" in answer.content.decode()


def test_a_rule_gives_cases_to_a_reading_group_of_its_site(north: Site, south: Site, client_of: ClientOf) -> None:
    ReadingGroup.objects.create(site=north, name="Neuro")
    ReadingGroup.objects.create(site=south, name="Chest")
    browser = client_of("admin")
    assert "Neuro" in browser.get(reverse("new_routing_rule")).content.decode()
    wrong = browser.post(reverse("new_routing_rule"), rule_entry(north, reading_group="Chest"))
    assert "North Hospital has no reading group of this name" in wrong.content.decode()
    assert browser.post(reverse("new_routing_rule"), rule_entry(north, reading_group="Neuro")).status_code == 302
    rule = RoutingRule.objects.get()
    assert rule.reading_group == "Neuro"
    ReadingGroup.objects.all().delete()
    assert "Neuro (no longer there)" in browser.get(reverse("routing_rule", args=[rule.pk])).content.decode()


def test_a_prefetch_rule_is_made(north: Site, client_of: ClientOf) -> None:
    entry = {"name": "CT priors", "site": north.pk, "is_active": "on", "modalities": "ct, mr", "at_most": 2}
    client_of("admin").post(reverse("new_prefetch_rule"), {**entry, "within_years": 5})
    rule = PrefetchRule.objects.get()
    assert (rule.modalities, rule.at_most, rule.on_study) == (["CT", "MR"], 2, False)


def test_the_monitor_shows_who_is_connected_what_waits_and_what_went_wrong(
    study: Study, north: Site, client_of: ClientOf
) -> None:
    node = node_at(north, free_port())
    live = associations.opened(node=node, site=north, ae_title="PACS", address="10.1.2.3")
    ended = associations.opened(node=node, site=north, ae_title="PACS", address="10.1.2.4")
    associations.closed(
        association_id=ended.pk,
        was_aborted=True,
        counts={"stored": 41, "received_bytes": 5_000_000},
        last_error="It hung.",
    )
    client_of("technologist").post(reverse("send_study", args=[study.study_instance_uid]), {"node": node.pk})
    queue.work_off(node.pk, "send")
    shown = client_of("admin").get(reverse("network"), headers=HTMX).content.decode()
    for words in ("10.1.2.3", "It hung.", "Doesn&#x27;t answer", "can&#x27;t be reached", "41"):
        assert words in shown or words.replace("&#x27;", "'") in shown, words
    associations.closed(association_id=live.pk)
    assert "Nobody." in client_of("admin").get(reverse("network")).content.decode()


def test_speed_is_that_of_the_last_minute(north: Site, client_of: ClientOf) -> None:
    node, now = node_at(north, free_port()), timezone.now()
    at = now.timestamp()
    slow = associations.opened(node=node, site=north, ae_title="PACS", address="10.1.2.3")
    AssociationLog.objects.filter(pk=slow.pk).update(
        opened_at=now - timedelta(hours=1),
        stored=1060,
        received_bytes=600_000_000,
        recent=[[at - 300, 900, 1], [at - 70, 1000, 540_000_000], [at - 5, 1060, 600_000_000]],
    )
    fast = associations.opened(node=node, site=north, ae_title="PACS", address="10.1.2.4", is_outgoing=True)
    AssociationLog.objects.filter(pk=fast.pk).update(
        opened_at=now - timedelta(seconds=10), sent=200, sent_bytes=100_000_000
    )
    associations.closed(association_id=fast.pk, counts={"sent": 200, "sent_bytes": 100_000_000})
    slow.refresh_from_db()
    fast.refresh_from_db()
    assert rate_of([slow]).instances == pytest.approx(1.0, rel=0.05)
    assert rate_of([slow]).octets == pytest.approx(1_000_000, rel=0.05)
    assert rate_of([fast]).instances == pytest.approx(20, rel=0.2)
    assert rate_of([slow, fast]).instances == pytest.approx(260 / 60, rel=0.05)
    shown = client_of("admin").get(reverse("network"), headers=HTMX).content.decode()
    assert "4.3/s" in shown
    AssociationLog.objects.filter(pk=slow.pk).update(recent=[[at - 70, 1060, 600_000_000]])
    slow.refresh_from_db()
    assert rate_of([slow]).octets == 0, "it idles"


def test_transfers_of_long_ago_are_forgotten_but_not_those_that_failed_or_wait(study: Study, north: Site) -> None:
    node = node_at(north, 104)
    long_ago = timezone.now() - timedelta(days=91)
    for status in Transfer.Status.values:
        ended = long_ago if status in {"done", "failed", "cancelled"} else None
        Transfer.objects.create(kind="send", node=node, site=north, study=study, status=status, ended_at=ended)
    Transfer.objects.create(kind="send", node=node, site=north, study=study, status="done", ended_at=timezone.now())
    assert transfers.forget_old() == 2
    assert sorted(Transfer.objects.values_list("status", flat=True)) == ["done", "failed", "queued", "running"]


def test_what_died_without_a_word_takes_no_place_of_its_node(north: Site) -> None:
    node = node_at(north, 104, maximum_associations=3)
    ended = subprocess.Popen(["true"])
    ended.wait()
    rows = [associations.opened(node=node, site=north, ae_title=node.ae_title, address="10.1.2.3") for _ in range(3)]
    assert not associations.has_room(node)
    AssociationLog.objects.filter(pk=rows[0].pk).update(listener=f"{socket.gethostname()[:60]}:{ended.pid}")
    assert associations.has_room(node), "its process is no more"
    long_ago = time.time() - associations.SILENT_SECONDS - 1
    rows.append(associations.opened(node=node, site=north, ae_title=node.ae_title, address="10.1.2.3"))
    AssociationLog.objects.filter(pk=rows[1].pk).update(listener="elsewhere:7", recent=[[time.time(), 0, 0]])
    AssociationLog.objects.filter(pk=rows[2].pk).update(listener="elsewhere:7", recent=[[long_ago, 0, 0]])
    assert associations.has_room(node), "its machine has been silent for long"
    open_now = AssociationLog.objects.filter(closed_at__isnull=True).values_list("pk", flat=True)
    assert sorted(open_now) == [rows[1].pk, rows[3].pk]


def test_what_a_killed_listener_left_open_is_closed(north: Site) -> None:
    associations.opened(node=None, site=north, ae_title="X", address="10.1.2.3")
    assert associations.close_all_of_this_host() == 1
    assert associations.close_all_of_this_host() == 0
