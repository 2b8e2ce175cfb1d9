"""A registration whose private key never is in the broker's process: a real OpenBao signs for it (RG-07, RG-11)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from broker.app import Broker
from broker.clock import system_entropy
from broker.errors import KeyRefused, KeyUnavailable
from broker.keys.ring import Ring
from broker.kms.transit_signing import TransitSigning
from broker.settings import RegistrationSettings
from tests.kms.openbao import OpenBao
from tests.stage import BrokerStage, Sandbox, open_stage
from tests.stories.held import DUE, LIFETIME, audit_of, code_of, hold

AT_KMS = 'signing = "kms"'


@asynccontextmanager
async def stage_at_kms(
    sandbox: Sandbox, redis: Redis, state: Path, bao: OpenBao, registration: str = AT_KMS
) -> AsyncIterator[BrokerStage]:
    server = bao.server()
    try:
        signing = TransitSigning(server, "broker", system_entropy)
        async with open_stage(sandbox, redis, state, registration=registration, signing=signing) as stage:
            yield stage
    finally:
        await server.close()


def later(stage: BrokerStage, seconds: int) -> None:
    """Let it be so many seconds after the stage was opened, for the EHR, too: it looks at `nbf` and `exp`."""
    stage.clock.advance(seconds - stage.clock.ahead)
    stage.sandbox.switch(clock_ahead=seconds)


def signing_registration(broker: Broker) -> RegistrationSettings:
    return next(one for one in broker.directory.registrations if one.flow == "launch")


async def ring_of(broker: Broker) -> Ring:
    ring = await broker.rings.find(signing_registration(broker))
    assert ring is not None
    return ring


async def test_a_launch_and_a_refresh_are_signed_for_elsewhere(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, openbao: OpenBao
) -> None:
    """(RG-07): the ring, opened, holds the name of a key and its public half."""
    async with stage_at_kms(sandbox, redis, tmp_path, openbao) as stage:
        app = stage.app()
        held = await hold(stage, app, LIFETIME)
        later(stage, DUE)
        assert (await held.read()).status_code == 200
        assert (await held.grant()).generation == 2

        (key,) = (await ring_of(stage.broker)).keys
        assert (key.private, key.state) == (None, "active")
        assert str(key.reference).startswith("transit:broker-sign.")
        assert "PRIVATE" not in str(key.public)
        published = (await app.http.get(f"{stage.public_url}/jwks/{signing_registration(stage.broker).id}")).json()
        assert [(one["kid"], "d" in one) for one in published["keys"]] == [(key.kid, False)]
        await app.close()


async def test_a_key_in_the_store_is_replaced_by_one_at_the_service_without_a_failed_request(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, openbao: OpenBao
) -> None:
    """(RG-11): another place is a rotation like any other; and back again, whereupon the service's key is destroyed."""
    async with stage_at_kms(sandbox, redis, tmp_path, openbao, registration="") as stage:
        app = stage.app()
        await hold(stage, app, LIFETIME)
        await app.close()
        (first,) = (await ring_of(stage.broker)).keys
        assert first.reference is None
    (tmp_path / "again").mkdir()
    async with stage_at_kms(sandbox, redis, tmp_path / "again", openbao) as stage:
        broker = stage.broker
        await broker.tending.look()
        assert [(key.state, key.reference is None) for key in (await ring_of(broker)).keys] == [
            ("active", True),
            ("published", False),
        ]
        moved = (await ring_of(broker)).newest
        ring = await broker.rings.change(
            signing_registration(broker), lambda ring: ring.without(moved.kid, stage.clock())
        )
        ring = await broker.rings.destroy_retired(signing_registration(broker), ring)

        assert [key.reference for key in ring.keys] == [None, None]
        assert [line["reason"] for line in audit_of(stage, "key.destroyed")] == [f"kid {moved.kid}: {moved.reference}"]
        signing, reference = TransitSigning(openbao.server(), "broker", system_entropy), str(moved.reference)
        with pytest.raises(KeyRefused):
            await signing.sign(reference, b"message")
        await signing.close()


async def test_while_the_service_does_not_sign_nothing_is_sent_and_nothing_is_lost(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, openbao: OpenBao, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(RF-05): the refresh token is not spent, the living token serves, and the service's return heals it."""
    async with stage_at_kms(sandbox, redis, tmp_path, openbao) as stage:
        app = stage.app()
        held = await hold(stage, app, LIFETIME)
        sent = len(sandbox.journal("token"))

        async def away(*_: object) -> bytes:
            raise KeyUnavailable("the service does not answer")

        with monkeypatch.context() as patch:
            patch.setattr(TransitSigning, "sign", away)
            later(stage, DUE)
            assert (await held.read()).status_code == 200
            later(stage, LIFETIME)
            answer = await held.read()
            assert (answer.status_code, code_of(answer)) == (503, "key_unavailable")
            assert len(sandbox.journal("token")) == sent
            assert (await held.grant()).state == "active"

        later(stage, LIFETIME + 1)
        assert (await held.read()).status_code == 200
        await app.close()


async def test_a_replica_that_loses_the_race_for_the_first_key_destroys_its_own(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, openbao: OpenBao, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(RG-11): no key stays at the service that nobody knows of."""
    async with stage_at_kms(sandbox, redis, tmp_path, openbao) as stage:
        broker, made = stage.broker, list[str]()
        registration = signing_registration(broker)
        create = TransitSigning.create

        async def noted(signing: TransitSigning, name: str, algorithm: str) -> str:
            reference = await create(signing, name, algorithm)  # type: ignore[arg-type]  # one of the two
            made.append(reference)
            return reference

        monkeypatch.setattr(TransitSigning, "create", noted)
        await broker.rings.add(registration)
        await broker.rings.add(registration)  # one is waiting already

        first, waiting, spare = made
        assert {key.reference for key in (await ring_of(broker)).keys} == {first, waiting}
        keys_left = openbao.as_root("LIST", "transit/keys")["data"]["keys"]
        assert spare.removeprefix("transit:") not in keys_left
        assert waiting.removeprefix("transit:") in keys_left
