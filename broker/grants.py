"""Grants: what an EHR authorized. Terms and tokens are sealed apart: reading a grant opens no token."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, cast

from redis.asyncio import Redis

from broker.clock import Clock
from broker.errors import NotFound, ReauthorizationRequired
from broker.scopes import Scopes
from broker.secret import Secret
from broker.store import keys
from broker.store.connection import Script, store_errors
from broker.store.scripts import script
from broker.vault import RecordContext, Vault

GrantState = Literal["active", "uncertain", "needs_reauth", "revoked"]
Commit = Literal["ok", "stale", "gone", "revoked", "fenced"]

RETENTION_SECONDS: Final = 180 * 86_400
"""A refreshable grant that nobody uses is forgotten after this; each refresh starts it anew (RF-13)."""
REVOKED_RETENTION_SECONDS: Final = 30 * 86_400
"""A revoked grant's state is kept this long as evidence; its tokens are deleted at once."""
SHORT_RETENTION_SECONDS: Final = 86_400
"""A grant without refresh token is of no use after its access token's end; it is kept a day for the operator."""


@dataclass(frozen=True, slots=True)
class LaunchContext:
    """What the EHR said about the session (spec §6). It identifies a person, so it is only ever kept sealed."""

    patient: str | None = None
    encounter: str | None = None
    fhir_user: str | None = None
    """Absolute URL, or relative to the EHR's FHIR base (ID-06)."""
    need_patient_banner: bool | None = None
    smart_style_url: str | None = None
    tenant: str | None = None
    intent: str | None = None
    fhir_context: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """The limits of a grant. They travel inside the seal, so no other record can widen them."""

    ehr: str
    fhir_base: str
    registration: str
    flow: Literal["launch", "backend"]
    app: str | None
    """None for a backend grant, which apps share by policy."""
    scopes: Scopes
    context: LaunchContext = field(default_factory=LaunchContext, repr=False)


