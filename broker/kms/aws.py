"""Key-encryption keys at AWS KMS: one customer managed key for each domain, found by its alias.

The key stays the same when it is rotated (`RotateKeyOnDemand` gives it new material), so destroying it destroys every
version. A version is the number of its rotations.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from broker.clock import Clock
from broker.errors import KeyRefused, KeyUnavailable, SealBroken
from broker.kms.aws_server import AwsRefused, AwsServer
from broker.kms.names import alias, require_kind
from broker.vault.kek import Destroyed, Domain, WrappedKey

_ROTATED_SECONDS: Final = (0.0, 0.5, 1.0, 2.0, 4.0)
"""How long to wait before each look at whether a rotation is complete."""


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """Wraps with AWS KMS. Key ids in Redis are names only: which key is asked follows from the domain."""

    server: AwsServer
    prefix: str
    clock: Clock
    may_create: bool = True
    deletion_days: int = 30

    async def wrap(self, domain: Domain, key: bytes, bound_to: bytes) -> WrappedKey:
        """Wrap under the domain's key, making it first if there is none and that is allowed."""
        kek = await self.current(domain)  # before it is used, so that no blob claims a newer version than it has
        answered = await self.server.ask(
            "encrypt", KeyId=kek.split(":")[1], Plaintext=key, EncryptionContext=_context(domain, bound_to)
        )
        return WrappedKey(kek, bytes(answered["CiphertextBlob"]))

    async def unwrap(self, domain: Domain, wrapped: WrappedKey, bound_to: bytes) -> bytes:
        """Unwrap with the domain's key. Raises `SealBroken`, `KeyUnavailable`, `KeyRefused`."""
        require_kind("awskms", wrapped)
        if not wrapped.blob:
            raise SealBroken(f"a key of {domain} is empty")
        try:
            answered = await self.server.ask(
                "decrypt",
                KeyId=alias(self.prefix, domain),
                CiphertextBlob=wrapped.blob,
                EncryptionContext=_context(domain, bound_to),
            )
        except AwsRefused as refused:
            if refused.error == "InvalidCiphertextException":
                raise SealBroken(f"a key of {domain} does not unwrap in its place") from None
            raise
        return bytes(answered["Plaintext"])

    async def current(self, domain: Domain) -> str:
        """Return `awskms:KEY-ID:VERSION`, making the domain's key first if there is none and that is allowed."""
        key_id = await self._key_id(domain)
        return f"awskms:{key_id}:{await self._version(key_id)}"

    async def rotate(self, domain: Domain) -> str:
        """Give the key new material. Raises `KeyUnavailable` when AWS takes long; it goes on there."""
        key_id = await self._key_id(domain)
        before = await self._version(key_id)
        await self.server.ask("rotate_key_on_demand", KeyId=key_id)
        for seconds in _ROTATED_SECONDS:
            await asyncio.sleep(seconds)
            if (version := await self._version(key_id)) > before:
                return f"awskms:{key_id}:{version}"
        raise KeyUnavailable(f"AWS KMS is still rotating the key of {domain}; go on in a few minutes")

    async def destroy(self, domain: Domain) -> tuple[Destroyed, ...]:
        """Disable the key at once and schedule its deletion, which can be cancelled until then."""
        name = alias(self.prefix, domain)
        known = await self._described(name)
        if known is None:
            return (Destroyed(f"awskms:{name}", self.clock()),)
        key_id = str(known["KeyId"])
        if known["KeyState"] != "PendingDeletion":
            await self.server.ask("disable_key", KeyId=key_id)
            await self.server.ask("schedule_key_deletion", KeyId=key_id, PendingWindowInDays=self.deletion_days)
            known = await self._described(key_id) or {}
        return (Destroyed(f"awskms:{key_id}", known["DeletionDate"].timestamp()),)

    async def check(self) -> None:
        """Raises `KeyUnavailable` unless AWS KMS answers us. A key that is not there is an answer."""
        await self._described(f"alias/{self.prefix}/check")

    async def close(self) -> None:
        """Close connections."""
        await self.server.close()

    async def _key_id(self, domain: Domain) -> str:
        name = alias(self.prefix, domain)
        known = await self._described(name)
        if known is not None and known["KeyState"] != "PendingDeletion":
            return str(known["KeyId"])
        if not self.may_create:
            raise KeyRefused(f"AWS KMS has no key {name}, and create=no. Fix: make one, or drop create=no")
        return await self._create(domain, name, replaces=known is not None)

    async def _create(self, domain: Domain, name: str, *, replaces: bool) -> str:
        made = await self.server.ask(
            "create_key",
            Description=f"smart-token-broker: {domain}",
            KeySpec="SYMMETRIC_DEFAULT",
            KeyUsage="ENCRYPT_DECRYPT",
            Tags=[{"TagKey": "smart-token-broker", "TagValue": self.prefix}],
        )
        key_id = str(made["KeyMetadata"]["KeyId"])
        try:
            await self.server.ask("update_alias" if replaces else "create_alias", AliasName=name, TargetKeyId=key_id)
        except KeyUnavailable as error:
            await self.server.ask("schedule_key_deletion", KeyId=key_id, PendingWindowInDays=7)
            first = await self._described(name)  # another replica's, which was faster
            if first is None or replaces:
                raise error from None
            return str(first["KeyId"])
        return key_id

    async def _described(self, key: str) -> Any:
        try:
            return (await self.server.ask("describe_key", KeyId=key))["KeyMetadata"]
        except AwsRefused as refused:
            if refused.error == "NotFoundException":
                return None
            raise

    async def _version(self, key_id: str) -> int:
        answered = await self.server.ask("list_key_rotations", KeyId=key_id, Limit=1000)
        return 1 + len(answered.get("Rotations", []))


def _context(domain: Domain, bound_to: bytes) -> dict[str, str]:
    """Return the encryption context. CloudTrail shows it in clear: ids alone, no person's."""
    context = {"tenant": domain.tenant, "bound_to": bound_to.hex()}
    return context | {"ehr": domain.ehr} if domain.ehr else context
