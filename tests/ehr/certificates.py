"""Client certificates that sign themselves, made for one test."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

SUBJECT = "CN=broker,O=Example Hospital,C=CH"


def self_signed(folder: Path, kind: str = "EC", subject: str = SUBJECT) -> dict[str, Path]:
    """Write a certificate and its key; returns what a registration says of them."""
    key = ec.generate_private_key(ec.SECP256R1()) if kind == "EC" else rsa.generate_private_key(65537, 2048)
    name, now = x509.Name.from_rfc4514_string(subject), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    valid = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
    files = {"certificate": folder / "client.pem", "certificate_key": folder / "client-key.pem"}
    files["certificate"].write_bytes(valid.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    files["certificate_key"].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files
