"""Signing keys for `private_key_jwt` at EHRs: private part sealed, public part published (RG-03…RG-08)."""

import asyncio
from functools import partial
from typing import Any, Literal

from joserfc.jwk import ECKey, RSAKey
from redis.asyncio import Redis

from broker.clock import Clock
from broker.ehr.client_auth import Authenticate, client_secret_basic, private_key_jwt, public
from broker.keys.sealed import create_once
from broker.settings import RegistrationSettings
from broker.single_flight import SingleFlight
from broker.vault import Vault

Algorithm = Literal["ES384", "RS384"]
_RSA_BITS = 3072


class SigningKeys:
    """Loads keys and proves the broker's identity with them."""

    def __init__(self, redis: Redis, vault: Vault, *, tenant: str, clock: Clock) -> None:
        self._redis = redis
        self._vault = vault
        self._tenant = tenant
        self._clock = clock
        self._loaded: dict[str, ECKey | RSAKey] = {}
        self._loading: SingleFlight[ECKey | RSAKey] = SingleFlight()

    async def authenticate(self, registration: RegistrationSettings) -> Authenticate:
        """Return how this registration authenticates at its EHR's token endpoint."""
        if registration.authentication == "none":
            return public(registration.client_id)
        if registration.client_secret is not None:
            return client_secret_basic(registration.client_id, registration.client_secret)
        key = await self.load(registration)
        return private_key_jwt(registration.client_id, key, registration.signing_algorithm, self._clock)

    async def load(self, registration: RegistrationSettings) -> ECKey | RSAKey:
        """Return the registration's key, making it the first time any replica asks."""
        name = f"{registration.id}:{registration.signing_algorithm}"
        if name not in self._loaded:
            self._loaded[name] = await self._loading.run(name, lambda: self._load(name, registration.signing_algorithm))
        return self._loaded[name]

    async def _load(self, name: str, algorithm: Algorithm) -> ECKey | RSAKey:
        make = partial(asyncio.to_thread, _generate, algorithm)
        pem = await create_once(self._redis, self._vault, tenant=self._tenant, name=name, make=make)
        key = (ECKey if algorithm == "ES384" else RSAKey).import_key(pem)
        key.ensure_kid()
        return key

    async def public_jwks(self, registration: RegistrationSettings) -> dict[str, Any]:
        """Return the JWK Set to publish: public members only, `kid` the RFC 7638 thumbprint (RG-06, OA-11)."""
        if registration.authentication != "private_key_jwt":
            return {"keys": []}
        key = await self.load(registration)
        return {"keys": [{**key.as_dict(private=False), "use": "sig", "alg": registration.signing_algorithm}]}


def _generate(algorithm: Algorithm) -> bytes:
    if algorithm == "ES384":
        return ECKey.generate_key("P-384", private=True).as_pem(private=True)
    return RSAKey.generate_key(_RSA_BITS, private=True).as_pem(private=True)
