"""A registration's signing key is replaced, and no EHR notices, however long it keeps the old key set (RG-11)."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.app import Broker, open_broker
from broker.keys.ring import Ring
from broker.vault import LocalKeyring
from tests.stage import App, BrokerStage, Sandbox, open_stage, running_sandbox
from tests.stage.broker import KEY
from tests.stories.held import audit_of

HOUR = 3600
LAGS = [0, 300, 24 * HOUR, 29 * HOUR, 48 * HOUR]
SECOND = """
[[ehr]]
id = "second"
fhir_base = "{fhir_base}"

[[registration]]
id = "fleet"
ehr = ["sandbox", "second"]
flow = "backend"
client_id = "broker-fleet"
scopes = "system/Patient.rs"
"""


class Fleet:
    """Backend token requests through one broker at simulated EHRs whose clocks move with the broker's."""

    def __init__(self, stage: BrokerStage, sandboxes: Iterable[Sandbox], registration: str = "sandbox-backend") -> None:
        self.stage = stage
        self.sandboxes = list(sandboxes)
        self.registration = stage.broker.directory.registration(registration)
        self.ahead = 0

    def advance(self, seconds: int) -> None:
        self.ahead += seconds
        self.stage.clock.advance(seconds)
        for sandbox in self.sandboxes:
            sandbox.switch(clock_ahead=self.ahead)

    async def ask(self, ehr: str = "sandbox", broker: Broker | None = None) -> str:
        """Ask for a token as every journey does; returns the key that the EHR took it for. A failure raises."""
        broker = broker or self.stage.broker
        settings = broker.directory.ehr(ehr)
        site = broker.directory.site(settings, self.registration)
        side = broker.introspect_grant.ehr_side
        endpoints = await side.discovery.endpoints(site)
        authenticate = await broker.signing_keys.authenticate(self.registration, settings, endpoints)
        await side.token_endpoint.client_credentials(
            endpoints.token_endpoint, authenticate, scope="system/Patient.rs", timeout=10
        )
        await broker.signing_keys.close()
        ring = await self.ring()
        return ring.order(ehr, self.stage.clock())[0].kid

    async def ring(self) -> Ring:
        ring = await self.stage.broker.rings.find(self.registration)
        assert ring is not None
        return ring

    async def states(self) -> list[str]:
        return [key.state for key in (await self.ring()).keys]

    async def look(self) -> list[str]:
        await self.stage.broker.tending.look()
        return await self.states()


@pytest.fixture
async def fleet(stage: BrokerStage) -> Fleet:
    return Fleet(stage, [stage.sandbox])


@pytest.mark.parametrize("lag", LAGS)
async def test_no_token_request_fails_while_a_key_is_replaced(fleet: Fleet, lag: int) -> None:
    """(RG-11) (EP-06): the EHR goes on for hours with a set that lacks the new key."""
    fleet.stage.sandbox.switch(jwks_lag=lag)
    old = await fleet.ask()
    await fleet.stage.broker.rings.add(fleet.registration)
    assert await fleet.look() == ["active", "published"]

    hours = 0
    while await fleet.look() != ["retired", "active"]:
        await fleet.ask()  # raises when it fails
        fleet.advance(HOUR)
        hours += 1
        assert hours < 24 * 7

    ring = await fleet.ring()
    assert ring.newest.kid != old
    assert await fleet.ask() == ring.newest.kid
    assert hours * HOUR >= max(lag, 24 * HOUR)


async def test_an_ehr_that_fetches_an_unknown_key_has_it_at_once(fleet: Fleet, app: App) -> None:
    """(RG-11): published, fetched, tried with one request, active."""
    old = await fleet.ask()
    await fleet.stage.broker.rings.add(fleet.registration)
    assert await fleet.look() == ["active", "published"]
    assert await fleet.ask() == old

    shown = (await app.http.get(f"{fleet.stage.public_url}/jwks/sandbox-backend")).json()["keys"]
    assert await fleet.look() == ["active", "seen"]
    new = await fleet.ask()

    assert {key["kid"] for key in shown} == {old, new}
    assert await fleet.states() == ["retiring", "active"]
    events = [entry["event"] for entry in map(json.loads, fleet.stage.audit_lines())]
    events = [event for event in events if event.startswith("key.")]
    assert events == ["key.activated", "key.published", "key.seen", "key.retiring", "key.activated"]


async def test_an_ehr_that_takes_the_new_key_back_gets_the_old_one(fleet: Fleet) -> None:
    """(RG-11): rolled back by itself, within the request that was refused, audited, and tried again later."""
    old = await fleet.ask()
    await fleet.stage.broker.rings.add(fleet.registration, seen=True)
    new = await fleet.ask()
    assert new != old
    shown = await fleet.stage.broker.signing_keys.public_jwks(fleet.registration)
    only_old = {"keys": [key for key in shown["keys"] if key["kid"] == old]}
    register(fleet.stage.sandbox, "broker-backend", jwks=only_old)

    assert await fleet.ask() == old
    assert await fleet.states() == ["active", "seen"]
    assert len(audit_of(fleet.stage, "key.rolled_back")) == 2

    register(fleet.stage.sandbox, "broker-backend", jwks=shown)
    fleet.advance(HOUR)
    assert await fleet.ask() == new


async def test_a_key_that_no_ehr_takes_never_becomes_active(fleet: Fleet) -> None:
    old = await fleet.ask()
    shown = await fleet.stage.broker.signing_keys.public_jwks(fleet.registration)
    register(fleet.stage.sandbox, "broker-backend", jwks=shown)
    await fleet.stage.broker.rings.add(fleet.registration)

    for _ in range(20):
        fleet.advance(6 * HOUR)
        await fleet.look()
        assert await fleet.ask() == old or (await fleet.ring()).is_rotating
    assert await fleet.states() == ["active", "seen"]


