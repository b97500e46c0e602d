"""What the service says of itself, and whether that's so (PS3.18 §8.9)."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
import requests
import schemathesis
from django.test import Client
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import OpenAPIV31SpecValidator

from studies.dicomweb.capabilities import resource_of, template_of
from studies.dicomweb.description import RESOURCES
from studies.dicomweb.urls import urlpatterns
from tests.services.atrium import Atrium

VALUES = {
    "{study}": "1.2",
    "{series}": "1.3",
    "{instance}": "1.4",
    "{frames}": "1",
    "{path}": "00420011",
    "{workitem}": "1.5",
    "{ae_title}": "WATCH",
    "{category}": "color-palettes",
}


def address(path: str) -> str:
    for name, value in VALUES.items():
        path = path.replace(name, value)
    return f"/dicom-web/{path}"


def test_every_route_is_described_and_nothing_else_is() -> None:
    routes = {template_of(str(pattern.pattern)) for pattern in urlpatterns} - {"wado"}
    assert routes == {resource.path for resource in RESOURCES}
    assert resource_of("wado").operations


@pytest.mark.parametrize("path", [r.path for r in RESOURCES if r.path])
def test_options_tells_what_is_allowed_and_anything_else_is_refused(path: str, client: Client) -> None:
    answer = client.options(address(path))
    assert answer.status_code == 204
    allowed = {method.strip() for method in answer["Allow"].split(",")}
    assert {"OPTIONS"} < allowed
    (resource,) = [r for r in RESOURCES if r.path == path]
    assert allowed == set(resource.methods)


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["studies", "workitems", "studies/{study}/metadata", "color-palettes"])
def test_a_method_that_is_not_allowed_is_answered_with_those_that_are(path: str, client_of: Any) -> None:
    answer = client_of("admin").patch(address(path))
    assert answer.status_code == 405
    assert "GET" in answer["Allow"]


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["studies", "studies/{study}"])
def test_storing_by_put_is_not_in_the_standard(path: str, client_of: Any) -> None:
    answer = client_of("technologist").put(address(path), b"DICM", content_type="application/dicom")
    assert answer.status_code == 405
    assert "POST" in answer["Allow"]
    assert "PUT" not in answer["Allow"]


def test_capabilities_come_as_wadl_and_as_json(client: Client) -> None:
    answer = client.options("/dicom-web/", HTTP_ACCEPT="application/vnd.sun.wadl+xml")
    assert answer["Content-Type"] == "application/vnd.sun.wadl+xml"
    assert "OPTIONS" in answer["Allow"]
    namespace = "{http://wadl.dev.java.net/2009/02}"
    resources = ElementTree.fromstring(answer.content).find(f"{namespace}resources")
    assert resources is not None
    paths = [resource.get("path") for resource in resources]
    assert paths == [r.path for r in RESOURCES]
    content = client.options("/dicom-web/").json()
    assert [r["@path"] for r in content["application"]["resources"]["resource"]] == paths
    assert client.get("/dicom-web/", HTTP_ACCEPT="image/png").status_code == 406


def test_the_root_is_the_same_without_its_slash(client: Client) -> None:
    for method in ("GET", "OPTIONS"):
        for accept in ("application/json", "application/vnd.sun.wadl+xml"):
            bare, root = (client.generic(method, path, HTTP_ACCEPT=accept) for path in ("/dicom-web", "/dicom-web/"))
            assert (bare.status_code, bare.content) == (200, root.content)
            assert bare.get("Allow") == root.get("Allow")


def test_the_address_of_events_is_described(client: Client) -> None:
    document = client.get("/dicom-web/openapi.json").json()
    described = document["paths"]["/dicom-web/subscribers/{ae_title}"]["get"]
    assert {"101", "426"} < set(described["responses"])
    wadl = client.get("/dicom-web/", HTTP_ACCEPT="application/vnd.sun.wadl+xml").content
    assert b'path="subscribers/{ae_title}"' in wadl


def test_the_conformance_document_names_services_and_classes(client: Client) -> None:
    content = client.get("/dicom-web/conformance").json()
    assert {"Studies", "Worklist", "Non-patient instances", "Capabilities", "URI"} == set(content["services"])
    assert ["1.2.840.10008.5.1.4.1.1.2", "CT Image Storage"] in content["storage_classes"]


def test_the_openapi_document_is_valid(client: Client) -> None:
    content = client.get("/dicom-web/openapi.json").json()
    OpenAPIV31SpecValidator(content).validate()
    names = [
        operation["operationId"]
        for path in content["paths"].values()
        for m, operation in path.items()
        if m != "parameters"
    ]
    assert len(names) == len(set(names))


@schemathesis.serializer("multipart/related", "application/dicom", "application/dicom+xml")
def as_text(context: Any, value: Any) -> bytes:
    """Send whatever is made for a body that isn't JSON as its text."""
    return str(value).encode("utf-8", "replace")


