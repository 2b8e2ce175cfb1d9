import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from redis.asyncio import Redis

from broker.errors import KeyUnavailable, SealBroken
from broker.keys.sealed import create_once
from broker.keys.signing import SigningKeys
from broker.secret import Secret
from broker.settings import RegistrationSettings
from broker.store import keys
from broker.vault import LocalKeyring, RecordContext, Vault

TOKEN_ENDPOINT = "https://auth.example/token"
NOW = 1_800_000_000.0


def vault(key: bytes = bytes(range(32))) -> Vault:
    return Vault(LocalKeyring([key]), report_broken=lambda _, __: None)


def replica(redis: Redis) -> SigningKeys:
    return SigningKeys(redis, vault(), tenant="clinic", clock=lambda: NOW)


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

    asked = [await create_once(redis, vault(), tenant="t", name="n", make=make) for _ in range(3)]

    assert (asked, made) == ([b"key 0"] * 3, [b"key 0"])


async def test_replicas_that_start_together_agree_on_one_key(redis: Redis) -> None:
    made = iter(range(100))

    async def make() -> bytes:
        return b"key %d" % next(made)

    agreed = await asyncio.gather(*(create_once(redis, vault(), tenant="t", name="n", make=make) for _ in range(20)))

    assert len(set(agreed)) == 1


async def test_a_replica_that_comes_second_takes_the_first_ones_key(redis: Redis) -> None:
    """It had found no key when it looked, and must not overwrite the one that was stored meanwhile."""
    sealing, late = asyncio.Event(), asyncio.Event()

    class LateVault(Vault):
        async def seal(self, context: RecordContext, plaintext: bytes) -> bytes:
            sealing.set()
            await late.wait()
            return await super().seal(context, plaintext)

    slow = LateVault(LocalKeyring([bytes(range(32))]), report_broken=lambda _, __: None)
    second = asyncio.create_task(create_once(redis, slow, tenant="t", name="n", make=key(b"second")))
    await sealing.wait()
    assert await create_once(redis, vault(), tenant="t", name="n", make=key(b"first")) == b"first"
    late.set()

    assert await second == b"first"
    assert await create_once(redis, vault(), tenant="t", name="n", make=key(b"third")) == b"first"


async def test_a_key_never_expires(redis: Redis) -> None:
    await create_once(redis, vault(), tenant="t", name="n", make=key(b"key"))

    assert await redis.pttl(keys.sealed_key("n")) == -1


async def test_a_key_stands_in_redis_sealed_only(redis: Redis) -> None:
    """RG-07."""
    pem = (await replica(redis).load(registration())).as_pem(private=True)

    async for name in redis.scan_iter():
        stored = cast("bytes", await redis.get(name))
        assert pem[40:80] not in stored
        assert b"PRIVATE" not in stored
        assert await vault().open(RecordContext("key", "epic:ES384", "clinic"), stored) == pem


@pytest.mark.parametrize(("tenant", "name"), [("other", "n"), ("t", "m")])
async def test_a_key_of_another_name_or_tenant_does_not_open(redis: Redis, tenant: str, name: str) -> None:
    await create_once(redis, vault(), tenant="t", name="n", make=key(b"key"))
    await redis.set(keys.sealed_key(name), cast("bytes", await redis.get(keys.sealed_key("n"))))

    with pytest.raises(SealBroken):
        await create_once(redis, vault(), tenant=tenant, name=name, make=key(b"new"))


async def test_a_wrong_key_encryption_key_does_not_make_a_new_key(redis: Redis) -> None:
    await create_once(redis, vault(), tenant="t", name="n", make=key(b"key"))

    with pytest.raises(KeyUnavailable):
        await create_once(redis, vault(bytes(range(1, 33))), tenant="t", name="n", make=key(b"new"))


@pytest.mark.parametrize(
    ("algorithm", "public_members"),
    [("ES384", {"kty", "crv", "x", "y"}), ("RS384", {"kty", "n", "e"})],
)
async def test_the_published_key_has_public_members_only(
    redis: Redis, algorithm: str, public_members: set[str]
) -> None:
    """RG-06, OA-11."""
    published = await replica(redis).public_jwks(registration(signing_algorithm=algorithm))

    (key,) = published["keys"]
    assert set(key) == public_members | {"kid", "use", "alg"}
    assert (key["use"], key["alg"]) == ("sig", algorithm)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", key["kid"])


async def test_the_kid_is_the_thumbprint_of_the_key(redis: Redis) -> None:
    """RFC 7638."""
    (key,) = (await replica(redis).public_jwks(registration()))["keys"]

    assert key["kid"] == ECKey.import_key({name: key[name] for name in ("kty", "crv", "x", "y")}).thumbprint()


async def test_every_replica_publishes_the_same_key(redis: Redis) -> None:
    published = await asyncio.gather(*(replica(redis).public_jwks(registration()) for _ in range(4)))

    assert all(one == published[0] for one in published)


@pytest.mark.parametrize("algorithm", ["ES384", "RS384"])
async def test_an_assertion_verifies_with_the_published_key(redis: Redis, algorithm: str) -> None:
    """RG-08."""
    signing_keys, backend = replica(redis), registration(signing_algorithm=algorithm, flow="backend")
    authenticate = await signing_keys.authenticate(backend)
    published = KeySet.import_key_set(await signing_keys.public_jwks(backend))  # type: ignore[arg-type]  # plain JSON

    assertion = authenticate(TOKEN_ENDPOINT).fields["client_assertion"]

    assert jwt.decode(assertion, published, algorithms=[algorithm]).claims["aud"] == TOKEN_ENDPOINT


async def test_two_registrations_have_two_keys(redis: Redis) -> None:
    signing_keys = replica(redis)
    one, other = [(await signing_keys.public_jwks(registration(id=name)))["keys"][0] for name in ("epic", "cerner")]

    assert one["kid"] != other["kid"]


@pytest.mark.parametrize(
    ("fields", "headers", "body"),
    [
        ({"authentication": "none"}, {}, {"client_id": "broker"}),
        (
            {"authentication": "client_secret_basic", "client_secret": Secret("s")},
            {"Authorization": "Basic YnJva2VyOnM="},
            {},
        ),
    ],
)
async def test_a_registration_without_a_key_makes_and_publishes_none(
    redis: Redis, fields: dict[str, Any], headers: dict[str, str], body: dict[str, str]
) -> None:
    signing_keys, keyless = replica(redis), registration(**fields)

    proof = (await signing_keys.authenticate(keyless))(TOKEN_ENDPOINT)

    assert (proof.headers, proof.fields) == (headers, body)
    assert await signing_keys.public_jwks(keyless) == {"keys": []}
    assert [name async for name in redis.scan_iter()] == []
