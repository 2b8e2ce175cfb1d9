"""The domain keys that this process has unwrapped: bounded in number and time, and never older than what Redis says.

    up to  30 s since Redis confirmed the key     it is used
    up to 180 s                                   it is used, and confirmed in the background
    after that                                    Redis is asked first
    up to 300 s since the KEK unwrapped it        it is used
    up to 3600 s                                  it is used, and unwrapped again when it is confirmed
    after that                                    the KEK is asked first

A KMS that does not answer changes nothing for the keys that are here, for up to an hour. One that says no takes the key
away at once. What is rotated or destroyed is in use nowhere after 180 seconds.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.clock import Clock, Entropy
from broker.errors import KeyRefused, KeyUnavailable, SealBroken
from broker.single_flight import SingleFlight
from broker.vault.domain_key import ID_BYTES, SLOT_BYTES, DomainKey, slot_of
from broker.vault.domain_records import DomainRecords
from broker.vault.kek import KEY_BYTES, Domain, KeyEncryptionKeys

FRESH_SECONDS: Final = 30.0
CONFIRMED_SECONDS: Final = 180.0
"""No key is used for longer without Redis saying that it is still in use: what is rotated or destroyed ends by then."""
REUNWRAP_SECONDS: Final = 300.0
UNWRAPPED_SECONDS: Final = 3600.0
READY_SECONDS: Final = CONFIRMED_SECONDS - FRESH_SECONDS
"""For so long after `ready` nothing is asked before sealing: longer than a refresh takes, its storing included."""
MOST_KEYS: Final = 4096
_AGAIN_SECONDS: Final = 1.0


class OpenKey:
    """A domain key, unwrapped."""

    __slots__ = ("cipher", "id", "seals", "unwrapped_at")

    def __init__(self, key_id: bytes, key: bytes, unwrapped_at: float) -> None:
        self.id = key_id
        self.cipher = AESGCM(key)
        self.unwrapped_at = unwrapped_at
        self.seals = 0
        """How often it sealed here and Redis was not told yet."""

    def __repr__(self) -> str:
        return f"OpenKey({self.id.hex()})"


@dataclass(slots=True)
class _Held:
    key: OpenKey
    fresh_until: float
    usable_until: float


Name = TypeVar("Name", bytes, Domain)


class _Holding(Generic[Name]):
    """The keys at hand, least recently confirmed first: those go when there are too many."""

    def __init__(self) -> None:
        self._held: OrderedDict[Name, _Held] = OrderedDict()

    def get(self, name: Name) -> _Held | None:
        return self._held.get(name)

    def put(self, name: Name, key: OpenKey, confirmed_at: float) -> None:
        usable_until = min(confirmed_at + CONFIRMED_SECONDS, key.unwrapped_at + UNWRAPPED_SECONDS)
        self._held[name] = _Held(key, min(confirmed_at + FRESH_SECONDS, usable_until), usable_until)
        self._held.move_to_end(name)
        if len(self._held) > MOST_KEYS:
            self._held.popitem(last=False)

    def drop(self, key_id: bytes) -> None:
        for name in [name for name, held in self._held.items() if held.key.id == key_id]:
            del self._held[name]


class DomainKeys:
    """Finds the key to seal with, or to open with; what is at hand costs neither Redis nor KMS a call."""

    def __init__(self, records: DomainRecords, kek: KeyEncryptionKeys, *, clock: Clock, entropy: Entropy) -> None:
        self._records = records
        self._kek = kek
        self._clock = clock
        self._entropy = entropy
        self._opening: _Holding[bytes] = _Holding()
        self._sealing: _Holding[Domain] = _Holding()
        self._flights: SingleFlight[OpenKey] = SingleFlight()

    async def for_opening(self, key_id: bytes) -> OpenKey:
        """Return a key by its id. Raises `KeyUnavailable`, `SealBroken`, `StoreUnavailable`."""
        ask = partial(self._confirm_opening, key_id)
        return self._at_hand(self._opening.get(key_id), key_id.hex(), ask) or await self._flights.run(key_id.hex(), ask)

    async def for_sealing(self, domain: Domain) -> OpenKey:
        """Return the key that seals for a domain, making its first one. Raises what `for_opening` raises."""
        name, ask = f"active:{domain}", partial(self._confirm_sealing, domain)
        return self._at_hand(self._sealing.get(domain), name, ask) or await self._flights.run(name, ask)

    async def ready(self, domain: Domain) -> None:
        """See to it that sealing for the domain asks nobody for the next 150 seconds.

        Raises `KeyUnavailable` when that cannot be promised, `SealBroken`, `StoreUnavailable`.
        """
        if not self._is_ready(domain):
            await self._flights.run(f"active:{domain}", partial(self._confirm_sealing, domain))
            if not self._is_ready(domain):
                raise KeyUnavailable(f"the KEK of {domain} has not answered for too long")

    async def make(self, domain: Domain) -> DomainKey:
        """Return a new key for a domain, wrapped and not stored yet. Raises `KeyUnavailable`."""
        key_id = slot_of(domain) + self._entropy(ID_BYTES - SLOT_BYTES)
        wrapped = await self._kek.wrap(domain, self._entropy(KEY_BYTES), key_id)
        now = self._clock()
        return DomainKey(key_id, domain, "active", wrapped, created_at=now, since=now, keks=(wrapped.kek,))

    async def close(self) -> None:
        """Wait for what is being asked."""
        await self._flights.close()

    def _is_ready(self, domain: Domain) -> bool:
        held = self._sealing.get(domain)
        return held is not None and held.usable_until - self._clock() >= READY_SECONDS

    def _at_hand(self, held: _Held | None, name: str, ask: Callable[[], Awaitable[OpenKey]]) -> OpenKey | None:
        if held is None:
            return None
        now = self._clock()
        if now >= held.usable_until:
            return None
        if now >= held.fresh_until:
            held.fresh_until = now + _AGAIN_SECONDS
            self._flights.start(name, ask)
        return held.key

    async def _confirm_opening(self, key_id: bytes) -> OpenKey:
        asked_at = self._clock()
        record = await self._records.read(key_id)
        if record is None:
            self._drop(key_id)
            raise KeyUnavailable(f"domain key {key_id.hex()} is not in the store")
        key = await self._unwrapped(record)
        self._opening.put(key_id, key, asked_at)
        return key

    async def _confirm_sealing(self, domain: Domain) -> OpenKey:
        asked_at, held = self._clock(), self._sealing.get(domain)
        if held is None:
            record = await self._records.active(domain)
        else:
            counted, held.key.seals = held.key.seals, 0
            record = await self._records.active(domain, sealed_by=held.key.id, times=counted)
        record = record or await self._create(domain)
        key = await self._unwrapped(record)
        self._opening.put(key.id, key, asked_at)
        self._sealing.put(domain, key, asked_at)
        return key

    async def _create(self, domain: Domain) -> DomainKey:
        made = await self.make(domain)
        if await self._records.create(made):
            return made
        first = await self._records.active(domain)
        if first is None:
            raise KeyUnavailable(f"the keys of {domain} are changed by others at this moment")
        return first

    async def _unwrapped(self, record: DomainKey) -> OpenKey:
        held, now = self._opening.get(record.id), self._clock()
        age = now - held.key.unwrapped_at if held else UNWRAPPED_SECONDS
        if record.wrapped is None:
            self._drop(record.id)
            raise KeyUnavailable(f"domain key {record.id.hex()} is gone")
        if held is not None and age < REUNWRAP_SECONDS:
            return held.key
        try:
            key = await self._kek.unwrap(record.domain, record.wrapped, record.id)
        except (KeyRefused, SealBroken):
            self._drop(record.id)
            raise
        except KeyUnavailable:
            if held is None or age >= UNWRAPPED_SECONDS:
                raise
            return held.key
        return OpenKey(record.id, key, now)

    def _drop(self, key_id: bytes) -> None:
        self._opening.drop(key_id)
        self._sealing.drop(key_id)
