"""Certificates that apps show, and how proxies write them down."""

import base64
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

ODD = x509.ObjectIdentifier("2.5.29.99")
_ODD_DER, _ALTERNATIVE_NAME_DER = bytes.fromhex("0603551d63"), bytes.fromhex("0603551d11")
_VERSION_3, _VERSION_8 = bytes.fromhex("a003020102"), bytes.fromhex("a003020107")


def certificate(
    subject: str = "CN=etl,O=Acme\\, Inc.,C=US",
    *,
    days: int = 30,
    names: list[x509.GeneralName] | None = None,
    odd_extension: bytes | None = None,
) -> x509.Certificate:
    """Make a self-signed certificate that began an hour ago; `odd_extension` is its extension `ODD`, in DER."""
    key, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string(subject), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=days))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if odd_extension is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(ODD, odd_extension), critical=False)
    return builder.sign(key, hashes.SHA256())


def der(shown: x509.Certificate) -> bytes:
    return shown.public_bytes(Encoding.DER)


def rfc9440(shown: x509.Certificate) -> str:
    return f":{base64.b64encode(der(shown)).decode()}:"


def of_version_8(shown: x509.Certificate) -> str:
    """Give it a version that there is not; its signature is then wrong, which is the proxy's to see."""
    return f":{base64.b64encode(der(shown).replace(_VERSION_3, _VERSION_8, 1)).decode()}:"


def with_odd_names(shown: x509.Certificate) -> x509.Certificate:
    """Turn its odd extension into alternative names."""
    return x509.load_der_x509_certificate(der(shown).replace(_ODD_DER, _ALTERNATIVE_NAME_DER))


def nginx(shown: x509.Certificate) -> str:
    """As `$ssl_client_escaped_cert` has it."""
    return quote(shown.public_bytes(Encoding.PEM).decode())
