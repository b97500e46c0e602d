"""With what a site signs its PDFs: a certificate of its own authority, made on first use, or one that was uploaded."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from io import BytesIO

from asn1crypto import pem
from asn1crypto.keys import PrivateKeyInfo
from asn1crypto.x509 import Certificate as Asn1Certificate
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from django.conf import settings
from django.db import transaction
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.sign import signers
from pyhanko.sign.fields import SigSeedSubFilter
from pyhanko.sign.timestamps import HTTPTimeStamper
from pyhanko_certvalidator.registry import SimpleCertificateStore

from accounts.capabilities import Capability
from accounts.models import Site
from accounts.principals import Principal
from portal.audit.models import AuditEvent
from portal.audit.services import record
from studies.reports.errors import NotAllowed, ReportError
from studies.reports.models import SiteCertificate

ROOT_LASTS, LEAF_LASTS = timedelta(days=3650), timedelta(days=1095)
# Signing ends before the certificate does, so that no print carries a signature that is about to lapse.
RENEW_BEFORE = timedelta(days=30)
SIGNATURE_FIELD = "Signature"


class UnusableCertificate(ReportError):
    """The uploaded file holds no key and certificate that can sign, or its password is another."""

    text = "This file can't be used: it must be PKCS#12 with a valid certificate and its key, and the password right."


def sign_pdf(pdf: bytes, site: Site, *, reason: str) -> bytes:
    """Give the PDF with a PAdES baseline signature of the site (ETSI EN 319 142-1).

    B-B, or B-T where ``ATRIUM_TSA_URL`` names a timestamp authority (RFC 3161).
    """
    kept = usable_certificate(site)
    signer = _signer(kept)
    metadata = signers.PdfSignatureMetadata(
        field_name=SIGNATURE_FIELD,
        md_algorithm="sha256",
        subfilter=SigSeedSubFilter.PADES,
        name=kept.subject,
        reason=reason,
        location=site.name,
    )
    timestamper = HTTPTimeStamper(settings.ATRIUM.tsa_url) if settings.ATRIUM.tsa_url else None
    output = BytesIO()
    signers.sign_pdf(IncrementalPdfFileWriter(BytesIO(pdf)), metadata, signer, timestamper=timestamper, output=output)
    return output.getvalue()


def usable_certificate(site: Site) -> SiteCertificate:
    """Give the certificate with which the site signs now, a new one where its key can't be opened any more.

    The secret key locks it: who changes that signs with another certificate.
    """
    kept = certificate_of(site)
    try:
        _signer(kept)
    except ValueError:
        return _make(site)
    return kept


def certificate_of(site: Site) -> SiteCertificate:
    """Give the certificate with which the site signs now; a new one is made where there's none or it's about to end."""
    newest = SiteCertificate.objects.filter(site=site).order_by("-pk").first()
    if newest is not None and newest.not_after > datetime.now(UTC) + RENEW_BEFORE:
        return newest
    with transaction.atomic():
        Site.objects.select_for_update().get(pk=site.pk)
        again = SiteCertificate.objects.filter(site=site).order_by("-pk").first()
        return again if again is not None and (newest is None or again.pk != newest.pk) else _make(site)


def upload(*, site: Site, principal: Principal, content: bytes, password: str) -> SiteCertificate:
    """Sign with the key and certificate of a PKCS#12 file from now on. Raises NotAllowed, UnusableCertificate."""
    if not principal.may(Capability.ACCOUNT_MANAGE, site.pk):
        raise NotAllowed
    try:
        key, certificate, chain = pkcs12.load_key_and_certificates(content, password.encode() or None)
    except ValueError as error:
        raise UnusableCertificate from error
    if key is None or certificate is None or certificate.not_valid_after_utc <= datetime.now(UTC) + RENEW_BEFORE:
        raise UnusableCertificate
    with transaction.atomic():
        kept = _keep(site, SiteCertificate.Origin.UPLOADED, key, certificate, chain)  # type: ignore[arg-type]
        details = {"certificate": kept.subject, "sha256": kept.sha256, "step": "uploaded"}
        record(AuditEvent.Action.CHANGE, principal=principal, site_id=site.pk, details=details)
    return kept


def _make(site: Site) -> SiteCertificate:
    now = datetime.now(UTC)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = _name(site, f"{site.name} report authority"[:64])
    root = (
        _builder(root_name, root_name, root_key.public_key(), now, ROOT_LASTS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certificates=True), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        _builder(_name(site, f"{site.name} reports"[:64]), root_name, key.public_key(), now, LEAF_LASTS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
            critical=False,
        )
        .sign(root_key, hashes.SHA256())
    )
    # The authority's key is gone after this: nobody can make another certificate in the site's name.
    return _keep(site, SiteCertificate.Origin.MADE, key, leaf, [root])


def _keep(
    site: Site,
    origin: SiteCertificate.Origin,
    key: CertificateIssuerPrivateKeyTypes,
    certificate: x509.Certificate,
    chain: list[x509.Certificate],
) -> SiteCertificate:
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(_passphrase()),
    )
    return SiteCertificate.objects.create(
        site=site,
        origin=origin,
        subject=certificate.subject.rfc4514_string()[:300],
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        certificate=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        chain="".join(c.public_bytes(serialization.Encoding.PEM).decode() for c in chain),
        encrypted_key=encrypted.decode(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def _signer(kept: SiteCertificate) -> signers.SimpleSigner:
    key = serialization.load_pem_private_key(kept.encrypted_key.encode(), _passphrase())
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certificates = asn1_certificates(kept)
    return signers.SimpleSigner(
        signing_cert=certificates[0],
        signing_key=PrivateKeyInfo.load(der),
        cert_registry=SimpleCertificateStore.from_certs(certificates[1:]),
    )


def asn1_certificates(kept: SiteCertificate) -> list[Asn1Certificate]:
    """Give the certificate and its issuers, in the form that pyHanko reads."""
    blocks = pem.unarmor((kept.certificate + kept.chain).encode(), multiple=True)
    return [Asn1Certificate.load(der) for _, _, der in blocks]


def _passphrase() -> bytes:
    digest = hmac.new(settings.SECRET_KEY.encode(), b"atrium site certificate", hashlib.sha256).digest()
    return base64.b64encode(digest)


def _name(site: Site, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, site.name[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lasts: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + lasts)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=not certificates,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )
