"""The key of the broker's own id_tokens: private part sealed, public part at `/oauth/jwks` (ID-04, ID-05)."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from joserfc import jwt
from joserfc.jwk import RSAKey
from redis.asyncio import Redis

from broker.keys.sealed import create_once
from broker.single_flight import SingleFlight
from broker.vault import Vault

ALGORITHM: Final = "RS256"
"""The one that every OpenID Connect client knows (OIDC Core §15.1)."""
NAME: Final = "id_token"
_RSA_BITS: Final = 3072


class IdentityKey:
    """Signs what apps may believe about the person who signed in."""

    def __init__(self, redis: Redis, vault: Vault, *, tenant: str) -> None:
        self._redis = redis
        self._vault = vault
        self._tenant = tenant
        self._loaded: RSAKey | None = None
        self._loading: SingleFlight[RSAKey] = SingleFlight()

    async def sign(self, claims: Mapping[str, Any], *, typ: str = "JWT") -> str:
        """Return the JWT. Raises `StoreUnavailable`, `SealBroken`, `KeyUnavailable`."""
        key = await self._load()
        return jwt.encode({"typ": typ, "alg": ALGORITHM, "kid": key.kid}, dict(claims), key, algorithms=[ALGORITHM])

    async def public_jwks(self) -> dict[str, Any]:
        """Return the JWK Set: a bare key, public members only, `kid` the RFC 7638 thumbprint (OA-11)."""
        return {"keys": [await self.public_jwk()]}

    async def public_jwk(self) -> dict[str, Any]:
        """Return its one key."""
        key = await self._load()
        return {**key.as_dict(private=False), "use": "sig", "alg": ALGORITHM}

    async def for_once(self) -> "IdentityKey":
        """Return a key that is kept nowhere, for a statement when this one is gone."""
        other = IdentityKey(self._redis, self._vault, tenant=self._tenant)
        other._loaded = RSAKey.import_key(await _generate())  # of its own kind
        other._loaded.ensure_kid()  # as above
        return other

    async def _load(self) -> RSAKey:
        if self._loaded is None:
            self._loaded = await self._loading.run(NAME, self._create_once)
        return self._loaded

    async def _create_once(self) -> RSAKey:
        key = RSAKey.import_key(
            await create_once(self._redis, self._vault, tenant=self._tenant, name=NAME, make=_generate)
        )
        key.ensure_kid()
        return key


async def _generate() -> bytes:
    key = await asyncio.to_thread(RSAKey.generate_key, _RSA_BITS, private=True)
    return key.as_pem(private=True)
