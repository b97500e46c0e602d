"""HTTP/2 beside HTTP/1.1: the same answers over each, with TLS and without, many at once on one connection."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.factories import make_instance
from tests.services.atrium import Atrium, running_atrium

STUDY = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"}
SERIES = "/dicom-web/studies/1.2.3/series/1.2.3.4"
SLICES = 40
LARGE = 40 << 20
FRAMES = "multipart/related; type=application/octet-stream; transfer-syntax=*"
# Shortcuts, views, streams, nothing, refusals.
ASKED = [
    (f"{SERIES}/instances/1.2.3.4.1/frames/1", FRAMES, 200),
    (f"{SERIES}/metadata", "application/dicom+json", 200),
    ("/dicom-web/studies?PatientID=*", "application/dicom+json", 200),
    ("/dicom-web/studies?PatientID=nobody", "application/dicom+json", 204),
    (f"{SERIES}/instances/1.2.3.4.1", "application/dicom", 200),
    ("/dicom-web/studies/1.2.3", 'multipart/related; type="application/dicom"', 200),
    (f"{SERIES}/instances/1.2.3.4.1/rendered", "image/png", 200),
    ("/dicom-web/studies/1.9/metadata", "application/dicom+json", 404),
    ("/dicom-web/studies?limit=x", "application/dicom+json", 400),
]
OF_ONE_ANSWER = {"date", "x-request-id", "connection", "keep-alive", "transfer-encoding", "content-length", "server"}


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 and its key as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*encoding))
    return folder / "certificate.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atrium]:
    folder = tmp_path_factory.mktemp("http")
    with running_atrium(folder, "web") as atrium:
        for number in range(1, SLICES + 1):
            (folder / f"{number}.dcm").write_bytes(
                make_instance(**STUDY, SOPInstanceUID=f"1.2.3.4.{number}", InstanceNumber=number)
            )
        atrium.manage("import", *(str(folder / f"{n}.dcm") for n in range(1, SLICES + 1)), "--site", "north")
        yield atrium


@pytest.fixture(scope="module")
def headers(server: Atrium) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.token('radiologist')}"}


@pytest.fixture
def http1(server: Atrium, headers: dict[str, str]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def http2(server: Atrium, headers: dict[str, str]) -> Iterator[httpx.Client]:
    """Give a client that speaks HTTP/2 from its first byte, without TLS (RFC 9113 §3.3)."""
    with httpx.Client(base_url=server.url, headers=headers, timeout=60, http1=False, http2=True) as client:
        yield client


@pytest.mark.parametrize(("path", "accept", "status"), ASKED)
def test_both_versions_give_the_same(
    path: str, accept: str, status: int, http1: httpx.Client, http2: httpx.Client
) -> None:
    # Over each twice, by the view and by what it remembers.
    answers = [client.get(path, headers={"Accept": accept}) for client in (http1, http2, http1, http2)]
    assert [answer.http_version for answer in answers] == ["HTTP/1.1", "HTTP/2"] * 2
    assert {answer.status_code for answer in answers} == {status}
    assert len({answer.content for answer in answers}) == 1
    sent = [{n: v for n, v in answer.headers.items() if n not in OF_ONE_ANSWER} for answer in answers]
    assert sent[0] == sent[1] == sent[2] == sent[3]
    for answer in answers:
        if "content-length" in answer.headers and "content-encoding" not in answer.headers and status != 204:
            assert int(answer.headers["content-length"]) == len(answer.content)
        # RFC 9113 §8.2.2: what belongs to a connection has no place in HTTP/2.
        if answer.http_version == "HTTP/2":
            assert not {"connection", "transfer-encoding", "keep-alive"} & set(answer.headers)


async def _all_frames(server: Atrium, headers: dict[str, str]) -> tuple[list[httpx.Response], int]:
    # httpx's client for threads numbers streams out of order, which breaks the connection.
    async with httpx.AsyncClient(
        base_url=server.url, headers=headers | {"Accept": FRAMES}, timeout=60, http1=False, http2=True
    ) as client:
        addresses = [f"{SERIES}/instances/1.2.3.4.{number}/frames/1" for number in range(1, SLICES + 1)]
        answers = await asyncio.gather(*(client.get(address) for address in addresses))
        return answers, len(client._transport._pool.connections)  # type: ignore[attr-defined]


def test_frames_come_side_by_side_over_one_connection(server: Atrium, headers: dict[str, str]) -> None:
    answers, connections = asyncio.run(_all_frames(server, headers))
    assert {(answer.status_code, answer.http_version) for answer in answers} == {(200, "HTTP/2")}
    assert {len(answer.content) > 8192 for answer in answers} == {True}
    assert connections == 1


def test_storing_over_http2_stores(server: Atrium, http2: httpx.Client) -> None:
    technologist = {"Authorization": f"Bearer {server.token('technologist')}", "Content-Type": "application/dicom"}
    content = make_instance(StudyInstanceUID="1.7", SeriesInstanceUID="1.7.1", SOPInstanceUID="1.7.1.1")
    answer = http2.post("/dicom-web/studies", content=content, headers=technologist)
    assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
    back = http2.get("/dicom-web/studies/1.7/series/1.7.1/instances/1.7.1.1", headers={"Accept": "application/dicom"})
    assert back.content == content


def test_a_large_answer_is_streamed_over_http2(server: Atrium, headers: dict[str, str], http2: httpx.Client) -> None:
    technologist = {"Authorization": f"Bearer {server.token('technologist')}", "Content-Type": "application/dicom"}

    def body() -> Iterator[bytes]:
        yield make_instance(StudyInstanceUID="1.8", SeriesInstanceUID="1.8.1", SOPInstanceUID="1.8.1.1")
        # A trailing padding element (FFFC,FFFC) as large as wanted (PS3.10 §7.2).
        yield b"\xfc\xff\xfc\xffOB\0\0" + LARGE.to_bytes(4, "little")
        for _ in range(LARGE >> 20):
            yield bytes(1 << 20)

    stored = http2.post("/dicom-web/studies", content=body(), headers=technologist)
    assert (stored.status_code, stored.http_version) == (200, "HTTP/2"), stored.text
    with http2.stream("GET", "/dicom-web/studies/1.8", headers={"Accept": "application/zip"}) as answer:
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
        assert sum(len(piece) for piece in answer.iter_bytes(1 << 20)) > LARGE


def test_over_tls_the_version_is_negotiated(tmp_path: Path) -> None:
    chain, key = certificate(tmp_path)
    tls = {"ATRIUM_TLS_CERTIFICATE": str(chain), "ATRIUM_TLS_KEY": str(key)}
    with running_atrium(tmp_path / "atrium", **tls) as atrium:
        atrium.scheme = "https"
        atrium.start("web")
        trusting = ssl.create_default_context(cafile=str(chain))
        for options, version in (({"http2": True}, "HTTP/2"), ({"http2": False}, "HTTP/1.1")):
            with httpx.Client(verify=trusting, base_url=f"https://127.0.0.1:{atrium.http_port}", **options) as client:
                answer = client.get("/healthz")
                assert (answer.status_code, answer.http_version) == (200, version)
                refused = client.get("/dicom-web/studies")
                assert (refused.status_code, refused.http_version) == (401, version)