@dataclass(frozen=True, slots=True)
class TokenSet:
    """What the EHR issued."""

    access_token: Secret
    refresh_token: Secret | None
    renew_at: float
    """When to ask for the next one, in seconds; a little before `expires_at`."""
    expires_at: float

    def most_lasting(self) -> tuple[Secret, str]:
        """Return the token whose revocation ends the most, and its `token_type_hint` (RFC 7009 §2.1)."""
        if self.refresh_token is not None:
            return self.refresh_token, "refresh_token"
        return self.access_token, "access_token"


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant as read: its tokens stay sealed."""

    tag: str
    terms: Terms
    state: GrantState
    generation: int
    created_at: float
    since: float
    renew_at: float
    expires_at: float
    refreshable: bool
    cause: str | None
    sealed_tokens: bytes | None = field(repr=False)

    def require_usable(self) -> None:
        """Raises `ReauthorizationRequired` unless the grant is active."""
        if self.state != "active":
            raise ReauthorizationRequired(f"grant {self.tag} is {self.state}: {self.cause}")


class Grants:
    """Reads and writes grants."""

    def __init__(self, redis: Redis, vault: Vault, *, tenant: str, clock: Clock) -> None:
        self._redis = redis
        self._vault = vault
        self._tenant = tenant
        self._clock = clock
        self._commit: Script = script("commit_grant")
        self._end: Script = script("end_grant")

    async def create(self, tag: str, terms: Terms, tokens: TokenSet) -> Grant:
        """Store a new grant under a tag nobody has used."""
        outcome = await self.commit(tag, terms, tokens, generation=0, owner="")
        if outcome != "ok":
            raise RuntimeError(f"a new grant's random tag was taken: {outcome}")
        return await self.read(tag)

    async def commit(self, tag: str, terms: Terms, tokens: TokenSet, *, generation: int, owner: str) -> Commit:
        """Write the next generation over `generation` (0: the first one), if no attempt but `owner`'s began since."""
        now, following = self._clock(), generation + 1
        refreshable = tokens.refresh_token is not None or terms.flow == "backend"
        fields: dict[str, str | bytes] = {
            "v": "1",
            "state": "active",
            "generation": str(following),
            "renew_at": repr(tokens.renew_at),
            "expires_at": repr(tokens.expires_at),
            "refreshable": "1" if refreshable else "0",
            "since": repr(now),
            "terms": await self._vault.seal(self._bound("terms", tag, following), _dump_terms(terms)),
            "tokens": await self._vault.seal(self._bound("tokens", tag, following), _dump_tokens(tokens)),
        }
        if generation == 0:
            fields["created_at"] = repr(now)
        keep = RETENTION_SECONDS if tokens.refresh_token else SHORT_RETENTION_SECONDS + max(0, tokens.expires_at - now)
        with store_errors():
            outcome: bytes = await self._commit(
                self._redis,
                [keys.grant(tag), keys.lease(tag)],
                [generation, owner, int(keep * 1000), *(part for pair in fields.items() for part in pair)],
            )
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
        terms = await self._vault.open(self._bound("terms", tag, generation), fields[b"terms"])
        return Grant(
            tag=tag,
            terms=_load_terms(terms),
            state=fields[b"state"].decode(),  # type: ignore[arg-type]  # only the scripts write it
            generation=generation,
            created_at=float(fields[b"created_at"]),
            since=float(fields[b"since"]),
            renew_at=float(fields[b"renew_at"]),
            expires_at=float(fields[b"expires_at"]),
            refreshable=fields[b"refreshable"] == b"1",
            cause=fields[b"cause"].decode() if b"cause" in fields else None,
            sealed_tokens=fields.get(b"tokens"),
        )

    async def open_tokens(self, grant: Grant) -> TokenSet:
        """Open the token set. For the refresh room alone: everyone else asks it, with a permit."""
        if grant.sealed_tokens is None:
            raise ReauthorizationRequired(f"grant {grant.tag} is {grant.state} and has no tokens")
        bound_to = self._bound("tokens", grant.tag, grant.generation)
        return _load_tokens(await self._vault.open(bound_to, grant.sealed_tokens))

    async def end(self, tag: str, state: GrantState, cause: str, *, generation: int | None = None) -> str:
        """Move to a final state; with `generation`, only if it still is that one. Returns what the script said."""
        with store_errors():
            outcome: bytes = await self._end(
                self._redis,
                [keys.grant(tag), keys.handles(tag), keys.lease(tag)],
                [
                    state,
                    cause,
                    repr(self._clock()),
                    REVOKED_RETENTION_SECONDS * 1000,
                    "" if generation is None else generation,
                ],
            )
        return outcome.decode()

    async def tags(self) -> AsyncIterator[str]:
        """Go through the tags of all grants, in no order; for the command line, not for the hot path."""
        with store_errors():
            async for key in self._redis.scan_iter(match=keys.ANY_GRANT, count=500):
                yield key.decode().partition("{")[2].partition("}")[0]

    def _bound(self, part: str, tag: str, generation: int) -> RecordContext:
        return RecordContext(kind=f"grant-{part}", id=tag, tenant=self._tenant, generation=generation)


def _dump_terms(terms: Terms) -> bytes:
    flat = {name: getattr(terms, name) for name in ("ehr", "fhir_base", "registration", "flow", "app")}
    return json.dumps({**flat, "scopes": str(terms.scopes), "context": asdict(terms.context)}).encode()


def _load_terms(text: bytes) -> Terms:
    fields = json.loads(text)
    context = fields.pop("context")
    context["fhir_context"] = tuple(context["fhir_context"])
    return Terms(**{**fields, "scopes": Scopes.parse(fields["scopes"]), "context": LaunchContext(**context)})


def _dump_tokens(tokens: TokenSet) -> bytes:
    refresh = tokens.refresh_token
    return json.dumps(
        {
            "access_token": tokens.access_token.reveal(),
            "refresh_token": refresh.reveal() if refresh else None,
            "renew_at": tokens.renew_at,
            "expires_at": tokens.expires_at,
        }
    ).encode()


def _load_tokens(text: bytes) -> TokenSet:
    fields = json.loads(text)
    refresh = fields["refresh_token"]
    return TokenSet(
        access_token=Secret(fields["access_token"]),
        refresh_token=Secret(refresh) if refresh else None,
        renew_at=fields["renew_at"],
        expires_at=fields["expires_at"],
    )
