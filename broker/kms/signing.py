"""Signing keys that never leave a key-management service."""

from typing import Literal, NoReturn, Protocol

from broker.errors import KeyUnavailable

Algorithm = Literal["ES384", "RS384"]
COORDINATE_BYTES = 48
"""Of P-384; a signature of ES384 is two of them (RFC 7518 §3.4)."""


class RemoteSigning(Protocol):
    """Makes keys, and signs with them where they are.

    All of it raises `KeyUnavailable` when there is no answer now, and `KeyRefused` when the answer is no.
    """

    async def create(self, name: str, algorithm: Algorithm) -> str:
        """Make a key and return a reference to it; each call makes another one, whatever its name."""
        ...

    async def public_key(self, reference: str) -> bytes:
        """Return the public half in PEM."""
        ...

    async def sign(self, reference: str, message: bytes) -> bytes:
        """Return a JOSE signature: r and s in 96 bytes (RFC 7518 §3.4), or PKCS#1 v1.5 (§3.3)."""
        ...

    async def destroy(self, reference: str) -> None:
        """Destroy the key; one that is gone already is no error."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


class NoSigning:
    """Where no service is configured that signs: every call raises `KeyUnavailable`."""

    async def create(self, name: str, algorithm: Algorithm) -> NoReturn:
        """Make no key."""
        _refuse(f"{algorithm} key {name}")

    async def public_key(self, reference: str) -> NoReturn:
        """Know no key."""
        _refuse(reference)

    async def sign(self, reference: str, message: bytes) -> NoReturn:  # noqa: ARG002  # as the protocol has it
        """Sign nothing."""
        _refuse(reference)

    async def destroy(self, reference: str) -> NoReturn:
        """Destroy nothing."""
        _refuse(reference)

    async def close(self) -> None:
        """Do nothing: there are no connections."""


def _refuse(what: str) -> NoReturn:
    raise KeyUnavailable(f"no key-management service is configured that signs: {what}. Fix: BROKER_KMS")
