"""An EHR's client secret is replaced, and no request fails: the next one is tried where one is refused."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from broker.errors import InvalidRequest, NotFound
from broker.secret import Secret
from tests.stage import Sandbox
from tests.stage.broker import SANDBOX_SCOPES
from tests.stories.held import DUE, Held, audit_of, held_at

NEW = "a-new-secret-of-the-ehr's-form-2/7+"


@pytest.fixture
async def secretly(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[Held]:
    async with held_at(sandbox, redis, tmp_path) as held:
        yield held


def switch(held: Held, secret: str) -> None:
    """The EHR takes another secret from now on, and the old one no more."""
    held.stage.sandbox.register(
        client_id="broker-launch",
        authentication="client_secret_basic",
        client_secret=secret,
        redirect_uris=[f"{held.stage.public_url}/callback/sandbox-launch"],
        scopes=SANDBOX_SCOPES,
        refresh="rotate",
    )


async def add(held: Held, secret: str, expires: float | None = None) -> str:
    broker = held.stage.broker
    registration = broker.directory.registration("sandbox-launch")
    return await broker.client_secrets.add(registration, Secret(secret), expires)


async def test_a_secret_that_the_ehr_replaced_is_followed_without_a_failed_request(secretly: Held) -> None:
    """RF-08: an `invalid_client` was certainly not processed."""
    added = await add(secretly, NEW)
    secretly.stage.clock.advance(DUE)
    assert (await secretly.read()).status_code == 200
    assert (await secretly.grant()).generation == 2
    switch(secretly, NEW)

    secretly.stage.clock.advance(DUE)
    assert (await secretly.read()).status_code == 200

    grant = await secretly.grant()
    assert (grant.state, grant.generation, grant.trouble) == ("active", 3, None)
    await secretly.stage.broker.client_secrets.close()
    known = await secretly.stage.broker.client_secrets.all(
        secretly.stage.broker.directory.registration("sandbox-launch")
    )
    assert [one.id for one in known if one.accepted is not None and one.origin == "added"] == [added]


async def test_the_secret_that_was_taken_is_tried_first_the_next_time(secretly: Held) -> None:
    await add(secretly, NEW)
    switch(secretly, NEW)
    secretly.stage.clock.advance(DUE)
    await secretly.read()
    await secretly.stage.broker.client_secrets.close()
    before = secretly.refreshes()

    secretly.stage.clock.advance(DUE)
    assert (await secretly.read()).status_code == 200

    assert secretly.refreshes() == before + 1


async def test_a_switch_under_load_fails_nobody(secretly: Held) -> None:
    await add(secretly, NEW)
    reading = True

    async def callers() -> set[int]:
        seen = set()
        while reading:
            answers = await asyncio.gather(*(secretly.read() for _ in range(5)))
            seen |= {answer.status_code for answer in answers}
            secretly.stage.clock.advance(20)
        return seen

    calling = asyncio.create_task(callers())
    await asyncio.sleep(0.3)
    switch(secretly, NEW)
    await asyncio.sleep(0.7)
    reading = False

    assert await calling <= {200, 401}, "a handle lives for 300 s of the stage's clock, and is refused after that"
    grant = await secretly.grant()
    assert (grant.state, grant.trouble) == ("active", None)
    assert grant.generation > 1


async def test_no_added_secret_is_in_the_store_or_the_audit_trail_in_clear(secretly: Held) -> None:
    """CA-06, HB-04."""
    await add(secretly, NEW)

    async for name in secretly.stage.redis.scan_iter("sb:key:*"):
        assert NEW.encode() not in (await secretly.stage.redis.get(name) or b"")
    assert NEW not in "\n".join(secretly.stage.audit_lines())
    assert len(audit_of(secretly.stage, "secret.added")) == 1


async def test_a_secret_that_was_not_added_is_not_retired(secretly: Held) -> None:
    broker = secretly.stage.broker
    registration = broker.directory.registration("sandbox-launch")
    (of_the_file,) = await broker.client_secrets.all(registration)

    with pytest.raises(NotFound):
        await broker.client_secrets.retire(registration, of_the_file.id)

    added = await add(secretly, NEW)
    await broker.client_secrets.retire(registration, added)
    assert [one.id for one in await broker.client_secrets.all(registration)] == [of_the_file.id]


async def test_there_are_at_most_three_secrets(secretly: Held) -> None:
    await add(secretly, "one")
    await add(secretly, "two")

    with pytest.raises(InvalidRequest, match="there are 3 secrets already"):
        await add(secretly, "three")


@pytest.mark.parametrize(("days", "said"), [(-2, "expired 2 days ago"), (10, "expires in 10 days"), (60, "")])
async def test_a_secret_near_its_end_is_warned_of(secretly: Held, days: int, said: str) -> None:
    await add(secretly, NEW, secretly.stage.clock() + days * 86_400 + 60)
    broker = secretly.stage.broker

    warnings = await broker.client_secrets.warnings(broker.directory.registration("sandbox-launch"))

    assert [said in warning for warning in warnings] == ([True] if said else [])
