import asyncio
import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias, cast

import pytest
from cryptography import x509
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from redis.asyncio import Redis

from broker.audit import AuditTrail
from broker.credentials import KeyedHash
from broker.ehr.endpoints import Endpoints
from broker.errors import KeyUnavailable, SealBroken
from broker.keys.rings import Rings
from broker.keys.sealed import create_once
from broker.keys.sealed_record import SealedRecords
from broker.keys.secrets import ClientSecrets
from broker.keys.signing import SigningKeys
from broker.kms.signing import NoSigning
from broker.secret import Secret
from broker.settings import EhrSettings, RegistrationSettings
from broker.store import keys
from broker.vault import LocalKeyring, RecordContext, Vault
from tests.ehr.certificates import self_signed
from tests.stage.vault import a_vault, domain_keys, report_nothing

TOKEN_ENDPOINT = "https://auth.example/token"
ENDPOINTS = Endpoints(TOKEN_ENDPOINT, issuer="https://auth.example")
NOW = 1_800_000_000.0
Replica: TypeAlias = Callable[[], SigningKeys]


def ehr(**changes: Any) -> EhrSettings:
    return EhrSettings.model_validate({"id": "epic", "fhir_base": "https://ehr.example/r4", **changes})


async def ship(_: object) -> None: ...


@pytest.fixture
async def audit(tmp_path: Path) -> AsyncIterator[AuditTrail]:
    trail = AuditTrail(file=tmp_path / "audit", ship=ship, clock=lambda: NOW)
    await trail.open()
    yield trail
    await trail.close()


@pytest.fixture
def replica(redis: Redis, audit: AuditTrail) -> Callable[[], SigningKeys]:
    def open_replica() -> SigningKeys:
        sealed = SealedRecords(redis, a_vault(redis, tenant="clinic"), "clinic")
        rings = Rings(sealed, NoSigning(), audit, lambda: NOW)
        secrets = ClientSecrets(sealed, KeyedHash(bytes(32)), audit, lambda: NOW)
        return SigningKeys(rings, NoSigning(), secrets, public_url="https://broker.example", clock=lambda: NOW)

    return open_replica


def registration(**changes: Any) -> RegistrationSettings:
    fields = {"id": "epic", "ehr": "epic", "flow": "launch", "client_id": "broker", "scopes": "patient/*.rs", **changes}
    return RegistrationSettings(**fields)


def key(text: bytes) -> Callable[[], Awaitable[bytes]]:
    async def make() -> bytes:
        return text

    return make


async def test_a_key_is_made_once_and_kept(redis: Redis) -> None:
    made: list[bytes] = []

    async def make() -> bytes:
        made.append(b"key %d" % len(made))
        return made[-1]

    asked = [await create_once(redis, a_vault(redis), tenant="t", name="n", make=make) for _ in range(3)]

    assert (asked, made) == ([b"key 0"] * 3, [b"key 0"])


async def test_replicas_that_start_together_agree_on_one_key(redis: Redis) -> None:
    made = iter(range(100))

    async def make() -> bytes:
        return b"key %d" % next(made)

    agreed = await asyncio.gather(
        *(create_once(redis, a_vault(redis), tenant="t", name="n", make=make) for _ in range(20))
    )

    assert len(set(agreed)) == 1


async def test_a_replica_that_comes_second_takes_the_first_ones_key(redis: Redis) -> None:
    """It had found no key when it looked, and must not overwrite the one that was stored meanwhile."""
    sealing, late = asyncio.Event(), asyncio.Event()

    class LateVault(Vault):
        async def seal(self, context: RecordContext, plaintext: bytes, *, ehr: str = "") -> bytes:
            sealing.set()
            await late.wait()
            return await super().seal(context, plaintext, ehr=ehr)

    slow = LateVault(domain_keys(redis), tenant="t", report_broken=report_nothing)
    second = asyncio.create_task(create_once(redis, slow, tenant="t", name="n", make=key(b"second")))
    await sealing.wait()
    assert await create_once(redis, a_vault(redis), tenant="t", name="n", make=key(b"first")) == b"first"
    late.set()

    assert await second == b"first"
    assert await create_once(redis, a_vault(redis), tenant="t", name="n", make=key(b"third")) == b"first"


async def test_a_key_never_expires(redis: Redis) -> None:
    await create_once(redis, a_vault(redis), tenant="t", name="n", make=key(b"key"))

    assert await redis.pttl(keys.sealed_key("n")) == -1


async def test_a_key_stands_in_redis_sealed_only(redis: Redis, replica: Replica) -> None:
    """RG-07, HB-04."""
    await replica().public_jwks(registration())

    (name,) = [name async for name in redis.scan_iter("sb:key:*")]
    stored = cast("bytes", await redis.get(name))
    assert name == b"sb:key:{epic:signing}"
    assert b"PRIVATE" not in stored
    assert b"PRIVATE KEY" in await a_vault(redis, tenant="clinic").open(
        RecordContext("key", "epic:signing", "clinic"), stored
    )


@pytest.mark.parametrize(("tenant", "name"), [("other", "n"), ("t", "m")])
async def test_a_key_of_another_name_or_tenant_does_not_open(redis: Redis, tenant: str, name: str) -> None:
    await create_once(redis, a_vault(redis), tenant="t", name="n", make=key(b"key"))
    await redis.set(keys.sealed_key(name), cast("bytes", await redis.get(keys.sealed_key("n"))))

    with pytest.raises(SealBroken):
        await create_once(redis, a_vault(redis), tenant=tenant, name=name, make=key(b"new"))


