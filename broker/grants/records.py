"""Grants in the store: read, written generation by generation, ended."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol, cast

import structlog
from redis.asyncio import Redis

from broker.clock import Clock, system_entropy
from broker.errors import NotFound, ReauthorizationRequired, StoreUnacknowledged
from broker.grants.record import Grant, GrantState, Terms, TokenSet, Trouble
from broker.grants.sealing import dump_terms, dump_tokens, load_terms, load_tokens
from broker.grants.untold import Untold
from broker.remembered import Remembered
from broker.store import keys
from broker.store.connection import Script, store_errors
from broker.store.scripts import script
from broker.vault import RecordContext, Vault

log = structlog.get_logger()

Commit = Literal["ok", "stale", "gone", "revoked", "fenced"]

_TRIES: Final = 3
REMEMBERED: Final = 4096
"""How many grants' terms a process need not open again, as long as the store still gives the very same record."""
RETENTION_SECONDS: Final = 180 * 86_400
"""A refreshable grant that nobody uses is forgotten after this; each refresh starts it anew (RF-13)."""
REVOKED_RETENTION_SECONDS: Final = 30 * 86_400
"""A revoked or suspended grant's state is kept this long as evidence; its tokens are deleted at once."""
SHORT_RETENTION_SECONDS: Final = 86_400
"""A grant without refresh token is of no use after its access token's end; it is kept a day for the operator."""


@dataclass(frozen=True, slots=True)
class SealedGeneration:
    """A generation that is ready to be written, and the grant as it is then."""

    grant: Grant
    fields: Mapping[str, str | bytes] = field(repr=False)
    """All of its hash but the tokens."""
    lives: int
    """Milliseconds."""


class Doubts(Protocol):
    """Who knows whether the store has gone back in time."""

    def of(self, grant: Grant) -> str | None:
        """Return why an active grant may be older than it was; None where nothing speaks for that. Pure."""
        ...

    def tell(self, grant: Grant, cause: str) -> None:
        """Record that it is not believed, before it is made uncertain. Raises `AuditUnavailable`."""
        ...


