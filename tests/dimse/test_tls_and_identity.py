"""TLS on the DICOM port and users who sign in by DICOM, before dcmtk and pynetdicom."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pynetdicom import AE
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

from tests.dimse.test_query import keys
from tests.dimse.test_store import dcmtk, store
from tests.factories import PASSWORD, REFERRER, make_instance
from tests.services.atrium import Atrium, running_atrium
from tests.services.ports import free_port

NODE = """
from accounts.models import Site
from studies.dimse.models import Node
north = Site.objects.get(slug="north")
Node.objects.create(ae_title="SECURE", site=north, uses_tls=True)
Node.objects.create(ae_title="FEW", site=north, maximum_associations=1)
"""


def certificate(folder: Path, name: str, issuer: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
    """Make a key and a certificate, signed by the issuer or by itself; give both."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[1].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    )
    signed = builder.sign(issuer[0] if issuer else key, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return key, signed


@dataclass
class Secured:
    atrium: Atrium
    tls_port: int
    folder: Path
    issuer: Any


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("certificates")
    authority = certificate(folder, "authority")
    certificate(folder, "server", authority)
    certificate(folder, "modality", authority)
    certificate(folder, "stranger")
    issuer = ec.generate_private_key(ec.SECP256R1())
    (folder / "issuer.pem").write_bytes(
        issuer.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    port = free_port()
    environment = {
        "ATRIUM_DICOM_TLS_PORT": str(port),
        "ATRIUM_DICOM_TLS_CERTIFICATE": str(folder / "server.pem"),
        "ATRIUM_DICOM_TLS_KEY": str(folder / "server.key"),
        "ATRIUM_DICOM_TLS_CA": str(folder / "authority.pem"),
        "ATRIUM_DICOM_JWT_KEY": str(folder / "issuer.pem"),
        "ATRIUM_DICOM_PROCESSES": "2",
    }
    with running_atrium(tmp_path_factory.mktemp("secured") / "atrium", "dicom", **environment) as atrium:
        atrium.manage("shell", "--no-imports", "-c", NODE)
        for number, more in enumerate(({"ReferringPhysicianName": REFERRER}, {"ReferringPhysicianName": "Else^One"})):
            path = folder / f"{number}.dcm"
            path.write_bytes(make_instance(PatientID=f"T{number}", **more))
            assert store(atrium, path) == 0x0000
        yield Secured(atrium, port, folder, issuer)


def echo(secured: Secured, who: str, *, ae_title: str = "SECURE") -> int:
    folder = secured.folder
    command = [dcmtk("echoscu"), "+tls", str(folder / f"{who}.key"), str(folder / f"{who}.pem")]
    command += ["+cf", str(folder / "authority.pem"), "-aet", ae_title, "-aec", "ATRIUM", "localhost"]
    return subprocess.run([*command, str(secured.tls_port)], capture_output=True).returncode


def test_echoscu_by_tls_with_a_certificate_of_ours(secured: Secured) -> None:
    assert echo(secured, "modality") == 0
    assert echo(secured, "stranger") != 0


def test_a_node_of_tls_may_not_call_without_it(secured: Secured) -> None:
    command = [dcmtk("echoscu"), "-aet", "SECURE", "-aec", "ATRIUM", "localhost", str(secured.atrium.dicom_port)]
    assert subprocess.run(command, capture_output=True).returncode != 0


def client_context(secured: Secured) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(secured.folder / "authority.pem"))
    context.load_cert_chain(secured.folder / "modality.pem", secured.folder / "modality.key")
    return context


def test_weak_versions_and_ciphers_are_refused(secured: Secured) -> None:
    context = client_context(secured)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA:AES256-SHA:ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0")
    with socket.create_connection(("localhost", secured.tls_port), 5) as peer, pytest.raises(ssl.SSLError):
        context.wrap_socket(peer, server_hostname="localhost")


def test_an_image_goes_in_and_is_found_by_tls_while_another_hangs_in_its_handshake(
    secured: Secured, tmp_path: Path
) -> None:
    with socket.create_connection(("localhost", secured.tls_port), 5) as hanging:
        hanging.sendall(b"\x16\x03")
        path = tmp_path / "one.dcm"
        path.write_bytes(make_instance(PatientID="BYTLS"))
        folder = secured.folder
        command = [dcmtk("storescu"), "+tls", str(folder / "modality.key"), str(folder / "modality.pem")]
        command += ["+cf", str(folder / "authority.pem"), "-aet", "SECURE", "-aec", "ATRIUM", "localhost"]
        assert subprocess.run([*command, str(secured.tls_port), str(path)], capture_output=True).returncode == 0
    ae = AE("WS_NORTH")
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
    association = ae.associate(
        "localhost", secured.tls_port, ae_title="ATRIUM", tls_args=(client_context(secured), "localhost")
    )
    assert association.is_established
    answers = list(
        association.send_c_find(keys("STUDY", PatientID="BYTLS"), StudyRootQueryRetrieveInformationModelFind)
    )
    association.release()
    assert len(answers) == 2


def identity(kind: int, primary: str, secondary: str = "", *, wants_answer: bool = True) -> UserIdentityNegotiation:
    item = UserIdentityNegotiation()
    item.user_identity_type = kind
    item.primary_field = primary.encode()
    if secondary:
        item.secondary_field = secondary.encode()
    item.positive_response_requested = wants_answer
    return item


def seen_as(secured: Secured, item: UserIdentityNegotiation) -> set[str] | None:
    """Search for every study of the test as this user; None when the association is rejected."""
    ae = AE("WS_NORTH")
    ae.add_requested_context(Verification)
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
    association = ae.associate("127.0.0.1", secured.atrium.dicom_port, ae_title="ATRIUM", ext_neg=[item])
    if not association.is_established:
        assert association.is_rejected
        return None
    if item.positive_response_requested:
        assert association.acceptor.user_identity is not None
    answers = list(association.send_c_find(keys("STUDY", PatientID="T?"), StudyRootQueryRetrieveInformationModelFind))
    association.release()
    return {match.PatientID for _, match in answers if match is not None}


def test_a_user_sees_what_both_they_and_the_node_may_see(secured: Secured) -> None:
    assert seen_as(secured, identity(2, "radiologist", PASSWORD)) == {"T0", "T1"}
    assert seen_as(secured, identity(2, "referrer", PASSWORD)) == {"T0"}
    assert seen_as(secured, identity(2, "southradiologist", PASSWORD)) == set()
    assert seen_as(secured, identity(2, "radiologist", "wrong")) is None
    assert seen_as(secured, identity(2, "nobody", PASSWORD)) is None


SECOND_FACTOR = """
from allauth.mfa.models import Authenticator
from accounts.models import User
Authenticator.objects.create(user=User.objects.get(username="resident"), type="totp", data={"secret": "x"})
"""
REFUSALS = """
from portal.audit.models import AuditEvent
for e in AuditEvent.objects.filter(action="sign_in_failed", details__way="DICOM user identity").order_by("sequence"):
    print(e.outcome, e.details.get("login"), e.details["reason"], e.site_id is not None, sep="|")
"""


def test_a_password_is_not_enough_where_there_is_a_second_factor_but_a_token_is(secured: Secured) -> None:
    assert seen_as(secured, identity(2, "resident", PASSWORD)) == {"T0", "T1"}
    secured.atrium.manage("shell", "--no-imports", "-c", SECOND_FACTOR)
    assert seen_as(secured, identity(2, "resident", PASSWORD)) is None
    assert seen_as(secured, identity(5, secured.atrium.token("resident"))) == {"T0", "T1"}
    refused = secured.atrium.manage("shell", "--no-imports", "-c", REFUSALS).splitlines()
    assert refused[-1] == "refused|resident|the account has a second factor and needs a token|True"


def test_a_password_is_not_guessed_by_trying_and_each_refusal_is_in_the_trail(atrium: Atrium) -> None:
    plain = Secured(atrium, 0, atrium.data, None)  # of one process, in which all tries are counted
    for _ in range(6):
        assert seen_as(plain, identity(2, "technologist", "wrong")) is None
    assert seen_as(plain, identity(2, "technologist", PASSWORD)) is None
    assert seen_as(plain, identity(2, "resident", PASSWORD)) is not None, "others may sign in"
    refused = atrium.manage("shell", "--no-imports", "-c", REFUSALS).splitlines()
    assert refused[-1] == "refused|technologist|tried too often|True"
    assert "refused|technologist|wrong name or password|True" in refused


def test_tokens_of_ours_and_signed_ones_stand_for_their_user(secured: Secured) -> None:
    assert seen_as(secured, identity(5, secured.atrium.token("radiologist"))) == {"T0", "T1"}
    assert seen_as(secured, identity(5, "atrium_invented")) is None
    soon = datetime.now(UTC) + timedelta(minutes=5)
    claims = {"sub": "referrer", "aud": "ATRIUM", "exp": soon}
    assert seen_as(secured, identity(5, jwt.encode(claims, secured.issuer, "ES256"))) == {"T0"}
    for wrong in ({**claims, "aud": "OTHER"}, {**claims, "exp": soon - timedelta(hours=1)}, {"sub": "referrer"}):
        assert seen_as(secured, identity(5, jwt.encode(wrong, secured.issuer, "ES256"))) is None
    forged = ec.generate_private_key(ec.SECP256R1())
    assert seen_as(secured, identity(5, jwt.encode(claims, forged, "ES256"))) is None


def test_a_node_has_no_more_associations_than_it_may(secured: Secured) -> None:
    ae = AE("FEW")
    ae.add_requested_context(Verification)
    first = ae.associate("127.0.0.1", secured.atrium.dicom_port, ae_title="ATRIUM")
    assert first.is_established
    second = ae.associate("127.0.0.1", secured.atrium.dicom_port, ae_title="ATRIUM")
    assert second.is_rejected
    first.release()
