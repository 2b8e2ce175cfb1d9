"""How a registration proves itself at an EHR: its signing keys, its secrets or its certificate (RG-03…RG-11)."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from joserfc.jwk import ECKey, RSAKey

from broker.clock import Clock
from broker.egress import ClientCertificate
from broker.ehr.client_auth import (
    Authenticate,
    KeyElsewhere,
    OwnKey,
    Signer,
    assertion_audience,
    client_secret_basic,
    client_secret_post,
    mtls_aliases,
    mutual_tls,
    one_of,
    private_key_jwt,
    public,
)
from broker.ehr.endpoints import Endpoints
from broker.errors import KeyUnavailable, Unavailable
from broker.keys.certificate import certificate_jwk
from broker.keys.ring import Ring, RingKey
from broker.keys.rings import Rings
from broker.keys.secrets import ClientSecrets
from broker.kms.signing import RemoteSigning
from broker.secret import Secret
from broker.settings import EhrSettings, RegistrationSettings

log = structlog.get_logger()


class SigningKeys:
    """Proves the broker's identity, with the next credential where an EHR refuses one, and remembers which it took."""

    def __init__(
        self, rings: Rings, remote: RemoteSigning, secrets: ClientSecrets, *, public_url: str, clock: Clock
    ) -> None:
        self._rings = rings
        self._remote = remote
        self._secrets = secrets
        self._public_url = public_url
        self._clock = clock
        self._loaded: dict[str, ECKey | RSAKey] = {}
        self._fetched: Counter[tuple[str, str]] = Counter()
        self._noting: set[asyncio.Task[None]] = set()

    async def authenticate(
        self, registration: RegistrationSettings, ehr: EhrSettings, endpoints: Endpoints
    ) -> Authenticate:
        """Return how this registration authenticates at an EHR (Q1, Q2, Q3). Raises `Unavailable`."""
        authenticate = await self._authenticate(registration, ehr, endpoints)
        return replace(authenticate, named=ehr.profile.client_id_in_body)

    async def _authenticate(
        self, registration: RegistrationSettings, ehr: EhrSettings, endpoints: Endpoints
    ) -> Authenticate:
        client_id = registration.client_id
        if registration.authentication == "none":
            return public(client_id)
        if registration.certificate is not None and registration.certificate_key is not None:
            identity = ClientCertificate(registration.certificate, registration.certificate_key)
            return mutual_tls(client_id, identity, mtls_aliases(endpoints))
        if registration.client_secret:
            return await self._by_secret(registration, ehr)
        return await self._by_key(registration, ehr, endpoints)

    async def _by_secret(self, registration: RegistrationSettings, ehr: EhrSettings) -> Authenticate:
        def authenticate(secret: Secret) -> Authenticate:
            if registration.authentication == "client_secret_post":
                return client_secret_post(registration.client_id, secret)
            return client_secret_basic(registration.client_id, secret, encoding=ehr.profile.basic_encoding)

        kept = await self._secrets.order(registration, ehr.id)
        ways = [replace(authenticate(one.secret), credential=one.id) for one in kept]
        return one_of(ways, partial(self._secrets.heard, registration, ehr.id))

    async def _by_key(self, registration: RegistrationSettings, ehr: EhrSettings, endpoints: Endpoints) -> Authenticate:
        ring = await self._rings.of(registration)
        for key in ring.keys:
            if not key.is_live:
                self._loaded.pop(key.kid, None)
        ways = [self._signing(key, registration, ehr, endpoints) for key in ring.order(ehr.id, self._clock())]
        return one_of(ways, partial(self._heard, registration, ehr.id, ring))

    def _signing(
        self, key: RingKey, registration: RegistrationSettings, ehr: EhrSettings, endpoints: Endpoints
    ) -> Authenticate:
        way = private_key_jwt(
            registration.client_id,
            self._signer(key),
            self._clock,
            kid=key.kid,
            audience=assertion_audience(ehr.profile.assertion_audience, endpoints),
            jku=self.jwks_uri(registration) if registration.send_jku else None,
        )
        return replace(way, credential=key.kid)

    def jwks_uri(self, registration: RegistrationSettings) -> str:
        """Return where the registration's public keys are published; it is what the EHR has on file (RG-03)."""
        return f"{self._public_url}/jwks/{registration.id}"

    async def public_jwks(self, registration: RegistrationSettings) -> dict[str, Any]:
        """Return the JWK Set to publish: public members only, `kid` the RFC 7638 thumbprint (RG-06, OA-11).

        Raises `KeyUnavailable`, `StoreUnavailable`, `SealBroken`.
        """
        if registration.authentication == "self_signed_tls_client_auth" and registration.certificate is not None:
            return {"keys": [await asyncio.to_thread(_certificate_jwk, registration.certificate)]}
        if registration.authentication != "private_key_jwt":
            return {"keys": []}
        ring = await self._rings.of(registration)
        return {"keys": [self._public(key) for key in reversed(ring.live)]}

    async def fetched_jwks(self, registration: RegistrationSettings) -> dict[str, Any]:
        """Return the same to somebody who fetches it, and count that."""
        key_set = await self.public_jwks(registration)
        self._fetched.update((registration.id, key["kid"]) for key in key_set["keys"])
        return key_set

    def take_fetches(self, registration: RegistrationSettings) -> Mapping[str, int]:
        """Return how often each key was fetched from this replica since this was asked last."""
        mine = [place for place in self._fetched if place[0] == registration.id]
        return {kid: self._fetched.pop((owner, kid)) for owner, kid in mine}

    async def close(self) -> None:
        """Wait until what was heard is written."""
        while self._noting:
            await asyncio.wait(self._noting)

    def _public(self, key: RingKey) -> dict[str, Any]:
        return {**self._load(key).as_dict(private=False), "use": "sig", "alg": key.algorithm}

    def _signer(self, key: RingKey) -> Signer:
        if key.reference is not None:
            return KeyElsewhere(partial(self._remote.sign, key.reference), key.algorithm)
        return OwnKey(self._load(key), key.algorithm)

    def _load(self, key: RingKey) -> ECKey | RSAKey:
        if key.kid not in self._loaded:
            pem = key.private.reveal() if key.private is not None else key.public or ""
            loaded = (ECKey if key.algorithm == "ES384" else RSAKey).import_key(pem)
            loaded.ensure_kid()
            self._loaded[key.kid] = loaded
        return self._loaded[key.kid]

    def _heard(
        self, registration: RegistrationSettings, ehr: str, ring: Ring, refused: Sequence[str], accepted: str
    ) -> None:
        """Write news down, in a task of its own: an answer of the EHR does not wait for that."""
        if ring.heard(ehr, refused, accepted, self._clock()) is ring:
            return
        log.info("key_accepted", registration=registration.id, ehr=ehr, kid=accepted, refused=list(refused))
        noting = asyncio.create_task(self._note(registration, ehr, refused, accepted), name="key-heard")
        self._noting.add(noting)
        noting.add_done_callback(self._noting.discard)

    async def _note(self, registration: RegistrationSettings, ehr: str, refused: Sequence[str], accepted: str) -> None:
        try:
            await self._rings.change(registration, lambda ring: ring.heard(ehr, refused, accepted, self._clock()))
        except Unavailable as error:  # the next request tells it again
            log.warning("key_news_lost", registration=registration.id, ehr=ehr, cause=error.detail)


def _certificate_jwk(path: Path) -> dict[str, Any]:
    try:
        return certificate_jwk(path.read_bytes())
    except (OSError, ValueError) as error:
        raise KeyUnavailable(f"the client certificate cannot be read ({type(error).__name__})") from None
