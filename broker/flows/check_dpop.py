"""An app proves that it holds a key: to have a handle bound to it, to use it, and to ask about it (HB-03).

What a proof must be is in `broker/dpop.py`. Here it is shown to be fresh: used once, on whichever replica, and with the
broker's own nonce where `dpop_nonce` demands one (RFC 9449 §8, §9, §11.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from broker.apps import App
from broker.clock import Clock
from broker.credentials import KeyedHash
from broker.dpop import WINDOW_SECONDS, DpopProof, Nonces, verify
from broker.errors import InvalidDpopProof, UseDpopNonce
from broker.store import keys
from broker.store.connection import store_errors

TOKEN_ENDPOINT: Final = "/oauth/token"  # noqa: S105  # a path
INTROSPECTION_ENDPOINT: Final = "/oauth/introspect"
NONCE_HEADER: Final = "dpop-nonce"


@dataclass(frozen=True, slots=True)
class CheckDpop:
    """Checks proofs. Every failure says what is wrong in the audit record, and one thing outside."""

    redis: Redis
    keyed_hash: KeyedHash
    public_url: str
    nonces: Nonces | None
    """None where no nonce is demanded."""
    clock: Clock

    async def at_token_endpoint(self, app: App, proofs: Sequence[str]) -> str | None:
        """Return the thumbprint of the key to bind to; None without a proof, where the app may do without.

        Raises `InvalidDpopProof`, `StoreUnavailable`.
        """
        if not proofs and app.settings.dpop != "required":
            return None
        return await self._used_up(proofs, TOKEN_ENDPOINT)

    async def at_introspection(self, app: App, proofs: Sequence[str]) -> str | None:
        """Return the thumbprint of the key that a public app proves; None without a proof.

        Of an app that authenticates no key is asked. Raises `InvalidDpopProof`, `StoreUnavailable`.
        """
        asked = proofs and app.settings.authentication == "none"
        return await self._used_up(proofs, INTROSPECTION_ENDPOINT) if asked else None

    async def _used_up(self, proofs: Sequence[str], path: str) -> str:
        proof = self._checked(proofs, "POST", path, None)
        mark = keys.replay(self.keyed_hash("dpop", f"{proof.jkt}\0{proof.jti}"))
        with store_errors():
            fresh = await self.redis.set(mark, "1", nx=True, px=2 * WINDOW_SECONDS * 1000)
        if not fresh:
            raise InvalidDpopProof("the proof was used before")
        return proof.jkt

    def at_fhir(self, proofs: Sequence[str] | None, *, method: str, path: str, handle: str) -> DpopProof | None:
        """Return the proof that came with a handle; None where it was shown as a bearer's.

        That it is used once is seen to where the handle is redeemed. Raises `InvalidDpopProof`.
        """
        return None if proofs is None else self._checked(proofs, method, path, handle)

    def headers(self, proofs: Sequence[str] | None) -> dict[str, str]:
        """Return what tells a client that proves itself the nonce to use next (§8.2)."""
        return {NONCE_HEADER: self.nonces.current(self.clock())} if proofs and self.nonces is not None else {}

    def _checked(self, proofs: Sequence[str], method: str, path: str, token: str | None) -> DpopProof:
        now = self.clock()
        proof = verify(proofs, method=method, url=self.public_url + path, now=now, token=token)
        if self.nonces is not None and not self.nonces.accepts(proof.nonce, now):
            raise UseDpopNonce("the proof has no nonce, or an old one", nonce=self.nonces.current(now))
        return proof
