"""Signing keys as they are kept: one sealed record for each registration, changed by all replicas (RG-07, RG-11)."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import partial
from typing import Any, Final

from joserfc.jwk import ECKey, RSAKey

from broker.audit import AuditRecord, AuditTrail, Event
from broker.clock import Clock
from broker.errors import StoreUnavailable
from broker.keys.ring import Algorithm, Ring, RingKey, Standing, State, changes
from broker.keys.sealed_record import SealedRecords
from broker.kms.signing import RemoteSigning
from broker.secret import Secret
from broker.settings import RegistrationSettings
from broker.store import keys

FRESH_SECONDS: Final = 5.0
"""How long a replica goes by what it has read last; without an answer of the store, as long as that takes."""
_RSA_BITS: Final = 3072
_EVENTS: Final[dict[State, Event]] = {
    "published": "key.published",
    "seen": "key.seen",
    "active": "key.activated",
    "retiring": "key.retiring",
    "retired": "key.retired",
}


class Rings:
    """The rings of all registrations."""

    def __init__(self, records: SealedRecords, remote: RemoteSigning, audit: AuditTrail, clock: Clock) -> None:
        self._records = records
        self._remote = remote
        self._audit = audit
        self._clock = clock
        self._read: dict[str, tuple[float, Ring]] = {}

    async def find(self, registration: RegistrationSettings) -> Ring | None:
        """Return the ring as it is now; None where no key was needed yet. Raises `StoreUnavailable`, `SealBroken`."""
        text = await self._records.read(keys.sealed_key(_name(registration)), _name(registration))
        return None if text is None else self._remember(registration, text)

    async def of(self, registration: RegistrationSettings) -> Ring:
        """Return the ring, as of a few seconds ago; with its first key, if no replica has made that yet.

        Raises `StoreUnavailable`, `SealBroken`, `AuditUnavailable`.
        """
        read_at, ring = self._read.get(registration.id, (0.0, None))
        if ring is not None and abs(self._clock() - read_at) < FRESH_SECONDS:
            return ring
        try:
            return await self.find(registration) or await self._create(registration)
        except StoreUnavailable:
            if ring is None:
                raise
            return ring

    async def change(self, registration: RegistrationSettings, decide: Callable[[Ring], Ring]) -> Ring:
        """Change the ring, and write each key's new state down first. `decide` may be called more than once.

        Raises what `of` and `decide` raise.
        """
        await self.of(registration)
        return await self._change(registration, lambda ring: decide(ring) if ring is not None else None)

    async def add(self, registration: RegistrationSettings, *, seen: bool = False) -> Ring:
        """Put a new key into the set; nothing where one is waiting already. With `seen`, it is tried at once."""
        key = await self._generate(registration, "seen" if seen else "published")
        ring = await self.change(registration, lambda ring: ring if ring.is_rotating else ring.begun(key))
        return await self._without_spare(ring, key)

    async def destroy_retired(self, registration: RegistrationSettings, ring: Ring) -> Ring:
        """Have retired keys destroyed where a key-management service holds them, and return the ring without them.

        Raises `KeyUnavailable`, `KeyRefused`, and what `change` raises; what is left is destroyed the next time.
        """
        for kid, reference in [(key.kid, key.reference) for key in ring.keys if not key.is_live]:
            if reference is not None:
                self._record("key.destroyed", registration, f"kid {kid}: {reference}")
                await self._remote.destroy(reference)
                ring = await self.change(registration, partial(Ring.destroyed, kid=kid))
        return ring

    async def _create(self, registration: RegistrationSettings) -> Ring:
        key = await self._generate(registration, "active")
        ring = await self._change(registration, lambda ring: Ring((key,)) if ring is None else ring)
        return await self._without_spare(ring, key)

    async def _without_spare(self, ring: Ring, made: RingKey) -> Ring:
        """Destroy a key at the service that another replica was faster than: nobody would ever use it."""
        if made.reference is not None and made.kid not in {key.kid for key in ring.keys}:
            await self._remote.destroy(made.reference)
        return ring

    async def _generate(self, registration: RegistrationSettings, state: State) -> RingKey:
        algorithm, now = registration.signing_algorithm, self._clock()
        if registration.signing == "kms":
            reference = await self._remote.create(registration.id, algorithm)
            public = await self._remote.public_key(reference)
            kid = (ECKey if algorithm == "ES384" else RSAKey).import_key(public).thumbprint()
            pem = public.decode("ascii")
            return RingKey(kid, algorithm, state, since=now, published_at=now, reference=reference, public=pem)
        kid, private = await asyncio.to_thread(_generate, algorithm)
        return RingKey(kid, algorithm, state, since=now, published_at=now, private=private)

    async def _change(self, registration: RegistrationSettings, decide: Callable[[Ring | None], Ring | None]) -> Ring:
        told: set[tuple[str, State]] = set()

        def write(text: bytes | None) -> bytes | None:
            before = decode(text) if text is not None else None
            after = decide(before)
            if after is None or after == before:
                return None
            self._tell(registration, before or Ring(()), after, told)
            return encode(after)

        name, ehr = _name(registration), registration.ehr[0] if len(registration.ehr) == 1 else ""
        text = await self._records.change(keys.sealed_key(name), name, write, ehr=ehr)
        return self._remember(registration, text or b"")

    def _remember(self, registration: RegistrationSettings, text: bytes) -> Ring:
        ring = decode(text)
        self._read[registration.id] = (self._clock(), ring)
        return ring

    def _tell(
        self, registration: RegistrationSettings, before: Ring, after: Ring, told: set[tuple[str, State]]
    ) -> None:
        for key, was in changes(before, after):
            if (key.kid, key.state) in told:
                continue
            told.add((key.kid, key.state))
            back = (was, key.state) in {("active", "seen"), ("retiring", "active")}
            event: Event = "key.rolled_back" if back else _EVENTS[key.state]
            self._record(event, registration, f"kid {key.kid}: {was or 'new'} -> {key.state}")

    def _record(self, event: Event, registration: RegistrationSettings, reason: str) -> None:
        ehr = registration.ehr[0] if len(registration.ehr) == 1 else None
        record = AuditRecord(event=event, outcome="allowed", ehr=ehr, registration=registration.id, reason=reason)
        self._audit.record(record)


def encode(ring: Ring) -> bytes:
    """Return the record of a ring."""
    document = {
        "keys": [_members(key) for key in ring.keys],
        "standings": {ehr: asdict(standing) for ehr, standing in ring.standings.items()},
    }
    return json.dumps(document, separators=(",", ":")).encode()


def decode(text: bytes) -> Ring:
    """Read what `encode` wrote."""
    document = json.loads(text)
    return Ring(
        tuple(_key(members) for members in document["keys"]),
        {ehr: _standing(said) for ehr, said in document["standings"].items()},
    )


def _members(key: RingKey) -> dict[str, Any]:
    plain = {field.name: getattr(key, field.name) for field in fields(key)}
    return {**plain, "private": key.private.reveal() if key.private is not None else None}


def _key(members: dict[str, Any]) -> RingKey:
    private = members["private"]
    return RingKey(**{**members, "private": Secret(private) if private is not None else None})


def _standing(said: dict[str, Any]) -> Standing:
    return Standing(said["accepted"], {kid: (one[0], one[1]) for kid, one in said["refused"].items()}, said["lag"])


def _name(registration: RegistrationSettings) -> str:
    return f"{registration.id}:signing"


def _generate(algorithm: Algorithm) -> tuple[str, Secret]:
    """Return a new key: its `kid`, the RFC 7638 thumbprint, and its private part as PEM."""
    made: ECKey | RSAKey = (
        ECKey.generate_key("P-384", private=True)
        if algorithm == "ES384"
        else RSAKey.generate_key(_RSA_BITS, private=True)
    )
    return made.thumbprint(), Secret(made.as_pem(private=True).decode())
