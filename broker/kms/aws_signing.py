"""Signing keys at AWS KMS."""

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from broker.errors import KeyUnavailable
from broker.kms.aws_server import AwsRefused, AwsServer
from broker.kms.signing import COORDINATE_BYTES, Algorithm

_SPECS: Final[dict[str, str]] = {"ES384": "ECC_NIST_P384", "RS384": "RSA_3072"}
_ALGORITHMS: Final[dict[str, str]] = {"ES384": "ECDSA_SHA_384", "RS384": "RSASSA_PKCS1_V1_5_SHA_384"}
_DELETION_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class AwsSigning:
    """Signs with AWS KMS. A reference is `awskms:KEY-ID:ALGORITHM`."""

    server: AwsServer
    prefix: str

    async def create(self, name: str, algorithm: Algorithm) -> str:
        """Make a key; its description tells what it is for."""
        made = await self.server.ask(
            "create_key",
            Description=f"smart-token-broker signing key: {name}",
            KeySpec=_SPECS[algorithm],
            KeyUsage="SIGN_VERIFY",
            Tags=[{"TagKey": "smart-token-broker", "TagValue": f"{self.prefix}-sign"}],
        )
        return f"awskms:{made['KeyMetadata']['KeyId']}:{algorithm}"

    async def public_key(self, reference: str) -> bytes:
        """Return the public half in PEM."""
        key_id, _ = _parts(reference)
        answered = await self.server.ask("get_public_key", KeyId=key_id)
        key = load_der_public_key(bytes(answered["PublicKey"]))
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    async def sign(self, reference: str, message: bytes) -> bytes:
        """Sign the SHA-384 of the message."""
        key_id, algorithm = _parts(reference)
        answered = await self.server.ask(
            "sign",
            KeyId=key_id,
            Message=hashlib.sha384(message).digest(),
            MessageType="DIGEST",
            SigningAlgorithm=_ALGORITHMS[algorithm],
        )
        signature = bytes(answered["Signature"])
        if algorithm == "RS384":
            return signature
        return b"".join(part.to_bytes(COORDINATE_BYTES, "big") for part in decode_dss_signature(signature))

    async def destroy(self, reference: str) -> None:
        """Disable the key at once, and have it deleted in 7 days, AWS's least."""
        key_id, _ = _parts(reference)
        try:
            await self.server.ask("disable_key", KeyId=key_id)
            await self.server.ask("schedule_key_deletion", KeyId=key_id, PendingWindowInDays=_DELETION_DAYS)
        except AwsRefused as refused:
            if refused.error not in {"KMSInvalidStateException", "NotFoundException"}:
                raise

    async def close(self) -> None:
        """Do nothing: boto3 keeps its connections for itself."""


def _parts(reference: str) -> tuple[str, str]:
    kind, _, rest = reference.partition(":")
    key_id, _, algorithm = rest.rpartition(":")
    if kind != "awskms" or algorithm not in _ALGORITHMS:
        raise KeyUnavailable(f"signing key {reference} is not at AWS KMS")
    return key_id, algorithm
