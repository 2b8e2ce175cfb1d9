"""Client certificates: the two ways RFC 8705 §2 has of knowing a client by one (OA-19).

That the certificate is good in itself, and that the client holds its key, TLS has settled before.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from cryptography import x509

from sandbox.oauth.compact import base64url, unpadded


def has_subject(certificate: bytes, subject: str) -> bool:
    """Say whether a DER certificate is of this subject, an RFC 4514 distinguished name (RFC 8705 §2.1.2)."""
    return x509.load_der_x509_certificate(certificate).subject == x509.Name.from_rfc4514_string(subject)


def is_name(text: str) -> bool:
    """Say whether a text is a distinguished name as RFC 4514 writes it; an empty one is."""
    try:
        x509.Name.from_rfc4514_string(text)
    except ValueError:
        return False
    return True


def is_published(certificate: bytes, key_set: Mapping[str, Any]) -> bool:
    """Say whether a JWK Set holds a DER certificate, in full (`x5c`) or by its SHA-256 (RFC 8705 §2.2)."""
    return any(isinstance(key, dict) and _is_of(key, certificate) for key in key_set.get("keys", ()))


def _is_of(key: Mapping[str, Any], certificate: bytes) -> bool:
    thumbprint = unpadded(hashlib.sha256(certificate).digest())
    chain = key.get("x5c") or [""]
    # x5c is padded base64 (RFC 7517 §4.7), and the first of a chain is the key's own.
    whole = base64url(str(chain[0]).rstrip("=").replace("+", "-").replace("/", "_"))
    return key.get("x5t#S256") == thumbprint or whole == certificate
