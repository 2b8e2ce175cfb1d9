"""Key-encryption keys at Azure Key Vault: one RSA key for each domain, and one key that signs what they wrap.

A vault's RSA keys wrap for whoever has their public half, and bind nothing. So that nobody who can write to Redis makes
a key of his own pass for ours, what is wrapped is signed together with what it is bound to, and the signature is
checked before anything is unwrapped.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final

from broker.clock import Clock
from broker.errors import KeyRefused, SealBroken
from broker.kms.azure_server import AzureRefused, AzureServer
from broker.kms.names import bound, hashed, require_kind
from broker.vault.kek import Destroyed, Domain, WrappedKey

_LONGEST_NAME: Final = 120
_VERSION: Final = re.compile(r"[0-9a-f]{32}")
_VERSION_CHARACTERS: Final = 32
_SIGNATURE_BYTES: Final = 64
_MOST_NAMES: Final = 20
"""How often a domain can be destroyed and come back while Azure still keeps the deleted keys' names."""


@dataclass(frozen=True, slots=True)
class AzureKeys:
    """Wraps with Key Vault. A blob is: version of the signing key (32), signature (64), wrapped key."""

    server: AzureServer
    prefix: str
    clock: Clock
    may_create: bool = True

    async def wrap(self, domain: Domain, key: bytes, bound_to: bytes) -> WrappedKey:
        """Wrap under the newest version, making the domain's key first if there is none and that is allowed."""
        kek = await self.current(domain)
        _, name, version = kek.split(":")
        wrapped = await self.server.wrap(name, version, key)
        signer = await self._signer()
        signed = _digest(kek, bound(domain, bound_to), wrapped)
        signature = await self.server.sign(*signer, signed)
        return WrappedKey(kek, signer[1].encode() + signature + wrapped)

    async def unwrap(self, domain: Domain, wrapped: WrappedKey, bound_to: bytes) -> bytes:
        """Check the signature, and unwrap. Raises `SealBroken`, `KeyUnavailable`, `KeyRefused`."""
        require_kind("azurekv", wrapped)
        name, version = self._named(domain, wrapped.kek)
        signer = wrapped.blob[:_VERSION_CHARACTERS].decode("ascii", "replace")
        signature, encrypted = (rest := wrapped.blob[_VERSION_CHARACTERS:])[:_SIGNATURE_BYTES], rest[_SIGNATURE_BYTES:]
        if not _VERSION.fullmatch(signer) or not encrypted:
            raise SealBroken(f"a key of {domain} is not what Key Vault wraps")
        signed = _digest(wrapped.kek, bound(domain, bound_to), encrypted)
        if not await self.server.verify(self._signer_name, signer, signed, signature):
            raise SealBroken(f"a key of {domain} does not unwrap in its place")
        return await self.server.unwrap(name, version, encrypted)

    async def current(self, domain: Domain) -> str:
        """Return `azurekv:KEY:VERSION`, making the domain's key first if there is none and that is allowed."""
        for name in self._names(domain):
            key = await self._found("get_key", name) or await self._created(name)
            if key is not None:
                return _kek(key)
        raise KeyRefused(f"Key Vault keeps {_MOST_NAMES} deleted keys of {domain}. Fix: purge them")

    async def rotate(self, domain: Domain) -> str:
        """Make a new version."""
        name = (await self.current(domain)).split(":")[1]
        return _kek(await self._new_version(name))

    async def destroy(self, domain: Domain) -> tuple[Destroyed, ...]:
        """Delete the domain's keys: unusable at once, and recoverable until the vault purges them."""
        gone: list[Destroyed] = []
        for name in self._names(domain):
            if await self._found("get_key", name):
                deleted = await self.server.delete(name)
            elif (deleted := await self._found("get_deleted_key", name)) is None:
                break
            purged = deleted.scheduled_purge_date
            gone.append(Destroyed(f"azurekv:{name}", purged.timestamp() if purged else self.clock()))
        return tuple(gone) or (Destroyed(f"azurekv:{next(iter(self._names(domain)))}", self.clock()),)

    async def check(self) -> None:
        """Raises `KeyUnavailable` unless the vault answers us. A key that is not there is an answer."""
        await self._found("get_key", self._signer_name)

    async def close(self) -> None:
        """Close connections."""
        await self.server.close()

    @property
    def _signer_name(self) -> str:
        return f"{self.prefix}-signs-wrapped-keys"

    def _names(self, domain: Domain) -> list[str]:
        """Return what the domain's key may be called: a deleted key keeps its name for months."""
        first = hashed(self.prefix, domain, _LONGEST_NAME)
        return [first, *(f"{first}-{number}" for number in range(2, _MOST_NAMES + 1))]

    def _named(self, domain: Domain, kek: str) -> tuple[str, str]:
        _, _, named = kek.partition(":")
        name, _, version = named.partition(":")
        if name not in self._names(domain) or not _VERSION.fullmatch(version):
            raise SealBroken(f"a key of {domain} was wrapped by a key of somebody else's")
        return name, version

    async def _signer(self) -> tuple[str, str]:
        key = await self._found("get_key", self._signer_name)
        if key is None:
            self._require_allowed(self._signer_name)
            operations = ["sign", "verify"]
            key = await self.server.ask("create_ec_key", self._signer_name, curve="P-256", key_operations=operations)
        return self._signer_name, str(key.properties.version)

    async def _created(self, name: str) -> Any:
        """Make a key; None where a deleted one has the name."""
        self._require_allowed(name)
        try:
            return await self._new_version(name)
        except AzureRefused as refused:
            if refused.answered == 409:
                return None
            raise

    async def _new_version(self, name: str) -> Any:
        operations = ["wrapKey", "unwrapKey"]
        return await self.server.ask("create_rsa_key", name, size=3072, key_operations=operations)

    def _require_allowed(self, name: str) -> None:
        if not self.may_create:
            raise KeyRefused(f"Key Vault has no key {name}, and create=no. Fix: make one, or drop create=no")

    async def _found(self, operation: str, name: str) -> Any:
        try:
            return await self.server.ask(operation, name)
        except AzureRefused as refused:
            if refused.answered == 404:
                return None
            raise


def _kek(key: Any) -> str:
    return f"azurekv:{key.name}:{key.properties.version}"


def _digest(kek: str, bound_to: bytes, encrypted: bytes) -> bytes:
    """Hash what is signed, each field preceded by its length."""
    fields = (b"smart-token-broker wrapped key", kek.encode(), bound_to, encrypted)
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in fields)).digest()