def test_no_described_request_breaks_the_server_or_gets_what_is_not_described(atrium: Atrium) -> None:
    document = requests.get(f"{atrium.url}/dicom-web/openapi.json", timeout=30).json()
    schema = schemathesis.openapi.from_dict(document)
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {atrium.token('admin')}"
    asked = 0
    wrong = []
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=3,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def send(case: Any) -> None:
            nonlocal asked
            answer = case.call(base_url=atrium.url, session=session)
            asked += 1
            if answer.status_code >= 500:
                wrong.append((case.method, case.path, answer.status_code))
            if answer.status_code < 400 and str(answer.status_code) not in case.operation.definition.raw["responses"]:
                wrong.append((case.method, case.path, answer.status_code))

        send()
    assert asked > 100
    assert wrong == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path",
    [
        *("studies/abc", f"studies/{'1' * 65}", "studies/", "studies/1.2/..%2f1.3", "foo", "hanging-protocols/abc"),
        *("studies/1..2", "studies/1.2/series/1.3/instances/1.4/frames/", "%0a", "studies/%0a1.2"),
    ],
)
def test_what_is_no_address_is_said_in_the_protocols_form(path: str, client: Client) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        answer = client.generic(method, f"/dicom-web/{path}")
        assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")
        assert "UIDs are" in answer.json()["title"]
    assert client.get(f"/{path}")["Content-Type"] == "text/html; charset=utf-8"


@pytest.mark.django_db
def test_uids_are_spoken_of_to_dicom_clients_only(client: Client) -> None:
    assert "UIDs are" in client.get("/wado/1.2").json()["title"]
    assert client.get("/api/v2/nothing").json()["title"] == "There is no such address."


@pytest.mark.django_db
def test_what_is_refused_before_it_is_looked_at_is_said_in_the_protocols_form(client_of: Any, client: Client) -> None:
    browser = client_of("admin")
    for method, path in (
        *(("PUT", "/dicom-web/studies"), ("PATCH", "/dicom-web/studies/1.2"), ("TRACE", "/dicom-web/openapi.json")),
        *(("POST", "/wado"), ("DELETE", "/dicom-web/workitems"), ("PUT", "/dicom-web/workitems/1.2")),
    ):
        answer = browser.generic(method, path)
        assert (answer.status_code, answer["Content-Type"]) == (405, "application/problem+json"), path
        assert method not in answer["Allow"]
    careful = Client(enforce_csrf_checks=True)
    careful.cookies = browser.cookies
    forged = careful.post("/dicom-web/studies", b"DICM", content_type="application/dicom")
    assert (forged.status_code, forged["Content-Type"]) == (403, "application/problem+json")
    stranger = Client(enforce_csrf_checks=True)
    for method, path in (
        *(
            ("POST", "/dicom-web/studies"),
            ("DELETE", "/dicom-web/studies/1.2"),
            ("PUT", "/dicom-web/workitems/1.5/state"),
        ),
        *(("POST", "/dicom-web/color-palettes"), ("POST", "/api/v1/orders/"), ("GET", "/dicom-web/studies")),
    ):
        unknown = stranger.generic(method, path, b"DICM", content_type="application/dicom")
        assert (unknown.status_code, unknown["WWW-Authenticate"]) == (401, "Bearer"), path
    elsewhere = client.get("/dicom-web/studies", HTTP_HOST="elsewhere.example")
    assert (elsewhere.status_code, elsewhere["Content-Type"]) == (400, "application/problem+json")
    page = careful.post("/theme/")
    assert (page.status_code, page["Content-Type"]) == (403, "text/html; charset=utf-8")
