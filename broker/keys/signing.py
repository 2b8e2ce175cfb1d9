"""Signing keys for `private_key_jwt` at EHRs: private part sealed, public part published (RG-03…RG-08)."""

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from joserfc.jwk import ECKey, RSAKey
from redis.asyncio import Redis

from broker.clock import Clock
from broker.egress import ClientCertificate
from broker.ehr.client_auth import (
    Authenticate,
    assertion_audience,
    client_secret_basic,
    client_secret_post,
    mtls_aliases,
    mutual_tls,
    private_key_jwt,
    public,
)
from broker.ehr.endpoints import Endpoints
from broker.errors import KeyUnavailable
from broker.keys.certificate import certificate_jwk
from broker.keys.sealed import create_once
from broker.profiles import Profile
from broker.settings import RegistrationSettings
from broker.single_flight import SingleFlight
from broker.vault import Vault

Algorithm = Literal["ES384", "RS384"]
_RSA_BITS = 3072


class SigningKeys:
    """Loads keys and proves the broker's identity with them."""

    def __init__(self, redis: Redis, vault: Vault, *, tenant: str, public_url: str, clock: Clock) -> None:
        self._redis = redis
        self._vault = vault
        self._tenant = tenant
        self._public_url = public_url
        self._clock = clock
        self._loaded: dict[str, ECKey | RSAKey] = {}
        self._loading: SingleFlight[ECKey | RSAKey] = SingleFlight()

    async def authenticate(
        self, registration: RegistrationSettings, profile: Profile, endpoints: Endpoints
    ) -> Authenticate:
        """Return how this registration authenticates at an EHR of that profile (Q1, Q2, Q3)."""
        authenticate = await self._authenticate(registration, profile, endpoints)
        return replace(authenticate, named=profile.client_id_in_body)

    async def _authenticate(
        self, registration: RegistrationSettings, profile: Profile, endpoints: Endpoints
    ) -> Authenticate:
        client_id, secret = registration.client_id, registration.client_secret
        if registration.authentication == "none":
            return public(client_id)
        if registration.certificate is not None and registration.certificate_key is not None:
            identity = ClientCertificate(registration.certificate, registration.certificate_key)
            return mutual_tls(client_id, identity, mtls_aliases(endpoints))
        if secret is not None and registration.authentication == "client_secret_post":
            return client_secret_post(client_id, secret)
        if secret is not None:
            return client_secret_basic(client_id, secret, encoding=profile.basic_encoding)
        return private_key_jwt(
            client_id,
            await self.load(registration),
            registration.signing_algorithm,
            self._clock,
            audience=assertion_audience(profile.assertion_audience, endpoints),
            jku=self.jwks_uri(registration) if registration.send_jku else None,
        )

    def jwks_uri(self, registration: RegistrationSettings) -> str:
        """Return where the registration's public keys are published; it is what the EHR has on file (RG-03)."""
        return f"{self._public_url}/jwks/{registration.id}"

    async def load(self, registration: RegistrationSettings) -> ECKey | RSAKey:
        """Return the registration's key, making it the first time any replica asks."""
        name = f"{registration.id}:{registration.signing_algorithm}"
        if name not in self._loaded:
            ehr = registration.ehr[0] if len(registration.ehr) == 1 else ""
            algorithm = registration.signing_algorithm
            self._loaded[name] = await self._loading.run(name, lambda: self._load(name, algorithm, ehr))
        return self._loaded[name]

    async def _load(self, name: str, algorithm: Algorithm, ehr: str) -> ECKey | RSAKey:
        make = partial(asyncio.to_thread, _generate, algorithm)
        pem = await create_once(self._redis, self._vault, tenant=self._tenant, name=name, make=make, ehr=ehr)
        key = (ECKey if algorithm == "ES384" else RSAKey).import_key(pem)
        key.ensure_kid()
        return key

    async def public_jwks(self, registration: RegistrationSettings) -> dict[str, Any]:
        """Return the JWK Set to publish: public members only, `kid` the RFC 7638 thumbprint (RG-06, OA-11).

        Raises `KeyUnavailable`, and what `load` raises.
        """
        if registration.authentication == "self_signed_tls_client_auth" and registration.certificate is not None:
            return {"keys": [await asyncio.to_thread(_certificate_jwk, registration.certificate)]}
        if registration.authentication != "private_key_jwt":
            return {"keys": []}
        key = await self.load(registration)
        return {"keys": [{**key.as_dict(private=False), "use": "sig", "alg": registration.signing_algorithm}]}


def _certificate_jwk(path: Path) -> dict[str, Any]:
    try:
        return certificate_jwk(path.read_bytes())
    except (OSError, ValueError) as error:
        raise KeyUnavailable(f"the client certificate cannot be read ({type(error).__name__})") from None


def _generate(algorithm: Algorithm) -> bytes:
    if algorithm == "ES384":
        return ECKey.generate_key("P-384", private=True).as_pem(private=True)
    return RSAKey.generate_key(_RSA_BITS, private=True).as_pem(private=True)
