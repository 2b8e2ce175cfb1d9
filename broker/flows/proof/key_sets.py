"""The public keys of apps and issuers: inline, in a file, at a URL, or where an issuer's metadata says (CA-10)."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from joserfc.jwk import Key, KeySet

from broker.clock import Clock
from broker.egress import Answer, Egress
from broker.ehr.documents import find_openid_configuration
from broker.ehr.endpoints import parse_json_object
from broker.ehr.issuer_keys import parse_jwks
from broker.errors import BrokerError, InvalidClient
from broker.single_flight import SingleFlight

CACHE_SECONDS: Final = 300.0
"""Longest that a set is used without asking again; less where its server's Cache-Control says so (CA-10)."""
COOLDOWN_SECONDS: Final = 10.0
"""How long a source is left in peace that failed or was just read, whatever its Cache-Control says: anybody can send
an assertion, and make its `kid` up. For as long a set is used on when it cannot be read again."""
_TIMEOUT_SECONDS: Final = 5.0
_JSON: Final = {"Accept": "application/json"}
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age=\"?([0-9]{1,9})", re.IGNORECASE)
_NEVER_KEPT: Final = re.compile(r"(?:^|[,\s])no-(?:store|cache)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where the keys of an app or issuer are: one of these."""

    name: str
    """Whose keys they are, in details."""
    jwks: Mapping[str, Any] | None = None
    file: Path | None = None
    uri: str | None = None
    issuer: str | None = None
    """Whose openid-configuration names the URL."""
    stale_seconds: float = 0.0
    """How long a set is still used after it should have been read again, while it cannot be; never less than
    `COOLDOWN_SECONDS`, in which nobody asks again."""


@dataclass(frozen=True, slots=True)
class _Kept:
    keys: KeySet
    read_at: float
    fresh_seconds: float

    @property
    def fresh_until(self) -> float:
        return self.read_at + self.fresh_seconds


@dataclass(frozen=True, slots=True)
class KeySets:
    """Finds keys. A set that was good stays until a newer good one replaces it or it is too old."""

    egress: Egress
    clock: Clock
    kept: dict[str, _Kept] = field(default_factory=dict)
    failed: dict[str, float] = field(default_factory=dict)
    """When a source was last asked in vain."""
    flights: SingleFlight[_Kept] = field(default_factory=SingleFlight)

    async def key(self, source: KeySource, kid: str) -> Key:
        """Return the one key of that `kid`; an unknown one may be new: read again. Raises `InvalidClient`."""
        kept = await self._current(source)
        if not _named(kept.keys, kid) and self.clock() >= kept.read_at + COOLDOWN_SECONDS and self._may_ask(source):
            kept = await self._read_again(source, kept)
        found = _named(kept.keys, kid)
        if len(found) != 1:
            several = "more than one key" if found else "no key"
            raise InvalidClient(f"{source.name} has {several} of the assertion's kid (CA-09)")
        return found[0]

    async def _current(self, source: KeySource) -> _Kept:
        kept = self.kept.get(source.name)
        if kept is not None and self.clock() < kept.fresh_until:
            return kept
        stale_seconds = max(source.stale_seconds, COOLDOWN_SECONDS)
        usable = kept if kept is not None and self.clock() < kept.fresh_until + stale_seconds else None
        if not self._may_ask(source):
            if usable is None:
                raise InvalidClient(f"the JWK Set of {source.name} could not be read a moment ago")
            return usable
        return await self._read_again(source, usable)

    def _may_ask(self, source: KeySource) -> bool:
        return self.clock() >= self.failed.get(source.name, float("-inf")) + COOLDOWN_SECONDS

    async def _read_again(self, source: KeySource, usable: _Kept | None) -> _Kept:
        try:
            kept = await self.flights.run(source.name, lambda: self._read(source))
        except BrokerError as error:
            self.failed[source.name] = self.clock()
            if usable is None:
                raise InvalidClient(f"the JWK Set of {source.name} could not be read: {error.detail}") from None
            return usable
        self.kept[source.name] = kept
        return kept

    async def _read(self, source: KeySource) -> _Kept:
        if source.jwks is not None:
            return _Kept(_usable(source.jwks), float("inf"), 0.0)  # it changes with a restart only
        if source.file is not None:
            return _Kept(_usable(await asyncio.to_thread(_of_file, source.file)), self.clock(), CACHE_SECONDS)
        answer = await self.egress.fetch(
            "GET", source.uri or await self._discovered(source), headers=_JSON, timeout=_TIMEOUT_SECONDS
        )
        keys = _usable(parse_json_object(answer.body) if answer.status == 200 else None)
        return _Kept(keys, self.clock(), _fresh_seconds(answer))

    async def _discovered(self, source: KeySource) -> str:
        issuer = str(source.issuer)
        document = await find_openid_configuration(self.egress, issuer, place="append", timeout=_TIMEOUT_SECONDS)
        if document.get("issuer") != issuer:
            raise InvalidClient("its openid-configuration names another issuer (OA-17)")
        return str(document.get("jwks_uri") or "")


def _usable(document: Mapping[str, Any] | None) -> KeySet:
    """Read a JWK Set or SPIFFE bundle, of whose keys only those for JWTs count. Raises `EhrMisbehaved`."""
    listed = (document or {}).get("keys")
    keys = [key for key in listed if isinstance(key, dict)] if isinstance(listed, list) else []
    for_jwts = [key for key in keys if key.get("use") in {None, "sig", "jwt-svid"} and _is_long(key)]
    return parse_jwks({"keys": [{name: key[name] for name in key if name != "use"} for key in for_jwts]})


def _is_long(key: Mapping[str, Any]) -> bool:
    """Whether a key is none of RSA, or one of 2048 bits or more (RFC 7518 §3.3)."""
    return key.get("kty") != "RSA" or len(str(key.get("n", ""))) >= 342


def _of_file(path: Path) -> dict[str, Any] | None:
    try:
        return parse_json_object(path.read_bytes())
    except OSError as error:
        raise InvalidClient(f"its file cannot be read (errno {error.errno})") from None


def _fresh_seconds(answer: Answer) -> float:
    control = answer.headers.get("cache-control", "")
    if _NEVER_KEPT.search(control):
        return COOLDOWN_SECONDS
    age = _MAX_AGE.search(control)
    return max(COOLDOWN_SECONDS, min(CACHE_SECONDS, float(age[1]))) if age else CACHE_SECONDS


def _named(keys: KeySet, kid: str) -> list[Key]:
    return [key for key in keys.keys if key.kid == kid]
