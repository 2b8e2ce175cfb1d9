"""Certificates that apps show, and how proxies write them down."""

import base64
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding


def certificate(
    subject: str = "CN=etl,O=Acme\\, Inc.,C=US", *, days: int = 30, names: list[x509.GeneralName] | None = None
) -> x509.Certificate:
    """Make a self-signed certificate that began an hour ago."""
    key, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string(subject), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=days))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256())


def der(shown: x509.Certificate) -> bytes:
    return shown.public_bytes(Encoding.DER)


def rfc9440(shown: x509.Certificate) -> str:
    return f":{base64.b64encode(der(shown)).decode()}:"


def nginx(shown: x509.Certificate) -> str:
    """As `$ssl_client_escaped_cert` has it."""
    return quote(shown.public_bytes(Encoding.PEM).decode())
