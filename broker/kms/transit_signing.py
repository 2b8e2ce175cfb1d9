"""Signing keys in Transit."""

import base64
import binascii
from dataclasses import dataclass
from typing import Final

from broker.clock import Entropy
from broker.errors import KeyUnavailable
from broker.kms.names import dotted
from broker.kms.signing import Algorithm
from broker.kms.transit_server import TransitServer

_TYPES: Final[dict[str, str]] = {"ES384": "ecdsa-p384", "RS384": "rsa-3072"}


@dataclass(frozen=True, slots=True)
class TransitSigning:
    """Signs with Transit. A reference is `transit:KEY`; each key has one version."""

    server: TransitServer
    prefix: str
    entropy: Entropy

    async def create(self, name: str, algorithm: Algorithm) -> str:
        """Make a key `{prefix}-sign.{name}.` and 8 random digits."""
        key = dotted(f"{self.prefix}-sign", name, self.entropy(4).hex())
        await self.server.ask("POST", f"keys/{key}", {"type": _TYPES[algorithm]})
        return f"transit:{key}"

    async def public_key(self, reference: str) -> bytes:
        """Return the public half in PEM."""
        facts = await self.server.ask("GET", f"keys/{_key(reference)}")
        try:
            return str(facts["keys"]["1"]["public_key"]).encode()
        except (KeyError, TypeError):
            raise KeyUnavailable(f"Transit answered without the public key of {reference}") from None

    async def sign(self, reference: str, message: bytes) -> bytes:
        """Sign by SHA-384; Transit tells by the key's type which algorithm."""
        sent = {
            "input": base64.b64encode(message).decode(),
            "marshaling_algorithm": "jws",
            "signature_algorithm": "pkcs1v15",
        }
        answered = await self.server.ask("POST", f"sign/{_key(reference)}/sha2-384", sent)
        try:
            text = answered["signature"].split(":", 2)[2]
            return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (KeyError, AttributeError, IndexError, binascii.Error):
            raise KeyUnavailable("Transit answered without a signature") from None

    async def destroy(self, reference: str) -> None:
        """Delete the key, at once."""
        await self.server.delete_key(_key(reference))

    async def close(self) -> None:
        """Close connections."""
        await self.server.close()


def _key(reference: str) -> str:
    kind, _, key = reference.partition(":")
    if kind != "transit":
        raise KeyUnavailable(f"signing key {reference} is not in Transit")
    return key
