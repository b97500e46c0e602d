"""What each resource of ours does: the table behind OPTIONS, the capabilities and OpenAPI (PS3.18 §8.9)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

JSON, XML, DICOM = "application/dicom+json", "application/dicom+xml", "application/dicom"
OCTETS, ZIP, PROBLEM = "application/octet-stream", "application/zip", "application/problem+json"
RELATED_DICOM = 'multipart/related; type="application/dicom"'
RELATED_XML = 'multipart/related; type="application/dicom+xml"'
RELATED_OCTETS = 'multipart/related; type="application/octet-stream"'
WADL = "application/vnd.sun.wadl+xml"
PICTURES = ("image/jpeg", "image/png", "image/gif", "image/webp")
SHOWN = (*PICTURES, "video/mp4", "image/svg+xml", "text/html", "text/plain", "application/pdf")
RELATED_PICTURES = 'multipart/related; type="image/jpeg"'
RELATED_JSON = 'multipart/related; type="application/dicom+json"'
# Of compressed frames (PS3.18 Table 8.7.3-5).
STREAMS = ("image/jpeg", "image/jls", "image/jp2", "image/jphc", "image/dicom-rle")
RELATED_STREAMS = tuple(f'multipart/related; type="{one}"' for one in STREAMS)


@dataclass(frozen=True)
class Operation:
    """A method of a resource: what it does, its query parameters, the forms it takes and gives, its success codes."""

    method: str
    summary: str
    query: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    codes: tuple[int, ...] = (200,)


@dataclass(frozen=True)
class Resource:
    """A resource by its path template below the root, and the service of the standard that it belongs to."""

    service: str
    path: str
    operations: tuple[Operation, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """Give the allowed methods, HEAD beside GET, and OPTIONS."""
        named = [operation.method for operation in self.operations]
        return (*named, *(["HEAD"] if "GET" in named else []), "OPTIONS")


_SEARCH = ("limit", "offset", "includefield", "fuzzymatching", "emptyvaluematching", "multiplevaluematching")
_PICTURE = ("accept", "quality", "viewport", "window", "annotation", "iccprofile")
_STUDY, _SERIES = "studies/{study}", "studies/{study}/series/{series}"
_INSTANCE = f"{_SERIES}/instances/{{instance}}"


def _search(what: str) -> Operation:
    return Operation("GET", f"Search for {what}", _SEARCH, gives=(JSON, RELATED_XML), codes=(200, 204))


def _retrieve(what: str) -> Operation:
    return Operation(
        "GET",
        f"Retrieve {what}",
        ("accept",),
        gives=(RELATED_DICOM, DICOM, RELATED_OCTETS, *RELATED_STREAMS, ZIP),
        codes=(200, 206),
    )


def _metadata(what: str) -> Operation:
    return Operation("GET", f"Retrieve the metadata of {what}", ("accept",), gives=(JSON, RELATED_XML))


def _bulk(what: str) -> Operation:
    return Operation("GET", f"Retrieve {what}", ("accept",), gives=(RELATED_OCTETS, *RELATED_STREAMS), codes=(200, 206))


def _picture(what: str) -> Operation:
    return Operation("GET", f"Retrieve {what} as a picture", _PICTURE, gives=PICTURES)


def _rendered(what: str, *forms: str) -> Operation:
    return Operation("GET", f"Retrieve {what} as people see it", _PICTURE, gives=forms)


def _store(what: str) -> Operation:
    takes = (RELATED_DICOM, DICOM, RELATED_JSON, RELATED_XML, ZIP)
    return Operation("POST", f"Store {what}", ("site",), takes=takes, gives=(JSON, XML), codes=(200, 202, 409))


def _delete(what: str) -> Operation:
    return Operation("DELETE", f"Delete {what} for good", codes=(204,))


_STUDIES = (
    Resource("Studies", "studies", (_search("studies"), _store("instances"))),
    Resource("Studies", "series", (_search("series"),)),
    Resource("Studies", "instances", (_search("instances"),)),
    Resource("Studies", _STUDY, (_retrieve("a study"), _store("instances of one study"), _delete("a study"))),
    Resource("Studies", f"{_STUDY}/series", (_search("a study's series"),)),
    Resource("Studies", f"{_STUDY}/instances", (_search("a study's instances"),)),
    Resource("Studies", f"{_STUDY}/metadata", (_metadata("a study"),)),
    Resource("Studies", f"{_STUDY}/rendered", (_rendered("a study", RELATED_PICTURES),)),
    Resource("Studies", f"{_STUDY}/thumbnail", (_picture("a study, small,"),)),
    Resource("Studies", f"{_STUDY}/bulkdata", (_bulk("all binary values of a study"),)),
    Resource("Studies", f"{_STUDY}/pixeldata", (_bulk("the pixels of a study"),)),
    Resource("Studies", _SERIES, (_retrieve("a series"), _delete("a series"))),
    Resource("Studies", f"{_SERIES}/instances", (_search("a series' instances"),)),
    Resource("Studies", f"{_SERIES}/metadata", (_metadata("a series"),)),
    Resource("Studies", f"{_SERIES}/rendered", (_rendered("a series", RELATED_PICTURES),)),
    Resource("Studies", f"{_SERIES}/thumbnail", (_picture("a series, small,"),)),
    Resource("Studies", f"{_SERIES}/bulkdata", (_bulk("all binary values of a series"),)),
    Resource("Studies", f"{_SERIES}/pixeldata", (_bulk("the pixels of a series"),)),
    Resource("Studies", _INSTANCE, (_retrieve("an instance"), _delete("an instance"))),
    Resource("Studies", f"{_INSTANCE}/metadata", (_metadata("an instance"),)),
    Resource("Studies", f"{_INSTANCE}/rendered", (_rendered("an instance", *SHOWN),)),
    Resource("Studies", f"{_INSTANCE}/thumbnail", (_picture("an instance, small,"),)),
    Resource("Studies", f"{_INSTANCE}/bulkdata", (_bulk("all binary values of an instance"),)),
    Resource("Studies", f"{_INSTANCE}/pixeldata", (_bulk("the pixels of an instance"),)),
    Resource(
        "Studies",
        f"{_INSTANCE}/bulkdata/{{path}}",
        (Operation("GET", "Retrieve a binary value", ("accept",), gives=(OCTETS, RELATED_OCTETS), codes=(200, 206)),),
    ),
    Resource(
        "Studies",
        f"{_INSTANCE}/frames/{{frames}}",
        (
            Operation(
                "GET",
                "Retrieve frames, in the order asked for",
                ("accept",),
                gives=(RELATED_OCTETS, *RELATED_STREAMS, OCTETS, *STREAMS),
            ),
        ),
    ),
    Resource(
        "Studies",
        f"{_INSTANCE}/frames/{{frames}}/rendered",
        (_rendered("frames", *PICTURES, "video/mp4", RELATED_PICTURES),),
    ),
    Resource("Studies", f"{_INSTANCE}/frames/{{frames}}/thumbnail", (_picture("a frame, small,"),)),
)

_WORKITEM = "workitems/{workitem}"
_DATASET = (JSON, XML)
_WORKLIST = (
    Resource(
        "Worklist",
        "workitems",
        (
            Operation("GET", "Search for workitems", _SEARCH, gives=(JSON, RELATED_XML), codes=(200, 204, 206)),
            Operation("POST", "Create a workitem", ("workitem", "site"), takes=_DATASET, codes=(201,)),
        ),
    ),
    Resource(
        "Worklist",
        _WORKITEM,
        (
            Operation("GET", "Retrieve a workitem", gives=_DATASET),
            Operation("POST", "Update a workitem", ("transaction-uid",), takes=_DATASET),
        ),
    ),
    Resource("Worklist", f"{_WORKITEM}/state", (Operation("PUT", "Claim, complete or cancel", takes=_DATASET),)),
    Resource(
        "Worklist",
        f"{_WORKITEM}/cancelrequest",
        (Operation("POST", "Ask that a workitem be canceled", takes=_DATASET, codes=(202,)),),
    ),
    Resource(
        "Worklist",
        f"{_WORKITEM}/subscribers/{{ae_title}}",
        (
            Operation("POST", "Subscribe", ("deletionlock", "filter", "site"), codes=(201,)),
            Operation("DELETE", "Unsubscribe", ("site",)),
        ),
    ),
    Resource(
        "Worklist",
        f"{_WORKITEM}/subscribers/{{ae_title}}/suspend",
        (Operation("POST", "Suspend a global subscription", ("site",)),),
    ),
    Resource(
        "Worklist",
        "subscribers/{ae_title}",
        (Operation("GET", "Open the WebSocket by which events come", codes=(101, 426)),),
    ),
)

_NON_PATIENT = (
    Resource(
        "Non-patient instances",
        "{category}",
        (_search("non-patient instances"), _store("non-patient instances")),
    ),
    Resource(
        "Non-patient instances",
        "{category}/{instance}",
        (
            Operation("GET", "Retrieve a non-patient instance", ("accept",), gives=(DICOM, RELATED_DICOM, JSON, XML)),
            _store("one non-patient instance"),
        ),
    ),
)

_ABOUT_US = (
    Resource(
        "Capabilities",
        "",
        (
            Operation(
                "GET", "Give the capabilities", ("accept",), gives=("application/json", "application/vnd.sun.wadl+xml")
            ),
        ),
    ),
    Resource("Capabilities", "conformance", (Operation("GET", "Say what is supported", gives=("application/json",)),)),
    Resource("Capabilities", "openapi.json", (Operation("GET", "Give this document", gives=("application/json",)),)),
)

RESOURCES: tuple[Resource, ...] = (*_STUDIES, *_WORKLIST, *_NON_PATIENT, *_ABOUT_US)
WADO_URI = Resource(
    "URI",
    "wado",
    (
        Operation(
            "GET",
            "Retrieve an object by query parameters",
            (
                *("requestType", "studyUID", "seriesUID", "objectUID", "contentType", "charset", "anonymize"),
                *("transferSyntax", "frameNumber", "rows", "columns", "region", "windowCenter", "windowWidth"),
                *("imageQuality", "annotation", "presentationUID", "presentationSeriesUID"),
            ),
            gives=(DICOM, *SHOWN),
        ),
    ),
)


def by_path() -> dict[str, Resource]:
    """Give the resources by their path template below the root."""
    return {resource.path: resource for resource in RESOURCES}


def operations() -> Iterator[tuple[Resource, Operation]]:
    """Give each operation with its resource."""
    for resource in RESOURCES:
        for operation in resource.operations:
            yield resource, operation
