"""Key-encryption keys in the Transit engine of OpenBao or Vault: one AES-256-GCM key for each domain."""

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final

from broker.clock import Clock
from broker.errors import KeyRefused, KeyUnavailable, SealBroken
from broker.kms.names import bound, dotted, require_kind
from broker.kms.transit_server import KeyMissing, TransitRejected, TransitServer
from broker.vault.kek import Destroyed, Domain, WrappedKey

_TYPE: Final = "aes256-gcm96"
_NOT_ITS_KEY: Final = ("encryption key not found", "too old", "too new")
"""How Transit says that the key, or that version of it, is not there any more."""


@dataclass(frozen=True, slots=True)
class TransitKeys:
    """Wraps with Transit. The key's name follows from the domain, never from what is kept in Redis."""

    server: TransitServer
    prefix: str
    clock: Clock

    async def wrap(self, domain: Domain, key: bytes, bound_to: bytes) -> WrappedKey:
        """Wrap under the newest version, making the domain's key first if it has none."""
        name = self._name(domain)
        await self._require(name)
        sent = {"plaintext": _base64(key), "associated_data": _base64(bound(domain, bound_to))}
        answered = await self.server.ask("POST", f"encrypt/{name}", sent)
        ciphertext = _text(answered, "ciphertext")
        return WrappedKey(f"transit:{name}:{_version(ciphertext)}", ciphertext.encode())

    async def unwrap(self, domain: Domain, wrapped: WrappedKey, bound_to: bytes) -> bytes:
        """Unwrap with the domain's key. Raises `SealBroken`, `KeyUnavailable`, `KeyRefused`."""
        name = self._name(domain)
        require_kind("transit", wrapped)
        ciphertext = wrapped.blob.decode("ascii", "replace")
        if _version(ciphertext) != wrapped.kek.rpartition(":")[2]:
            raise SealBroken(f"a key of {domain} names another KEK than wrapped it")
        sent = {"ciphertext": ciphertext, "associated_data": _base64(bound(domain, bound_to))}
        try:
            answered = await self.server.ask("POST", f"decrypt/{name}", sent)
        except TransitRejected as rejected:
            if any(reason in rejected.reason for reason in _NOT_ITS_KEY):
                raise KeyRefused(f"{wrapped.kek} was destroyed or withdrawn ({rejected.reason})") from None
            raise SealBroken(f"a key of {domain} does not unwrap in its place") from None
        try:
            return base64.b64decode(_text(answered, "plaintext"), validate=True)
        except binascii.Error:
            raise KeyUnavailable("Transit answered what is not base64") from None

    async def current(self, domain: Domain) -> str:
        """Return the newest version's name, making the domain's key first if it has none."""
        name = self._name(domain)
        return f"transit:{name}:{_latest(await self._require(name))}"

    async def rotate(self, domain: Domain) -> str:
        """Make a new version."""
        name = self._name(domain)
        await self._require(name)
        await self.server.ask("POST", f"keys/{name}/rotate", {})
        return await self.current(domain)

    async def destroy(self, domain: Domain) -> tuple[Destroyed, ...]:
        """Delete the key with all its versions, at once; one that is gone already is gone."""
        name = self._name(domain)
        await self.server.delete_key(name)
        return (Destroyed(f"transit:{name}", self.clock()),)

    async def check(self) -> None:
        """Raises `KeyUnavailable` unless the server is unsealed and takes our token."""
        await self.server.check()

    async def close(self) -> None:
        """Close connections."""
        await self.server.close()

    def _name(self, domain: Domain) -> str:
        return dotted(self.prefix, domain.tenant, domain.ehr)

    async def _require(self, name: str) -> Any:
        """Return what is known of the key; made here, never by `encrypt`, which would take the mount's default type."""
        try:
            facts = await self.server.ask("GET", f"keys/{name}")
        except KeyMissing:
            await self.server.ask("POST", f"keys/{name}", {"type": _TYPE})
            facts = await self.server.ask("GET", f"keys/{name}")
        if facts.get("type") != _TYPE or facts.get("derived") or facts.get("exportable"):
            raise KeyRefused(f"Transit key {name} is not a {_TYPE} key that stays there. Fix: remove it, or the prefix")
        return facts


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _text(answered: Any, member: str) -> str:
    text = answered.get(member)
    if not isinstance(text, str):
        raise KeyUnavailable(f"Transit answered without {member}")
    return text


def _version(ciphertext: str) -> str:
    parts = ciphertext.split(":", 2)
    if len(parts) != 3 or parts[0] != "vault" or not parts[1].startswith("v"):
        raise SealBroken("a wrapped key is not what Transit writes")
    return parts[1][1:]


def _latest(facts: Any) -> int:
    try:
        return int(facts["latest_version"])
    except (KeyError, TypeError, ValueError):
        raise KeyUnavailable("Transit answered without latest_version") from None
