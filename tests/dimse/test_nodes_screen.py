"""The nodes' screens, and what a node's settings mean for its calls."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from accounts.models import Role, Site, User
from accounts.services import create_user
from portal.audit.models import AuditEvent
from studies.dimse.callers import caller_from
from studies.dimse.models import Node
from tests.services.ports import free_port

ClientOf = Callable[[str], Client]


def entry(site: Site, **changes: object) -> dict[str, object]:
    return {"ae_title": "MR1", "site": site.pk, "may_store": "on", "is_active": "on", **changes}


def test_an_administrator_adds_changes_and_removes_a_node_and_the_trail_tells(client_of: ClientOf, north: Site) -> None:
    browser = client_of("admin")
    assert browser.post(reverse("new_node"), entry(north, allowed_addresses="10.1.2.3, 10.2.0.0/16")).status_code == 302
    node = Node.objects.get(ae_title="MR1")
    assert node.allowed_addresses == ["10.1.2.3/32", "10.2.0.0/16"]
    assert b"MR1" in browser.get(reverse("nodes")).content
    browser.post(reverse("node", args=[node.pk]), entry(north, is_active=""))
    node.refresh_from_db()
    assert not node.is_active
    browser.post(reverse("delete_node", args=[node.pk]))
    assert not Node.objects.exists()
    events = AuditEvent.objects.filter(action=AuditEvent.Action.CHANGE).order_by("sequence")
    own = [e for e in events if "what" in e.details]
    assert [e.details["what"] for e in own] == ["node added", "node changed", "node removed"]
    assert {(e.username, e.site_id) for e in own} == {("admin", north.pk)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"allowed_addresses": "nowhere"}, "is no address or network"),
        ({"ae_title": "A" * 17}, "at most 16"),
        ({"ae_title": "A\\B"}, "1 to 16 characters"),
        ({"port": "70000"}, "65535"),
    ],
)
def test_a_wrong_entry_is_explained(client_of: ClientOf, north: Site, changes: dict[str, str], words: str) -> None:
    answer = client_of("admin").post(reverse("new_node"), entry(north, **changes))
    assert answer.status_code == 422
    assert words in answer.content.decode()
    assert not Node.objects.exists()


def test_who_manages_no_nodes_is_refused(client_of: ClientOf, north: Site) -> None:
    node = Node.objects.create(ae_title="MR1", site=north)
    for name in ("radiologist", "technologist", "referrer", "compliance"):
        browser = client_of(name)
        assert browser.get(reverse("nodes")).status_code == 403
        assert browser.post(reverse("delete_node", args=[node.pk])).status_code == 403
    assert Client().get(reverse("nodes")).status_code == 302


def test_a_site_administrator_reaches_only_their_own_nodes(people: dict[str, User], north: Site, south: Site) -> None:
    role = Role.objects.get(slug="administrator")
    create_user(username="southadmin", password="quiet-reading-room-42", role=role, sites=[south])
    node = Node.objects.create(ae_title="MR1", site=north)
    browser = Client()
    browser.force_login(User.objects.get(username="southadmin"), "allauth.account.auth_backends.AuthenticationBackend")
    assert b"MR1" not in browser.get(reverse("nodes")).content
    assert browser.get(reverse("node", args=[node.pk])).status_code == 404
    assert browser.post(reverse("new_node"), entry(north, ae_title="MR2")).status_code == 422


def test_open_mode_is_warned_of(client_of: ClientOf, north: Site, settings: Any) -> None:
    browser = client_of("admin")
    settings.ATRIUM = replace(settings.ATRIUM, dicom_open=False)
    assert b"Open mode" not in browser.get(reverse("nodes")).content
    settings.ATRIUM = replace(settings.ATRIUM, dicom_open=True)
    assert b"Open mode" in browser.get(reverse("nodes")).content


def test_a_node_may_call_only_while_active_and_from_its_addresses(north: Site, south: Site, settings: Any) -> None:
    settings.ATRIUM = replace(settings.ATRIUM, dicom_open=False)
    node = Node.objects.create(ae_title="MR1", site=south, allowed_addresses=["10.1.0.0/16"])
    source = caller_from("MR1", "10.1.2.3")
    assert source is not None
    assert source.site == south
    assert caller_from("MR1", "::ffff:10.1.2.3") is not None
    assert caller_from("MR1", "10.2.0.1") is None
    assert caller_from("STRANGER", "10.1.2.3") is None
    settings.ATRIUM = replace(settings.ATRIUM, dicom_open=True)
    stranger = caller_from("STRANGER", "10.1.2.3")
    assert stranger is not None
    assert stranger.site == north
    node.is_active = False
    node.save()
    assert caller_from("MR1", "10.1.2.3") is None


@pytest.fixture
def echoing_port() -> Iterator[int]:
    ae = AE("MR1")
    ae.require_called_aet = True
    ae.add_supported_context(Verification)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_ECHO, lambda event: 0)])
    yield server.server_address[1]
    server.shutdown()


def diagnosis(client_of: ClientOf, node: Node) -> str:
    answer = client_of("admin").post(reverse("verify_node", args=[node.pk]), headers={"HX-Request": "true"})
    assert answer.status_code == 200
    return answer.content.decode()


def test_a_node_that_answers_is_verified(client_of: ClientOf, north: Site, echoing_port: int) -> None:
    node = Node.objects.create(ae_title="MR1", site=north, host="127.0.0.1", port=echoing_port)
    assert "The node answers." in diagnosis(client_of, node)


def test_a_wrong_title_a_closed_port_and_an_unknown_host_are_told_apart(
    client_of: ClientOf, north: Site, echoing_port: int
) -> None:
    node = Node.objects.create(ae_title="MR2", site=north, host="127.0.0.1", port=echoing_port)
    assert "has another AE title" in diagnosis(client_of, node)
    node.port = free_port()
    node.save()
    assert "nothing listens at port" in diagnosis(client_of, node)
    node.host = "no-such-host.invalid"
    node.save()
    assert "No machine has the name" in diagnosis(client_of, node)


def test_a_service_that_is_no_dicom_is_told(client_of: ClientOf, north: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        node = Node.objects.create(ae_title="MR1", site=north, host="127.0.0.1", port=deaf.getsockname()[1])
        assert "speak DICOM" in diagnosis(client_of, node)
