"""A node called by DICOMweb: QIDO-RS and WADO-RS through dicomweb-client, STOW-RS with the bytes as they're stored."""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import requests
from dicomweb_client import DICOMwebClient
from django.utils.translation import gettext as _
from pydicom import Dataset
from requests import Response

from portal.sealing import CannotUnseal, unseal
from studies.dimse.client import RETURNED, FoundStudy, Progress, Query, Receiver, Stored
from studies.dimse.errors import NodeRefuses, NodeUnavailable, NotSendable
from studies.dimse.models import Node
from studies.dimse.outgoing import Outgoing
from studies.ingest.services import stage

CONNECT_SECONDS, ANSWER_SECONDS = 10, 120
TIMEOUT = (CONNECT_SECONDS, ANSWER_SECONDS)
CHUNK = 1 << 18
TEMPORARY = {408, 425, 429, 500, 502, 503, 504, 507}
DICOM = "application/dicom"


class PlainStarSession(requests.Session):
    """Leaves ``*`` as it is in addresses, as RFC 3986 §3.4 allows: older Orthancs don't decode ``%2A``."""

    def request(self, method: str, url: str | bytes, *arguments: Any, **options: Any) -> Response:
        return super().request(method, str(url).replace("%2A", "*"), *arguments, **options)


def session_of(node: Node) -> requests.Session:
    """Give an HTTP session that signs in as the node wants it. Raises NodeUnavailable where the secret is lost."""
    session = PlainStarSession()
    try:
        secret = unseal(node.sealed_secret)
    except CannotUnseal as error:
        raise NodeUnavailable(_("The kept token or password can't be read any more. Enter it again.")) from error
    if node.credentials == Node.Credentials.BEARER:
        session.headers["Authorization"] = f"Bearer {secret}"
    elif node.credentials == Node.Credentials.BASIC:
        session.auth = (node.username, secret)
    return session


