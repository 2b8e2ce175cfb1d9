"""The JWK of a client certificate: how an EHR knows a self-signed one (RFC 8705 §2.2, OA-19)."""

import base64
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate
from joserfc.jwk import ECKey, RSAKey


def certificate_jwk(pem: bytes) -> dict[str, Any]:
    """Return the public key with the certificate in `x5c` (RFC 7517 §4.7); `kid` is the key's thumbprint.

    Raises `ValueError` when it is not a certificate of an RSA or EC key.
    """
    certificate = load_pem_x509_certificate(pem)
    public = certificate.public_key()
    kind = ECKey if isinstance(public, EllipticCurvePublicKey) else RSAKey
    key = kind.import_key(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    key.ensure_kid()
    chain = [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()]
    return {**key.as_dict(private=False), "use": "sig", "x5c": chain}
