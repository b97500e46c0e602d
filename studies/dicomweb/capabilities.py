"""The service's own description: OPTIONS, capabilities, conformance, OpenAPI (PS3.18 §8.9)."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache, wraps
from http import HTTPStatus
from typing import Any
from xml.etree import ElementTree

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import URLPattern
from pydicom.uid import UID, AllTransferSyntaxes
from pynetdicom import AllStoragePresentationContexts

from accounts.gates import problem
from studies.dicomweb.description import PROBLEM, RESOURCES, WADL, WADO_URI, Operation, Resource, by_path, operations
from studies.dicomweb.errors import DicomWebError, answers_errors
from studies.dicomweb.media_types import accepted
from studies.ingest.non_patient import CATEGORIES
from studies.uids import LONGEST_UID, UID_FORM
from studies.workitems.matching import KEYS as WORKITEM_KEYS

WADL_NAMESPACE = "http://wadl.dev.java.net/2009/02"
ROOT = "dicom-web/"
View = Callable[..., HttpResponseBase]
_NAMES = {
    "study_instance_uid": "study",
    "series_instance_uid": "series",
    "sop_instance_uid": "instance",
    "workitem_uid": "workitem",
}


def template_of(route: str) -> str:
    """Give a route's path template below the root: ``studies/<uid:study_instance_uid>`` is ``studies/{study}``."""
    template = re.sub(r"<\w+:(\w+)>", lambda match: "{" + _NAMES.get(match[1], match[1]) + "}", route)
    return f"{template}/".removeprefix(ROOT).rstrip("/")


def resource_of(route: str) -> Resource:
    """Give what is described of a route. Raises KeyError for one that the table lacks."""
    return WADO_URI if route == "wado" else by_path()[template_of(route)]


def answering_options(pattern: URLPattern) -> URLPattern:
    """Let a route answer OPTIONS with what it allows, and refuse every other method (RFC 9110 §9.3.7, §15.5.6)."""
    resource = resource_of(str(pattern.pattern))
    allow = ", ".join(resource.methods)
    view: View = pattern.callback

    @wraps(view)
    def answered(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method == "OPTIONS" and resource.path:
            options = HttpResponse(status=204)
            del options["Content-Type"]
            options["Allow"] = allow
            return options
        is_allowed = request.method in resource.methods
        response = (view if is_allowed else _wrong_method)(request, *args, **kwargs)
        if not is_allowed or request.method == "OPTIONS":
            response["Allow"] = allow
        return response

    pattern.callback = answered
    return pattern


def _wrong_method(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
    return problem(405, "That method isn't for this resource.")


@answers_errors
def root(request: HttpRequest) -> HttpResponseBase:
    """Give the capabilities description as JSON or WADL (PS3.18 §8.9.2), by OPTIONS or GET."""
    base = request.build_absolute_uri(f"/{ROOT}")
    for wanted in (one for one in accepted(request) if not one.is_multipart):
        if wanted.matches("application/json") or wanted.media_type == "application/vnd.sun.wadl+json":
            return JsonResponse(_as_json(base))
        if wanted.matches(WADL) or wanted.media_type in {"application/xml", "text/xml"}:
            return HttpResponse(_as_wadl(base), content_type=WADL)
    raise DicomWebError(406, "Capabilities are given as JSON or WADL.", available=["application/json", WADL])


def _as_json(base: str) -> dict[str, Any]:
    """Give the WADL's content as JSON, an object for each element."""
    return {
        "application": {
            "resources": {
                "@base": base,
                "resource": [
                    {"@path": resource.path, "method": [_method_as_json(o) for o in resource.operations]}
                    for resource in RESOURCES
                ],
            }
        }
    }


def _method_as_json(operation: Operation) -> dict[str, Any]:
    return {
        "@name": operation.method,
        "@id": operation.summary,
        "request": {
            "param": [{"@name": name, "@style": "query"} for name in operation.query],
            "representation": [{"@mediaType": media_type} for media_type in operation.takes],
        },
        "response": {
            "@status": " ".join(map(str, operation.codes)),
            "representation": [{"@mediaType": media_type} for media_type in operation.gives],
        },
    }


def _as_wadl(base: str) -> bytes:
    """Give the capabilities in the Web Application Description Language (PS3.18 Annex H)."""
    application = ElementTree.Element("application", {"xmlns": WADL_NAMESPACE})
    resources = ElementTree.SubElement(application, "resources", {"base": base})
    for resource in RESOURCES:
        placed = ElementTree.SubElement(resources, "resource", {"path": resource.path})
        for name in re.findall(r"\{(\w+)\}", resource.path):
            ElementTree.SubElement(placed, "param", {"name": name, "style": "template", "required": "true"})
        for operation in resource.operations:
            method = ElementTree.SubElement(placed, "method", {"name": operation.method})
            ElementTree.SubElement(method, "doc", {"title": operation.summary})
            request = ElementTree.SubElement(method, "request")
            for name in operation.query:
                ElementTree.SubElement(request, "param", {"name": name, "style": "query"})
            for media_type in operation.takes:
                ElementTree.SubElement(request, "representation", {"mediaType": media_type})
            status = " ".join(map(str, operation.codes))
            response = ElementTree.SubElement(method, "response", {"status": status})
            for media_type in operation.gives:
                ElementTree.SubElement(response, "representation", {"mediaType": media_type})
    document: bytes = ElementTree.tostring(application, encoding="utf-8", xml_declaration=True)
    return document


def conformance(request: HttpRequest) -> JsonResponse:
    """Say which services, classes, syntaxes and matching keys there are."""
    return JsonResponse(_conformance())


@lru_cache(maxsize=1)
def _conformance() -> dict[str, Any]:
    services: dict[str, list[str]] = {}
    for resource, operation in operations():
        services.setdefault(resource.service, []).append(f"{operation.method} /{ROOT}{resource.path}")
    services[WADO_URI.service] = ["GET /wado"]
    return {
        "standard": "DICOM PS3.18",
        "services": services,
        "storage_classes": sorted(
            {str(c.abstract_syntax): UID(c.abstract_syntax or "").name for c in AllStoragePresentationContexts}.items()
        ),
        "transfer_syntaxes": [{"uid": str(s), "name": s.name} for s in AllTransferSyntaxes],
        "workitem_matching_keys": sorted(WORKITEM_KEYS),
        "non_patient_categories": sorted(CATEGORIES),
        "events": f"/{ROOT}subscribers/{{ae_title}} (WebSocket)",
        "openapi": f"/{ROOT}openapi.json",
    }


def openapi(request: HttpRequest) -> JsonResponse:
    """Give the OpenAPI 3.1 document of DICOMweb."""
    return JsonResponse(_openapi())


@lru_cache(maxsize=1)
def _openapi() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for resource, operation in operations():
        path = paths.setdefault(f"/{ROOT}{resource.path}", {})
        if "parameters" not in path and "{" in resource.path:
            path["parameters"] = [_path_parameter(name) for name in re.findall(r"\{(\w+)\}", resource.path)]
        path[operation.method.lower()] = _operation(resource, operation)
    paths["/wado"] = {"get": _operation(WADO_URI, WADO_URI.operations[0])}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Atrium DICOMweb",
            "version": "1",
            "description": "DICOM PS3.18: studies, worklist, non-patient instances, capabilities.",
        },
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "DataSet": {
                    "type": "object",
                    "description": "A data set in the DICOM JSON model (PS3.18 Annex F).",
                    "propertyNames": {"pattern": "^[0-9A-F]{8}$"},
                    "additionalProperties": {
                        "type": "object",
                        "required": ["vr"],
                        "properties": {
                            "vr": {"type": "string", "pattern": "^[A-Z]{2}$"},
                            "Value": {"type": "array"},
                            "InlineBinary": {"type": "string", "contentEncoding": "base64"},
                            "BulkDataURI": {"type": "string"},
                        },
                    },
                },
                "DataSets": {"type": "array", "items": {"$ref": "#/components/schemas/DataSet"}},
                "Problem": {
                    "type": "object",
                    "required": ["title", "status"],
                    "properties": {"title": {"type": "string"}, "status": {"type": "integer"}},
                },
            },
        },
    }