async def test_launches_and_refreshes_go_on_while_a_key_is_replaced(stage: BrokerStage, app: App) -> None:
    """(RG-11): the code is not used up by a request that was refused for its client."""
    stage.sandbox.switch(jwks_lag=48 * HOUR)
    await app.standalone()
    await stage.broker.rings.add(stage.broker.directory.registration("sandbox-launch"), seen=True)

    answer = await app.standalone()

    read = await app.fhir(answer["access_token"], f"Patient/{answer['patient']}")
    assert read.status_code == 200
    await stage.broker.signing_keys.close()
    ring = await stage.broker.rings.find(stage.broker.directory.registration("sandbox-launch"))
    assert ring is not None
    assert [key.state for key in ring.keys] == ["active", "seen"]
    assert ring.standing("sandbox").refused.keys() == {ring.newest.kid}


async def test_a_request_refused_with_every_key_fails_as_it_did(stage: BrokerStage, reports: App) -> None:
    """The refusal is the EHR's answer; nothing is tried for ever."""
    await stage.broker.rings.add(stage.broker.directory.registration("sandbox-backend"), seen=True)
    stage.sandbox.register(
        client_id="broker-backend",
        authentication="private_key_jwt",
        jwks={"keys": []},
        grant_types=["client_credentials"],
        scopes="system/*.cruds",
    )

    answer = await reports.token(grant_type="client_credentials", scope="system/Patient.rs", resource=reports.base)

    assert answer.status_code == 502
    assert stage.sandbox.counts()["token.client_credentials"] == 2


async def test_each_ehr_of_a_registration_is_on_a_key_of_its_own(
    redis: Redis, sandbox: Sandbox, tmp_path: Path
) -> None:
    """(RG-11): one that lags keeps the old key, and the old key stays for it."""
    with running_sandbox() as second:
        async with open_stage(sandbox, redis, tmp_path, more=SECOND.format(fhir_base=second.fhir_base)) as stage:
            fleet = Fleet(stage, [sandbox, second], "fleet")
            for one in (sandbox, second):
                register(one, "broker-fleet", jwks_uri=f"{stage.public_url}/jwks/fleet", scopes="system/Patient.rs")
            second.switch(jwks_lag=48 * HOUR)
            old = {await fleet.ask(ehr) for ehr in ("sandbox", "second")}
            await stage.broker.rings.add(fleet.registration, seen=True)

            on = {ehr: await fleet.ask(ehr) for ehr in ("sandbox", "second")}
            assert on["second"] in old
            assert on["sandbox"] not in old
            fleet.advance(30 * HOUR)
            await fleet.ask("second")
            assert await fleet.look() == ["retiring", "active"]
            fleet.advance(19 * HOUR)
            assert await fleet.ask("second") == on["sandbox"]
            fleet.advance(30 * HOUR)
            assert await fleet.look() == ["retired", "active"]


async def test_two_replicas_agree_on_one_new_key(fleet: Fleet, tmp_path: Path) -> None:
    async with replica(fleet.stage, tmp_path) as other:
        await fleet.ask()
        await asyncio.gather(*(one.rings.add(fleet.registration) for one in (fleet.stage.broker, other) for _ in "123"))
        assert await fleet.states() == ["active", "published"]
        fleet.advance(25 * HOUR)
        await asyncio.gather(*(one.tending.look() for one in (fleet.stage.broker, other)))
        assert await fleet.states() == ["active", "seen"]

        signed = await asyncio.gather(fleet.ask(), fleet.ask(broker=other))

        assert await fleet.states() == ["retiring", "active"]
        assert set(signed) <= {key.kid for key in (await fleet.ring()).live}


async def test_by_policy_a_key_is_replaced_after_so_many_days(redis: Redis, sandbox: Sandbox, tmp_path: Path) -> None:
    """(RG-11)"""
    policy = "key_rotation_days = 90"
    async with open_stage(sandbox, redis, tmp_path, registration=policy) as stage:
        fleet = Fleet(stage, [sandbox], "sandbox-launch")
        assert await stage.broker.rings.find(fleet.registration) is None
        await stage.broker.tending.look()
        await stage.broker.rings.of(fleet.registration)
        fleet.advance(90 * 24 * HOUR - 60)
        assert await fleet.look() == ["active"]
        fleet.advance(120)
        assert await fleet.look() == ["active", "published"]
        assert await fleet.look() == ["active", "published"]


async def test_the_jwk_set_is_cached_for_less_than_a_key_is_kept(stage: BrokerStage, app: App) -> None:
    """(RG-05) (RG-11)"""
    answer = await app.http.get(f"{stage.public_url}/jwks/sandbox-backend")

    assert answer.headers["cache-control"] == "public, max-age=300"
    for ehr in stage.broker.directory.ehrs:
        assert ehr.profile.jwks_cache >= 300


def register(sandbox: Sandbox, client_id: str, **more: Any) -> None:
    sandbox.register(
        client_id=client_id,
        authentication="private_key_jwt",
        grant_types=["client_credentials"],
        **{"scopes": "system/*.cruds", **more},
    )


@asynccontextmanager
async def replica(stage: BrokerStage, state: Path) -> AsyncIterator[Broker]:
    async with open_broker(
        stage.broker.settings,
        redis=stage.redis,
        kek=LocalKeyring([KEY]),
        audit_file=state / "replica.jsonl",
        clock=stage.clock,
        keep_every=None,
    ) as broker:
        yield broker
