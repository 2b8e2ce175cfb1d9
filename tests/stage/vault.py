"""A vault for tests of what keeps sealed records: a real one, its keys in the test's store."""

from collections.abc import Callable

from redis.asyncio import Redis

from broker.clock import Clock, Entropy, system_clock, system_entropy
from broker.errors import KeyRefused, KeyUnavailable
from broker.vault import (
    Destroyed,
    Domain,
    DomainKeys,
    DomainRecords,
    KeyEncryptionKeys,
    LocalKeyring,
    RecordContext,
    Vault,
    WrappedKey,
)

KEY = bytes(range(32))
Report = Callable[[RecordContext, str], None]


def report_nothing(_context: RecordContext, _detail: str) -> None:
    """Say nothing."""


def domain_keys(
    redis: Redis,
    kek: KeyEncryptionKeys | None = None,
    *,
    clock: Clock = system_clock,
    entropy: Entropy = system_entropy,
) -> DomainKeys:
    """Return one process's domain keys."""
    return DomainKeys(DomainRecords(redis), kek or LocalKeyring([KEY], entropy), clock=clock, entropy=entropy)


def a_vault(
    redis: Redis,
    kek: KeyEncryptionKeys | None = None,
    *,
    tenant: str = "t",
    report_broken: Report = report_nothing,
    clock: Clock = system_clock,
    entropy: Entropy = system_entropy,
) -> Vault:
    """Return one process's vault."""
    keys = domain_keys(redis, kek, clock=clock, entropy=entropy)
    return Vault(keys, tenant=tenant, report_broken=report_broken, entropy=entropy)


class UnsteadyKek:
    """A keyring that answers like a KMS: now and then not at all, and now and then no. It counts what it is asked."""

    def __init__(self, *keys: bytes) -> None:
        self.keyring = LocalKeyring(keys or [KEY])
        self.fails: KeyUnavailable | None = None
        self.unwrapped = 0
        self.wrapped = 0

    def down(self) -> None:
        """Do not answer from now on."""
        self.fails = KeyUnavailable("the KMS does not answer")

    def refuse(self) -> None:
        """Say no from now on."""
        self.fails = KeyRefused("the key is disabled")

    def recover(self) -> None:
        """Answer again."""
        self.fails = None

    async def wrap(self, domain: Domain, key: bytes, bound_to: bytes) -> WrappedKey:
        await self.check()
        self.wrapped += 1
        return await self.keyring.wrap(domain, key, bound_to)

    async def unwrap(self, domain: Domain, wrapped: WrappedKey, bound_to: bytes) -> bytes:
        await self.check()
        self.unwrapped += 1
        return await self.keyring.unwrap(domain, wrapped, bound_to)

    async def current(self, domain: Domain) -> str:
        await self.check()
        return await self.keyring.current(domain)

    async def rotate(self, domain: Domain) -> str:
        await self.check()
        return await self.keyring.rotate(domain)

    async def destroy(self, domain: Domain) -> tuple[Destroyed, ...]:
        await self.check()
        return await self.keyring.destroy(domain)

    async def check(self) -> None:
        if self.fails is not None:
            raise self.fails

    async def close(self) -> None:
        """Give up nothing."""