class Grants:
    """Reads and writes grants."""

    def __init__(
        self,
        redis: Redis,
        vault: Vault,
        *,
        tenant: str,
        clock: Clock,
        doubts: Doubts | None = None,
        untold: Untold | None = None,
    ) -> None:
        self.untold = untold or Untold(redis, clock, system_entropy, heard=False)
        """Where scripts that change a grant's health leave their marks."""
        self._redis = redis
        self._terms: Remembered[tuple[str, int, bytes], Terms] = Remembered(REMEMBERED)
        self._doubts = doubts
        self._vault = vault
        self._tenant = tenant
        self._clock = clock
        self._commit: Script = script("commit_grant")
        self._end: Script = script("end_grant")
        self._use: Script = script("use_grant")

    async def create(self, tag: str, terms: Terms, tokens: TokenSet) -> Grant:
        """Store a new grant under a tag nobody has used."""
        now = self._clock()
        first = await self.seal(tag, terms, tokens, generation=1, created_at=now, used_at=now)
        if (outcome := await self.commit(first, owner="")) != "ok":
            raise RuntimeError(f"a new grant's random tag was taken: {outcome}")
        return first.grant

    async def ready(self, ehr: str) -> None:
        """See to it that what comes back from an EHR can be sealed, whatever becomes of the KMS meanwhile.

        Raises `KeyUnavailable`, `StoreUnavailable`, `SealBroken`.
        """
        await self._vault.ready(ehr)

    async def seal(
        self,
        tag: str,
        terms: Terms,
        tokens: TokenSet,
        *,
        generation: int,
        created_at: float,
        used_at: float,
        hold_until: float = 0.0,
    ) -> SealedGeneration:
        """Prepare a generation: what has been sealed can be written, and written again, without a key."""
        now = self._clock()
        lasting = tokens.refresh_token is not None or tokens.dynamic_client is not None
        refreshable = lasting or terms.flow == "backend"
        sealed = await self._vault.seal(self._bound("tokens", tag, generation), dump_tokens(tokens), ehr=terms.ehr)
        fields: dict[str, str | bytes] = {
            "v": "2",
            "state": "active",
            "generation": str(generation),
            "life": _pack_life(tokens, refreshable=refreshable),
            "since": repr(now),
            "hold_until": repr(hold_until),
            "terms": await self._vault.seal(self._bound("terms", tag, generation), dump_terms(terms), ehr=terms.ehr),
        }
        if generation == 1:
            fields |= {"created_at": repr(created_at), "used_at": repr(used_at)}
        keep = RETENTION_SECONDS if lasting else SHORT_RETENTION_SECONDS + max(0, tokens.expires_at - now)
        grant = Grant(
            tag=tag,
            terms=terms,
            state="active",
            generation=generation,
            created_at=created_at,
            since=now,
            renew_at=tokens.renew_at,
            expires_at=tokens.expires_at,
            refreshable=refreshable,
            cause=None,
            sealed_tokens=sealed,
            hold_until=hold_until,
            used_at=used_at,
            expected_end=tokens.expected_end,
        )
        return SealedGeneration(grant, fields, int(keep * 1000))

    async def commit(self, following: SealedGeneration, *, owner: str) -> Commit:
        """Write a generation over the one before, if no attempt but `owner`'s began since; the first if there is none.

        It counts once the store's policy is met (`BROKER_REDIS_DURABILITY`). Written again, it changes nothing. Where
        nobody acknowledges a refresh after three times, it counts all the same: what is written there is all there is.
        """
        for left in range(_TRIES if owner else 1, 0, -1):
            try:
                return await self._write(following, owner)
            except StoreUnacknowledged:
                if not owner:
                    raise
                log.warning("refresh_not_acknowledged", grant=following.grant.tag, tries_left=left - 1)
        return "ok"

    async def _write(self, following: SealedGeneration, owner: str) -> Commit:
        grant = following.grant
        outcome: bytes = await self._commit(
            self._redis,
            [keys.grant(grant.tag), keys.lease(grant.tag), keys.untold(grant.tag)],
            [
                grant.generation - 1,
                owner,
                following.lives,
                grant.sealed_tokens or b"",
                *self.untold.mark(),
                *(part for pair in following.fields.items() for part in pair),
            ],
            durable=True,
        )
        if outcome == b"news":
            self.untold.hint(grant.tag)
            return "ok"
        return outcome.decode()  # type: ignore[return-value]  # the script answers with these words only

    async def read(self, tag: str) -> Grant:
        """Raises `NotFound`."""
        with store_errors():
            fields = cast("dict[bytes, bytes]", await self._redis.hgetall(keys.grant(tag)))
        return await self.unpack(tag, fields)

    async def unpack(self, tag: str, fields: Mapping[bytes, bytes]) -> Grant:
        """Build a grant from its hash, as read by whoever could read it in one go with something else."""
        if not fields:
            raise NotFound(f"no grant {tag}", public="There is no grant of that name.")
        generation = int(fields[b"generation"])
        renew_at, expires_at, expected_end, refreshable = fields[b"life"].split()
        grant = Grant(
            tag=tag,
            terms=await self._open_terms(tag, generation, fields[b"terms"]),
            state=fields[b"state"].decode(),  # type: ignore[arg-type]  # only the scripts write it
            generation=generation,
            created_at=float(fields[b"created_at"]),
            since=float(fields[b"since"]),
            renew_at=float(renew_at),
            expires_at=float(expires_at),
            refreshable=refreshable == b"1",
            cause=fields[b"cause"].decode() if b"cause" in fields else None,
            sealed_tokens=fields.get(b"tokens"),
            hold_until=float(fields[b"hold_until"]),
            used_at=float(fields[b"used_at"]),
            expected_end=float(expected_end) or None,
            serves=self._clock() < float(expires_at),
            attempted_by=fields[b"intent"].decode() if b"intent" in fields else None,
            trouble=Trouble.read(fields[b"trouble"].decode()) if b"trouble" in fields else None,
            told=fields[b"told"].decode() if b"told" in fields else None,
            reauthorized_at=float(fields[b"reauthorized_at"]) if b"reauthorized_at" in fields else None,
        )
        cause = self._doubts.of(grant) if self._doubts is not None else None
        return grant if cause is None else await self._doubted(grant, cause)

    async def _open_terms(self, tag: str, generation: int, sealed: bytes) -> Terms:
        place = (tag, generation, sealed)
        if (known := self._terms.get(place)) is not None:
            return known
        opened = await self._vault.open(self._bound("terms", tag, generation), sealed)
        return self._terms.keep(place, load_terms(opened))

    async def _doubted(self, grant: Grant, cause: str) -> Grant:
        """Make a grant uncertain whose refresh token may have been replaced; unless it was merely read too late."""
        with store_errors():
            found = cast("bytes | None", await self._redis.hget(keys.grant(grant.tag), "generation"))
        if found is None or int(found) != grant.generation or self._doubts is None:
            return grant
        self._doubts.tell(grant, cause)
        await self.end(grant.tag, "uncertain", cause, generation=grant.generation)
        return replace(grant, state="uncertain", cause=cause)

    async def open_tokens(self, grant: Grant) -> TokenSet:
        """Open the token set. For the refresh room alone: everyone else asks it, with a permit."""
        if grant.sealed_tokens is None:
            raise ReauthorizationRequired(f"grant {grant.tag} is {grant.state} and has no tokens")
        bound_to = self._bound("tokens", grant.tag, grant.generation)
        return load_tokens(await self._vault.open(bound_to, grant.sealed_tokens))

    async def use(self, tag: str) -> None:
        """Write down that an app uses the grant now (RF-13)."""
        with store_errors():
            await self._use(self._redis, [keys.grant(tag)], [repr(self._clock())])

    async def end(self, tag: str, state: GrantState, cause: str, *, generation: int | None = None) -> str:
        """Move to a final state; with `generation`, only if it still is that one. Returns what the script said."""
        with store_errors():
            outcome: bytes = await self._end(
                self._redis,
                [keys.grant(tag), keys.handles(tag), keys.lease(tag), keys.untold(tag)],
                [
                    state,
                    cause,
                    repr(self._clock()),
                    REVOKED_RETENTION_SECONDS * 1000,
                    "" if generation is None else generation,
                    *self.untold.mark(),
                ],
            )
        if outcome == b"ok":
            self.untold.hint(tag)
        return outcome.decode()

    async def tags(self) -> AsyncIterator[str]:
        """Go through the tags of all grants, in no order; for the command line, not for the hot path."""
        with store_errors():
            async for key in self._redis.scan_iter(match=keys.ANY_GRANT, count=500):
                yield key.decode().partition("{")[2].partition("}")[0]

    def _bound(self, part: str, tag: str, generation: int) -> RecordContext:
        return RecordContext(kind=f"grant-{part}", id=tag, tenant=self._tenant, generation=generation)


def _pack_life(tokens: TokenSet, *, refreshable: bool) -> str:
    """Write into one field what no script asks for: each field of a hash takes some 70 bytes beside what it holds."""
    return f"{tokens.renew_at!r} {tokens.expires_at!r} {tokens.expected_end or 0.0!r} {refreshable:d}"


def restored_fields(fields: Mapping[bytes, bytes], cause: str) -> dict[bytes, bytes] | None:
    """Return a grant's hash as it comes back from a backup; None where it would be of no use. Pure.

    One that was active is uncertain, and its access token at its end, so that nothing of it is used unasked.
    """
    *_, expected_end, refreshable = fields[b"life"].split()
    if refreshable != b"1":
        return None
    if fields[b"state"] != b"active":
        return dict(fields)
    ended = {b"life": b" ".join((b"0.0", b"0.0", expected_end, refreshable)), b"hold_until": b"0.0"}
    return {**fields, **ended, b"state": b"uncertain", b"cause": cause.encode()}