class DicomwebNodeClient:
    """A DICOMweb node; see client.NodeClient."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.root = node.base_url.rstrip("/")
        self.session = session_of(node)

    def find(self, query: Query, *, at_most: int) -> list[FoundStudy]:
        client = DICOMwebClient(self.root, session=self.session, timeout=TIMEOUT)
        try:
            answers = client.search_for_studies(
                search_filters=query.as_keywords(), limit=at_most, fields=[k for k in RETURNED if k != "StudyTime"]
            )
        except requests.HTTPError as error:
            raise _told(error.response) from error
        except (requests.RequestException, OSError) as error:
            raise _unreachable(self.node) from error
        except ValueError as error:
            raise NodeRefuses(_("The node's answer is no DICOM JSON.")) from error
        return [FoundStudy.of(Dataset.from_json(answer)) for answer in answers]

    def store(self, outgoing: Sequence[Outgoing]) -> Generator[Stored, None, None]:
        for one in outgoing:
            yield self._store(one)

    def _store(self, one: Outgoing) -> Stored:
        readable = self.node.transfer_syntaxes
        try:
            syntax = one.syntax_for(
                [*readable, "1.2.840.10008.1.2.1"] if readable else [one.instance.transfer_syntax_uid]
            )
            staged = one.staged_as(syntax)
        except NotSendable as error:
            return Stored(one, str(error))
        boundary = uuid.uuid4().hex
        headers = {
            "Content-Type": f'multipart/related; type="{DICOM}"; boundary={boundary}',
            "Accept": "application/dicom+json",
        }
        try:
            with staged.path.open("rb") as file:
                body = _multipart(file, boundary)
                answer = self.session.post(f"{self.root}/studies", data=body, headers=headers, timeout=TIMEOUT)
        except (requests.RequestException, OSError) as error:
            raise _unreachable(self.node) from error
        finally:
            staged.path.unlink(missing_ok=True)
        if answer.status_code in {200, 202}:
            return Stored(one, _failure_in(answer), sent_bytes=staged.size)
        if answer.status_code in {409, 400, 415, 413}:
            reason = _failure_in(answer) or _("The node refuses the instance (HTTP %(code)s).")
            return Stored(one, reason % {"code": answer.status_code} if "%(code)s" in reason else reason)
        raise _told(answer)

    def retrieve(
        self, study_instance_uid: str, series_instance_uid: str, receive: Receiver, *, known: set[str]
    ) -> Generator[Progress, None, None]:
        client = DICOMwebClient(self.root, session=self.session, timeout=TIMEOUT)
        try:
            answers = client.search_for_instances(study_instance_uid, series_instance_uid or None, get_remaining=True)
        except requests.HTTPError as error:
            raise _told(error.response) from error
        except (requests.RequestException, OSError) as error:
            raise _unreachable(self.node) from error
        instances = [(_uid(a, "0020000E") or series_instance_uid, _uid(a, "00080018")) for a in answers]
        completed = failed = 0
        yield Progress(0, 0, len(instances))
        for series_uid, sop_uid in instances:
            if sop_uid in known or not self._fetch(study_instance_uid, series_uid, sop_uid, receive):
                completed += 1
            else:
                failed += 1
            yield Progress(completed, failed, len(instances))

    def _fetch(self, study_uid: str, series_uid: str, sop_uid: str, receive: Receiver) -> str:
        url = f"{self.root}/studies/{study_uid}/series/{series_uid}/instances/{sop_uid}"
        accept = f'multipart/related; type="{DICOM}"; transfer-syntax=*'
        try:
            answer = self.session.get(url, headers={"Accept": accept}, timeout=TIMEOUT)
        except (requests.RequestException, OSError) as error:
            raise _unreachable(self.node) from error
        if answer.status_code != 200:
            raise _told(answer)
        path: Path = stage([_only_part(answer)]).path
        return receive(path)


def _multipart(file: IO[bytes], boundary: str) -> Iterator[bytes]:
    # Without the transfer syntax, which the file says itself: Orthanc drops parts of any other media type, with 200.
    yield f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode()
    while chunk := file.read(CHUNK):
        yield chunk
    yield f"\r\n--{boundary}--\r\n".encode()


def _only_part(answer: Response) -> bytes:
    """Give the one part of a multipart answer, byte by byte as it came (RFC 2046 §5.1.1)."""
    content = answer.content
    if not answer.headers.get("Content-Type", "").lower().startswith("multipart/"):
        return content
    _head, _separator, rest = content.partition(b"\r\n\r\n")
    return rest[: rest.rfind(b"\r\n--")]


def _failure_in(answer: Response) -> str:
    """Give the failure that a STOW-RS answer tells of (PS3.18 §10.5.3), empty when the instance was stored."""
    try:
        dataset = Dataset.from_json(answer.json())
    except (ValueError, TypeError, AttributeError, KeyError):
        return ""
    for item in dataset.get("FailedSOPSequence", None) or []:
        return _("The node refuses the instance (failure reason %(reason)04Xh).") % {
            "reason": int(item.get("FailureReason") or 0)
        }
    if answer.status_code == 200 and "ReferencedSOPSequence" in dataset and not dataset.ReferencedSOPSequence:
        return _("The node answers, but doesn't say that it stored the instance.")
    return ""


def _uid(answer: dict[str, Any], tag: str) -> str:
    values = answer.get(tag, {}).get("Value") or [""]
    return str(values[0])


def _told(answer: Response | None) -> NodeUnavailable | NodeRefuses:
    code = answer.status_code if answer is not None else 0
    if code in {401, 403}:
        return NodeUnavailable(
            _("The node doesn't let us in (HTTP %(code)s). Check the token or password.") % {"code": code}
        )
    words = _("The node answers with HTTP %(code)s.") % {"code": code}
    return NodeUnavailable(words) if code in TEMPORARY else NodeRefuses(words)


def _unreachable(node: Node) -> NodeUnavailable:
    return NodeUnavailable(_("The node can't be reached at %(url)s.") % {"url": node.base_url})
