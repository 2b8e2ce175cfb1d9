"""From a keyring of the process's own to a key-management service, while the broker runs."""

from dataclasses import dataclass

from broker.vault.kek import Destroyed, Domain, KeyEncryptionKeys, WrappedKey
from broker.vault.keyring import LocalKeyring


@dataclass(frozen=True, slots=True)
class MovingKeys:
    """The service wraps, and unwraps what it wrapped; what the keyring wrapped before, the keyring unwraps."""

    service: KeyEncryptionKeys
    keyring: LocalKeyring

    async def wrap(self, domain: Domain, key: bytes, bound_to: bytes) -> WrappedKey:
        """Wrap at the service."""
        return await self.service.wrap(domain, key, bound_to)

    async def unwrap(self, domain: Domain, wrapped: WrappedKey, bound_to: bytes) -> bytes:
        """Unwrap where it was wrapped: the name of the key tells."""
        holder = self.keyring if wrapped.kek in self.keyring.keks else self.service
        return await holder.unwrap(domain, wrapped, bound_to)

    async def current(self, domain: Domain) -> str:
        """Return the service's."""
        return await self.service.current(domain)

    async def rotate(self, domain: Domain) -> str:
        """Rotate at the service."""
        return await self.service.rotate(domain)

    async def destroy(self, domain: Domain) -> tuple[Destroyed, ...]:
        """Destroy at the service; no domain has a key of its own on the keyring."""
        return await self.service.destroy(domain)

    async def check(self) -> None:
        """Check the service; the keyring always answers."""
        await self.service.check()

    async def close(self) -> None:
        """Close the service's connections."""
        await self.service.close()
