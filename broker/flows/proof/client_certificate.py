"""Mutual TLS (RFC 8705 §2, OA-19): the certificate that an app showed, as a declared proxy passes it on.

The proxy has checked that the app holds the key, and for `tls_client_auth` that a trusted CA signed the certificate.
Handles are bound to the certificate where the app's policy says so: `broker/flows/binding.py`.
"""

from datetime import UTC, datetime

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import (
    Certificate,
    DNSName,
    DuplicateExtension,
    ExtensionNotFound,
    Name,
    SubjectAlternativeName,
    UniformResourceIdentifier,
    UnsupportedGeneralNameType,
)

from broker.apps import App
from broker.errors import InvalidClient
from broker.settings.proof import thumbprint


def check_certificate(app: App, certificate: Certificate | None, *, now: float) -> None:
    """Raises `InvalidClient` unless the certificate is the app's and in its time; `now` is in seconds."""
    if certificate is None:
        raise InvalidClient("no client certificate, or no declared proxy that passes one on (OA-19)")
    moment = datetime.fromtimestamp(now, UTC)
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        raise InvalidClient("the client certificate has expired, or is not yet valid (OA-19)")
    if app.settings.authentication == "self_signed_tls_client_auth":
        if thumbprint(certificate.public_bytes(Encoding.DER)) not in app.settings.known_certificates:
            raise InvalidClient("the client certificate is not one of the app's (OA-19)")
    elif not _names(app, certificate):
        raise InvalidClient("the client certificate names somebody else (OA-19)")


def _names(app: App, certificate: Certificate) -> bool:
    """Whether the certificate has the one name that the app registered (RFC 8705 §2.1.2), compared exactly."""
    settings = app.settings
    if settings.tls_client_auth_subject_dn is not None:
        return certificate.subject == Name.from_rfc4514_string(settings.tls_client_auth_subject_dn)
    try:
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    except (ExtensionNotFound, DuplicateExtension, UnsupportedGeneralNameType, ValueError):
        return False
    if settings.tls_client_auth_san_dns is not None:
        return settings.tls_client_auth_san_dns in names.get_values_for_type(DNSName)
    return settings.tls_client_auth_san_uri in names.get_values_for_type(UniformResourceIdentifier)
