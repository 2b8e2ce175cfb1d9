"""The public keys of EHRs' OpenID Providers: fetched when needed, kept for a while, again for an unknown one."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from broker.clock import Clock
from broker.egress import Egress
from broker.ehr.endpoints import parse_json_object
from broker.errors import EhrAnswerLost, EhrMisbehaved, EhrUnreachable

KEPT_SECONDS: Final = 3600.0
AGAIN_SECONDS: Final = 60.0
"""A key set is not fetched more often than this because of a `kid` that it lacks: anybody can make one up."""
MOST_SETS: Final = 256
_TIMEOUT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Kept:
    keys: KeySet
    fetched_at: float


class IssuerKeys:
    """Key sets by their address."""

    def __init__(self, egress: Egress, clock: Clock) -> None:
        self._egress = egress
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    async def find(self, jwks_uri: str, key_id: str | None) -> KeySet:
        """Return the key set; with `key_id` if the issuer publishes it. Raises `EhrMisbehaved`, `EhrUnreachable`."""
        kept, now = self._kept.get(jwks_uri), self._clock()
        if kept is None or now >= kept.fetched_at + (KEPT_SECONDS if _holds(kept.keys, key_id) else AGAIN_SECONDS):
            kept = _Kept(await self._fetch(jwks_uri), now)
            self._kept[jwks_uri] = kept
        self._kept.move_to_end(jwks_uri)
        if len(self._kept) > MOST_SETS:
            self._kept.popitem(last=False)
        return kept.keys

    async def _fetch(self, jwks_uri: str) -> KeySet:
        try:
            answer = await self._egress.fetch(
                "GET", jwks_uri, headers={"Accept": "application/json"}, timeout=_TIMEOUT_SECONDS
            )
        except EhrAnswerLost as lost:  # a GET can be sent again; it must not be taken for a lost token answer (RF-05)
            raise EhrUnreachable(f"key set: {lost.detail}") from None
        return parse_jwks(parse_json_object(answer.body) if answer.status == 200 else None)


def parse_jwks(document: Mapping[str, Any] | None) -> KeySet:
    """Read a JWK Set; symmetric and unreadable keys are left out. Raises `EhrMisbehaved` if none is left."""
    keys = document.get("keys") if document else None
    usable = []
    for key in keys if isinstance(keys, list) else []:
        if isinstance(key, dict) and key.get("kty") in {"RSA", "EC"}:
            try:
                usable += KeySet.import_key_set({"keys": [key]}).keys
            except (JoseError, ValueError, TypeError, KeyError):
                continue
    if not usable:
        raise EhrMisbehaved("the JWK Set has no usable key (ID-02)")
    return KeySet(usable)


def _holds(keys: KeySet, key_id: str | None) -> bool:
    return key_id is None or any(key.kid == key_id for key in keys.keys)
