"""Client secrets at EHRs: those of `broker.toml`, and those that were added since, sealed. One after the other.

What an EHR took last is tried first there; the next where it is refused. So the EHR may change its secret at any time
after the new one was added, and no request fails.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from broker.audit import AuditRecord, AuditTrail, Event
from broker.clock import Clock
from broker.credentials import KeyedHash
from broker.errors import InvalidRequest, NotFound, StoreUnavailable, Unavailable
from broker.keys.sealed_record import SealedRecords
from broker.secret import Secret
from broker.settings import RegistrationSettings
from broker.settings.registration import MOST_SECRETS
from broker.store import keys

log = structlog.get_logger()

FRESH_SECONDS: Final = 5.0
"""How long a replica goes by what it has read last."""
_DAY: Final = 86_400.0
NEWS_SECONDS: Final = _DAY
"""When it is written down again that a secret was accepted."""
SOON_SECONDS: Final = 30 * _DAY
"""How long before its end an operator is warned."""
_ID_DIGITS: Final = 12
_EMPTY: Final = b'{"added":[],"taken":{},"first":{}}'


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """One secret. Times are in seconds; None is what nobody said, or what has not happened."""

    id: str
    """Digits of a keyed hash: the same secret has the same id, and nothing follows from it."""
    secret: Secret
    origin: str
    """`broker.toml`, or `added`."""
    since: float | None
    """When it was added, or taken by an EHR first."""
    expires: float | None
    accepted: float | None
    """When an EHR took it last, to the day."""


class ClientSecrets:
    """The secrets of all registrations."""

    def __init__(self, records: SealedRecords, keyed_hash: KeyedHash, audit: AuditTrail, clock: Clock) -> None:
        self._records = records
        self._keyed_hash = keyed_hash
        self._audit = audit
        self._clock = clock
        self._read: dict[str, tuple[float, dict[str, Any]]] = {}
        self._noting: set[asyncio.Task[None]] = set()

    async def order(self, registration: RegistrationSettings, ehr: str) -> Sequence[ClientSecret]:
        """Return the secrets for one request, the one to try first first; at most `MOST_SECRETS`.

        Raises `StoreUnavailable`, `SealBroken`, `KeyUnavailable`.
        """
        document = await self._of(registration)
        taken, now = document["taken"].get(ehr, {"id": ""})["id"], self._clock()
        known = self._all(registration, document)
        return sorted(known, key=lambda one: (_is_over(one, now), one.id != taken))[:MOST_SECRETS]

    async def all(self, registration: RegistrationSettings) -> Sequence[ClientSecret]:
        """Return every secret, as it is now. Raises as `order`."""
        return self._all(registration, await self._find(registration))

    async def add(self, registration: RegistrationSettings, secret: Secret, expires: float | None) -> str:
        """Keep one more, and return its id. Raises `InvalidRequest`, and as `order`."""
        new, now = self._id(secret), self._clock()
        if len(await self.all(registration)) >= MOST_SECRETS:
            raise InvalidRequest(f"there are {MOST_SECRETS} secrets already. Fix: retire one that is not used any more")

        def decide(document: dict[str, Any]) -> None:
            others = [one for one in document["added"] if one["id"] != new]
            more = {"id": new, "secret": secret.reveal(), "since": now, "expires": expires}
            document["added"] = [*others, more]

        self._record("secret.added", registration, f"secret {new}")
        await self._change(registration, decide)
        return new

    async def retire(self, registration: RegistrationSettings, secret: str) -> None:
        """Delete one that was added. Raises `NotFound`, and as `order`."""
        if secret not in {one.id for one in await self.all(registration) if one.origin == "added"}:
            raise NotFound(f"no secret {secret} was added to {registration.id}; broker.toml's are taken out there")

        def decide(document: dict[str, Any]) -> None:
            document["added"] = [one for one in document["added"] if one["id"] != secret]

        self._record("secret.retired", registration, f"secret {secret}")
        await self._change(registration, decide)

    async def warnings(self, registration: RegistrationSettings) -> Sequence[str]:
        """Return what to tell an operator of secrets that are over or soon will be. Raises as `order`."""
        now, fix = self._clock(), f"Fix: broker registrations secret add {registration.id}"
        return [
            f"registration {registration.id}: secret {one.id} {said}. {fix}"
            for one in await self.all(registration)
            for said in _faults(one, registration.secret_max_age_days, now)
        ]

    def heard(self, registration: RegistrationSettings, ehr: str, refused: Sequence[str], accepted: str) -> None:
        """Remember which secret an EHR took, where that is news; in a task of its own, no answer waits for it."""
        last = self._read.get(registration.id, (0.0, json.loads(_EMPTY)))[1]["taken"].get(ehr, {"id": "", "at": 0.0})
        if last["id"] == accepted and self._clock() - last["at"] < NEWS_SECONDS:
            return
        if refused:
            log.warning("secret_refused", registration=registration.id, ehr=ehr, refused=list(refused), taken=accepted)
        noting = asyncio.create_task(self._note(registration, ehr, accepted), name="secret-heard")
        self._noting.add(noting)
        noting.add_done_callback(self._noting.discard)

    async def close(self) -> None:
        """Wait until what was heard is written."""
        while self._noting:
            await asyncio.wait(self._noting)

    async def _note(self, registration: RegistrationSettings, ehr: str, accepted: str) -> None:
        now = self._clock()

        def decide(document: dict[str, Any]) -> None:
            document["taken"][ehr] = {"id": accepted, "at": now}
            document["first"].setdefault(accepted, now)

        try:
            await self._change(registration, decide)
        except Unavailable as error:  # the next request tells it again
            log.warning("secret_news_lost", registration=registration.id, ehr=ehr, cause=error.detail)

    def _all(self, registration: RegistrationSettings, document: dict[str, Any]) -> Sequence[ClientSecret]:
        times: dict[str, float] = {}
        for one in document["taken"].values():
            times[one["id"]] = max(one["at"], times.get(one["id"], 0.0))
        first = document["first"]
        known = {
            (name := self._id(secret)): ClientSecret(
                name, secret, "broker.toml", first.get(name), None, times.get(name)
            )
            for secret in registration.client_secret
        }
        for one in document["added"]:
            text = Secret(one["secret"])
            kept = ClientSecret(one["id"], text, "added", one["since"], one["expires"], times.get(one["id"]))
            known.setdefault(kept.id, kept)
        return list(known.values())

    async def _of(self, registration: RegistrationSettings) -> dict[str, Any]:
        read_at, document = self._read.get(registration.id, (0.0, None))
        if document is not None and abs(self._clock() - read_at) < FRESH_SECONDS:
            return document
        try:
            return await self._find(registration)
        except StoreUnavailable:
            if document is None:
                raise
            return document

    async def _find(self, registration: RegistrationSettings) -> dict[str, Any]:
        text = await self._records.read(keys.sealed_key(_name(registration)), _name(registration))
        return self._remember(registration, text)

    async def _change(self, registration: RegistrationSettings, decide: Callable[[dict[str, Any]], None]) -> None:
        def write(text: bytes | None) -> bytes:
            document = json.loads(text or _EMPTY)
            decide(document)
            return json.dumps(document, separators=(",", ":")).encode()

        name, ehr = _name(registration), registration.ehr[0] if len(registration.ehr) == 1 else ""
        self._remember(registration, await self._records.change(keys.sealed_key(name), name, write, ehr=ehr))

    def _remember(self, registration: RegistrationSettings, text: bytes | None) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(text or _EMPTY)
        self._read[registration.id] = (self._clock(), document)
        return document

    def _id(self, secret: Secret) -> str:
        return self._keyed_hash("client_secret", secret)[:_ID_DIGITS]

    def _record(self, event: Event, registration: RegistrationSettings, reason: str) -> None:
        record = AuditRecord(event=event, outcome="allowed", registration=registration.id, reason=reason)
        self._audit.record(record)


def _name(registration: RegistrationSettings) -> str:
    return f"{registration.id}:secrets"


def _is_over(secret: ClientSecret, now: float) -> bool:
    return secret.expires is not None and secret.expires <= now


def _faults(secret: ClientSecret, most_days: int | None, now: float) -> Iterator[str]:
    limit = secret.since + most_days * _DAY if most_days is not None and secret.since is not None else None
    for end, over in ((secret.expires, "expired"), (limit, "is too old")):
        days = (end - now) / _DAY if end is not None else SOON_SECONDS
        if days <= 0:
            yield f"{over} {-days:.0f} days ago" if over == "expired" else f"{over} since {-days:.0f} days"
        elif days * _DAY < SOON_SECONDS:
            yield f"{'expires' if over == 'expired' else over} in {days:.0f} days"
