"""TLS of the DICOM network: the profiles of PS3.15 §B.9 and B.10 (BCP 195)."""

from __future__ import annotations

import ssl

from django.conf import settings

from studies.dimse.models import Node

# BCP 195 RFC 9325 §4.2: forward secrecy and authenticated encryption only; TLS 1.3 brings its own.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"


def _strong(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def server_context() -> ssl.SSLContext | None:
    """Give the context of the secure port; None where no certificate is configured.

    With ``ATRIUM_DICOM_TLS_CA``, peers must show a certificate of it (mutual authentication). Raises OSError,
    ssl.SSLError for files that can't be used.
    """
    atrium = settings.ATRIUM
    if not atrium.dicom_tls_certificate:
        return None
    context = _strong(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.load_cert_chain(atrium.dicom_tls_certificate, atrium.dicom_tls_key or None)
    if atrium.dicom_tls_ca:
        context.load_verify_locations(atrium.dicom_tls_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(node: Node) -> tuple[ssl.SSLContext, str] | None:
    """Give the context and host name to call the node with; None where it's called without TLS.

    The node's certificate must be of ``ATRIUM_DICOM_TLS_CA``, or, without one, of an authority that the system trusts.
    """
    if not node.uses_tls:
        return None
    atrium = settings.ATRIUM
    context = _strong(ssl.create_default_context(cafile=atrium.dicom_tls_ca or None))
    if atrium.dicom_tls_certificate:
        context.load_cert_chain(atrium.dicom_tls_certificate, atrium.dicom_tls_key or None)
    return context, node.host
