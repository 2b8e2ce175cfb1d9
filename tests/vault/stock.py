"""A store with sealed records of every kind, and what an operator does with their keys."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from broker.app.vault import VaultWork, open_vault
from broker.settings import Settings
from broker.store import keys
from broker.vault import DomainRecords, KeyEncryptionKeys, LocalKeyring, Vault
from broker.vault.domain_key import DomainKey
from broker.vault.places import SealedRecord, place_of
from tests.stage.clock import MovableClock
from tests.stage.vault import KEY, a_vault

TENANT = "t"
TEXT = b"canary"
SETTINGS = Settings(public_url="https://broker.example", tenant=TENANT, ehr=(), registration=())

GRANT = {"generation": "3", "state": "needs_reauth", "cause": "a test", "life": "1.0 2.0 3.0 1", "hold_until": "0.0"}


def names_of(number: int = 0) -> list[str]:
    """Return a key of each kind that holds something sealed."""
    tag = f"tag{number:09}"
    return [
        keys.grant(tag),
        *(keys.issued(tag, kind, f"hash{number}") for kind in ("handle", "refresh", "code", "launch")),
        keys.launch(f"launch{number}"),
        keys.pin(f"pin{number}"),
        keys.sealed_key(f"key{number}"),
    ]


@dataclass
class Stock:
    """One store; each replica of it is a vault of its own."""

    redis: Redis
    folder: Path
    kek: KeyEncryptionKeys = field(default_factory=lambda: LocalKeyring([KEY]))
    clock: MovableClock = field(default_factory=MovableClock)
    told: list[str] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    meanwhile: Callable[[], Awaitable[None]] | None = None
    """What brokers do while the operator waits."""

    def replica(self) -> Vault:
        return a_vault(self.redis, self.kek, tenant=TENANT, clock=self.clock)

    async def put(self, vault: Vault, key: str, ehr: str, *, text: bytes = TEXT) -> None:
        """Seal and write as the rooms do."""
        place = place_of(key)
        assert place is not None
        generation = int(GRANT["generation"]) if key.endswith(":grant") else 0
        for name, kind in place.fields.items():
            context = SealedRecord(key, name, kind, b"", generation).context(TENANT)
            sealed = await vault.seal(context, text, ehr=ehr)
            if name:
                await self.redis.hset(key, name, sealed)
                if key.endswith(":grant"):
                    await self.redis.hset(key, items=[part for pair in GRANT.items() for part in pair])
            else:
                await self.redis.set(key, sealed)
        await self.redis.pexpire(key, 1_000_000)

    async def fill(self, ehr: str, numbers: Sequence[int], vault: Vault | None = None) -> list[str]:
        """Write one record of each kind for each number; returns their keys."""
        vault, names = vault or self.replica(), [name for number in numbers for name in names_of(number)]
        for name in names:
            await self.put(vault, name, ehr)
        return names

    async def read(self, vault: Vault, key: str) -> set[bytes]:
        """Read and open all that lies at a key."""
        place = place_of(key)
        assert place is not None
        found: Any = await (self.redis.get(key) if place.kind == "string" else self.redis.hgetall(key))
        assert found, key
        values = {"": found} if place.kind == "string" else {name.decode(): value for name, value in found.items()}
        generation = int(values.get("generation", 0)) if place.kind == "hash" else 0
        return {
            await vault.open(SealedRecord(key, name, kind, b"", generation).context(TENANT), values[name])
            for name, kind in place.fields.items()
        }

    async def keys(self) -> list[DomainKey]:
        return [key async for key, _ in DomainRecords(self.redis).all(TENANT)]

    async def states(self) -> Counter[str]:
        return Counter(f"{key.domain} {key.state}" for key in await self.keys())

    async def sleep(self, seconds: float) -> None:
        """Let brokers work on in half-minutes."""
        self.slept.append(seconds)
        while seconds > 0:
            self.clock.advance(min(seconds, 30))
            seconds -= 30
            if self.meanwhile is not None:
                await self.meanwhile()

    @asynccontextmanager
    async def work(self, redis: Redis | None = None) -> AsyncIterator[VaultWork]:
        """What an operator's command opens."""
        async with open_vault(
            SETTINGS,
            redis=redis or self.redis,
            kek=self.kek,
            audit_file=self.folder / "audit.jsonl",
            clock=self.clock,
            sleep=self.sleep,
        ) as work:
            yield work