def _path_parameter(name: str) -> dict[str, Any]:
    schemas: dict[str, dict[str, Any]] = {
        "frames": {"type": "string", "pattern": "^[1-9][0-9]{0,5}(,[1-9][0-9]{0,5}){0,20}$"},
        "path": {"type": "string", "pattern": "^[0-9A-F]{8}$"},
        "ae_title": {"type": "string", "pattern": "^[A-Z][A-Z0-9_]{0,15}$"},
        "category": {"type": "string", "enum": sorted(CATEGORIES)},
    }
    uid = {"type": "string", "pattern": f"^{UID_FORM.pattern}$", "maxLength": LONGEST_UID}
    return {"name": name, "in": "path", "required": True, "schema": schemas.get(name, uid)}


_QUERY_SCHEMAS: dict[str, dict[str, Any]] = {
    "limit": {"type": "integer", "minimum": 0, "maximum": 999999999},
    "offset": {"type": "integer", "minimum": 0, "maximum": 999999999},
    "quality": {"type": "integer", "minimum": 1, "maximum": 100},
    "fuzzymatching": {"type": "boolean"},
    "emptyvaluematching": {"type": "boolean"},
    "multiplevaluematching": {"type": "boolean"},
    "deletionlock": {"type": "boolean"},
}


def _operation(resource: Resource, operation: Operation) -> dict[str, Any]:
    name = re.sub(r"[^a-z]+", "_", resource.path.lower()).strip("_")
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": f"{operation.method.lower()}_{name or 'root'}",
        "tags": [resource.service],
        "parameters": [
            {"name": key, "in": "query", "schema": _QUERY_SCHEMAS.get(key, {"type": "string"})}
            for key in operation.query
        ],
        "responses": {
            **{str(code): _response(operation, code) for code in operation.codes},
            "default": {
                "description": "Refused, with the reason.",
                "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
    }
    if operation.method == "GET" and "limit" in operation.query:
        described["parameters"].append(
            {
                "name": "attributes",
                "in": "query",
                "description": "Matching keys: keyword or tag, sequences by dots.",
                "style": "form",
                "explode": True,
                "schema": {"type": "object", "additionalProperties": {"type": "string"}},
            }
        )
    if operation.takes:
        described["requestBody"] = {
            "required": True,
            "content": {_plain(media_type): {"schema": _schema(media_type)} for media_type in operation.takes},
        }
    if resource.service == "Capabilities":
        described["security"] = []
    return described


def _response(operation: Operation, code: int) -> dict[str, Any]:
    response: dict[str, Any] = {"description": f"{operation.summary}: {HTTPStatus(code).phrase}"}
    if operation.gives and code != 204:
        content = {_plain(media_type): {"schema": _schema(media_type)} for media_type in operation.gives}
        response["content"] = content
    return response


def _plain(media_type: str) -> str:
    return media_type.split(";")[0]


def _schema(media_type: str) -> dict[str, Any]:
    if media_type == "application/dicom+json":
        return {"anyOf": [{"$ref": "#/components/schemas/DataSets"}, {"$ref": "#/components/schemas/DataSet"}]}
    if media_type == "application/json":
        return {"type": "object"}
    return {}