async def test_a_wrong_key_encryption_key_does_not_make_a_new_key(redis: Redis) -> None:
    await create_once(redis, a_vault(redis), tenant="t", name="n", make=key(b"key"))

    with pytest.raises(KeyUnavailable):
        await create_once(
            redis, a_vault(redis, LocalKeyring([bytes(range(1, 33))])), tenant="t", name="n", make=key(b"new")
        )


@pytest.mark.parametrize(
    ("algorithm", "public_members"),
    [("ES384", {"kty", "crv", "x", "y"}), ("RS384", {"kty", "n", "e"})],
)
async def test_the_published_key_has_public_members_only(
    replica: Replica, algorithm: str, public_members: set[str]
) -> None:
    """RG-06, OA-11."""
    published = await replica().public_jwks(registration(signing_algorithm=algorithm))

    (key,) = published["keys"]
    assert set(key) == public_members | {"kid", "use", "alg"}
    assert (key["use"], key["alg"]) == ("sig", algorithm)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", key["kid"])


async def test_the_kid_is_the_thumbprint_of_the_key(replica: Replica) -> None:
    """OA-11, RFC 7638."""
    (key,) = (await replica().public_jwks(registration()))["keys"]

    assert key["kid"] == ECKey.import_key({name: key[name] for name in ("kty", "crv", "x", "y")}).thumbprint()


async def test_every_replica_publishes_the_same_key(replica: Replica) -> None:
    published = await asyncio.gather(*(replica().public_jwks(registration()) for _ in range(4)))

    assert all(one == published[0] for one in published)


@pytest.mark.parametrize("algorithm", ["ES384", "RS384"])
async def test_an_assertion_verifies_with_the_published_key(replica: Replica, algorithm: str) -> None:
    """RG-08."""
    signing_keys, backend = replica(), registration(signing_algorithm=algorithm, flow="backend")
    authenticate = await signing_keys.authenticate(backend, ehr(), ENDPOINTS)
    published = KeySet.import_key_set(await signing_keys.public_jwks(backend))  # type: ignore[arg-type]  # plain JSON

    assertion = (await authenticate(TOKEN_ENDPOINT)).fields["client_assertion"]

    assert jwt.decode(assertion, published, algorithms=[algorithm]).claims["aud"] == TOKEN_ENDPOINT


async def test_two_registrations_have_two_keys(replica: Replica) -> None:
    signing_keys = replica()
    one, other = [(await signing_keys.public_jwks(registration(id=name)))["keys"][0] for name in ("epic", "cerner")]

    assert one["kid"] != other["kid"]


@pytest.mark.parametrize(
    ("fields", "headers", "body"),
    [
        ({"authentication": "none"}, {}, {"client_id": "broker"}),
        (
            {"authentication": "client_secret_basic", "client_secret": (Secret("s"),)},
            {"Authorization": "Basic YnJva2VyOnM="},
            {},
        ),
        (
            {"authentication": "client_secret_post", "client_secret": (Secret("s"),)},
            {},
            {"client_id": "broker", "client_secret": "s"},
        ),
    ],
)
async def test_a_registration_without_a_key_makes_and_publishes_none(
    redis: Redis, replica: Replica, fields: dict[str, Any], headers: dict[str, str], body: dict[str, str]
) -> None:
    signing_keys, keyless = replica(), registration(**fields)

    proof = await (await signing_keys.authenticate(keyless, ehr(), ENDPOINTS))(TOKEN_ENDPOINT)

    assert (proof.headers, proof.fields) == (headers, body)
    assert await signing_keys.public_jwks(keyless) == {"keys": []}
    assert [name async for name in redis.scan_iter()] == []


async def test_how_an_assertion_is_made_is_the_profiles_and_the_registrations_to_say(replica: Replica) -> None:
    """CA-03, CA-05, OA-12 (Q2, Q3)."""
    signing_keys, told = replica(), ehr(assertion_audience="issuer", client_id_in_body="always")

    proof = await (await signing_keys.authenticate(registration(send_jku=True), told, ENDPOINTS))(TOKEN_ENDPOINT)

    published = KeySet.import_key_set(await signing_keys.public_jwks(registration()))  # type: ignore[arg-type]  # JSON
    decoded = jwt.decode(proof.fields["client_assertion"], published, algorithms=["ES384"])
    assert decoded.claims["aud"] == "https://auth.example"
    assert decoded.header["jku"] == "https://broker.example/jwks/epic"
    assert proof.fields["client_id"] == "broker"


@pytest.mark.parametrize("kind", ["EC", "RSA"])
async def test_a_self_signed_certificate_is_published_with_its_key(replica: Replica, tmp_path: Path, kind: str) -> None:
    """OA-19, RG-06, RFC 8705 §2.2."""
    made = self_signed(tmp_path, kind)
    tls = registration(authentication="self_signed_tls_client_auth", **made)

    (jwk,) = (await replica().public_jwks(tls))["keys"]

    (der,) = jwk["x5c"]
    certificate = x509.load_der_x509_certificate(base64.b64decode(der))
    assert certificate == x509.load_pem_x509_certificate(made["certificate"].read_bytes())
    assert set(jwk) & {"d", "p", "q", "dp", "dq", "qi"} == set()
    assert (jwk["kty"], bool(jwk["kid"])) == (kind, True)


@pytest.mark.parametrize("content", [None, "-----BEGIN CERTIFICATE-----"])
async def test_a_certificate_that_cannot_be_read_is_said_and_not_shown(
    replica: Replica, tmp_path: Path, content: str | None
) -> None:
    """OA-19."""
    path = tmp_path / "c.pem"
    if content is not None:
        path.write_text(content)
    tls = registration(authentication="self_signed_tls_client_auth", certificate=path, certificate_key=path)

    with pytest.raises(KeyUnavailable, match="the client certificate cannot be read"):
        await replica().public_jwks(tls)
