"""Where the keys of apps and issuers come from, how long they are kept, and how often is asked."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, RSAKey

from broker.egress import Egress
from broker.errors import InvalidClient
from broker.flows.proof.key_sets import KeySets, KeySource
from tests.refusals.keys import KeyServer, running_key_server


def public(kid: str, **more: Any) -> dict[str, Any]:
    return {**ECKey.generate_key("P-256", {"kid": kid}).as_dict(private=False), **more}


class Clock:
    now = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with running_key_server({"keys": [public("a")]}) as server:
        yield server


@pytest.fixture
async def key_sets(clock: Clock) -> AsyncIterator[KeySets]:
    egress = Egress(allow_loopback_http=True)
    yield KeySets(egress, clock)
    await egress.close()


def source(server: KeyServer, stale_seconds: float = 0.0) -> KeySource:
    return KeySource("app etl", uri=server.url, stale_seconds=stale_seconds)


@pytest.mark.parametrize(
    ("control", "seconds"),
    [
        ("max-age=30", 30),
        ('public, MAX-AGE="30"', 30),
        ("max-age=9000", 300),
        ("s-maxage=1", 300),
        ("", 300),
        ("max-age=1", 10),
        ("no-store", 10),
        ("private, no-cache, max-age=60", 10),
    ],
)
async def test_keys_are_kept_no_longer_than_their_server_says_or_for_a_moment(
    server: KeyServer, key_sets: KeySets, clock: Clock, control: str, seconds: int
) -> None:
    """CA-10."""
    server.cache_control = control
    for wait, fetches in ((0, 1), (seconds - 1, 1), (1, 2)):
        clock.now += wait
        assert (await key_sets.key(source(server), "a")).kid == "a"
        assert len(server.fetches) == fetches


@pytest.mark.parametrize("control", ["no-cache", "no-store", "max-age=0"])
async def test_strangers_cannot_have_a_server_asked_with_each_assertion(
    server: KeyServer, key_sets: KeySets, control: str
) -> None:
    """CA-10."""
    server.cache_control = control
    for number in range(40):
        with pytest.raises(InvalidClient):
            await key_sets.key(source(server), f"made up {number}")
    assert len(server.fetches) == 1


async def test_an_unknown_kid_is_asked_for_once_in_a_while(server: KeyServer, key_sets: KeySets, clock: Clock) -> None:
    """CA-09, CA-10."""
    await key_sets.key(source(server), "a")
    for wait, fetches in ((0, 1), (9, 1), (1, 2), (0, 2), (9, 2), (1, 3)):
        clock.now += wait
        with pytest.raises(InvalidClient, match="app etl has no key of the assertion's kid"):
            await key_sets.key(source(server), "b")
        assert len(server.fetches) == fetches

    server.key_set = {"keys": [public("b")]}
    clock.now += 10
    assert (await key_sets.key(source(server), "b")).kid == "b"


async def test_a_source_that_fails_is_left_in_peace_and_its_old_set_used_meanwhile(
    server: KeyServer, key_sets: KeySets, clock: Clock
) -> None:
    """CA-10."""
    await key_sets.key(source(server), "a")
    clock.now, server.status = clock.now + 300, 500
    for wait, fetches in ((0, 2), (9, 2)):
        clock.now += wait
        assert (await key_sets.key(source(server), "a")).kid == "a"
        assert len(server.fetches) == fetches
    for wait, fetches in ((1, 3), (9, 3), (1, 4)):
        clock.now += wait
        with pytest.raises(InvalidClient, match="the JWK Set of app etl could not be read"):
            await key_sets.key(source(server), "a")
        assert len(server.fetches) == fetches


async def test_an_issuers_outage_is_bridged_for_as_long_as_its_source_says(
    server: KeyServer, key_sets: KeySets, clock: Clock
) -> None:
    issuer = source(server, stale_seconds=100.0)
    await key_sets.key(issuer, "a")
    server.status = 500
    for wait in (300, 50, 49):
        clock.now += wait
        assert (await key_sets.key(issuer, "a")).kid == "a"
    clock.now += 1
    with pytest.raises(InvalidClient, match="could not be read"):
        await key_sets.key(issuer, "a")


async def test_a_file_is_read_again_when_its_time_is_over_or_a_kid_is_new(
    key_sets: KeySets, clock: Clock, tmp_path: Path
) -> None:
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps({"keys": [public("a", use="jwt-svid"), public("x", use="x509-svid")]}))
    bundle = KeySource("issuer mesh", file=path)
    assert (await key_sets.key(bundle, "a")).kid == "a"
    with pytest.raises(InvalidClient, match="no key"):
        await key_sets.key(bundle, "x")

    path.write_text(json.dumps({"keys": [public("b", use="jwt-svid")]}))
    clock.now += 10
    assert (await key_sets.key(bundle, "b")).kid == "b"

    path.unlink()
    clock.now += 310
    with pytest.raises(InvalidClient, match=r"the JWK Set of issuer mesh could not be read: its file .* \(errno 2\)"):
        await key_sets.key(bundle, "b")


async def test_discovery_must_name_the_issuer_it_is_found_by(server: KeyServer, key_sets: KeySets) -> None:
    """OA-17."""
    issuer = server.url.removesuffix("/jwks")
    server.key_set |= {"issuer": issuer, "jwks_uri": server.url}  # one document for both addresses
    assert (await key_sets.key(KeySource("issuer good", issuer=issuer), "a")).kid == "a"
    assert server.fetches == ["/.well-known/openid-configuration", "/jwks"]

    server.key_set |= {"issuer": f"{issuer}/"}
    with pytest.raises(InvalidClient, match="names another issuer"):
        await key_sets.key(KeySource("issuer bad", issuer=issuer), "a")
    assert server.fetches[2:] == ["/.well-known/openid-configuration"]


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
async def test_keys_that_are_too_short_or_ambiguous_are_none(key_sets: KeySets) -> None:
    """CA-09, RG-08."""
    short = RSAKey.generate_key(1024, {"kid": "short"}).as_dict(private=False)
    jwks = {"keys": [public("twin"), public("twin"), public("good"), short]}
    inline = KeySource("app etl", jwks=jwks)

    assert (await key_sets.key(inline, "good")).kid == "good"
    with pytest.raises(InvalidClient, match="more than one key"):
        await key_sets.key(inline, "twin")
    with pytest.raises(InvalidClient, match="no key"):
        await key_sets.key(inline, "short")
