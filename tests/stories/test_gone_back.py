"""A grant that is older than it was is not believed: its refresh token may have been replaced since (RF-15)."""

from typing import cast

import pytest
from redis.asyncio import Redis

from broker.store import keys
from broker.witness import call_restored
from tests.stories.held import DUE, ENDED, Held, audit_of, code_of

Fields = dict[bytes, bytes]


async def fields_of(held: Held) -> Fields:
    return cast("Fields", await held.stage.redis.hgetall(keys.grant(held.tag)))


async def put_back(redis: Redis, tag: str, fields: Fields) -> None:
    await redis.delete(keys.grant(tag))
    for name, value in fields.items():
        await redis.hset(keys.grant(tag), name.decode(), value)


async def renewed(held: Held) -> None:
    held.stage.clock.advance(DUE)
    assert (await held.read()).status_code == 200
    assert (await held.grant()).generation == 2


async def test_a_record_put_back_from_before_a_refresh_is_uncertain_and_its_token_is_never_sent(held: Held) -> None:
    """RF-15."""
    before = await fields_of(held)
    await renewed(held)
    sent = held.refreshes()
    await put_back(held.stage.redis, held.tag, before)

    assert (await held.read()).status_code == 200, "its access token still lives"
    held.stage.clock.advance(ENDED)
    answer = await held.read()

    assert (answer.status_code, code_of(answer)) == (401, "reauthorization_required")
    assert held.refreshes() == sent
    grant = await held.grant()
    assert (grant.state, grant.cause) == ("uncertain", "the store has generation 1 of it, and had 2")
    assert [line["reason"] for line in audit_of(held.stage, "grant.doubted")] == [grant.cause]


async def test_a_read_that_comes_late_is_no_reason_to_doubt(held: Held) -> None:
    before = await fields_of(held)
    await renewed(held)

    late = await held.stage.broker.grants.unpack(held.tag, before)

    assert (late.state, late.generation) == ("active", 1)
    assert (await held.grant()).state == "active"
    assert audit_of(held.stage, "grant.doubted") == []


async def test_after_a_restore_no_refresh_token_of_before_is_sent_unasked(held: Held) -> None:
    """RF-15."""
    await call_restored(held.stage.redis, held.stage.clock())
    await held.stage.broker.witness.look()
    held.stage.clock.advance(DUE)
    assert (await held.read()).status_code == 200, "its access token still lives"
    held.stage.clock.advance(ENDED)

    answer = await held.read()

    assert answer.status_code == 401
    assert held.refreshes() == 0
    assert (await held.grant()).cause == "the store was restored from a time before"


@pytest.mark.parametrize("moved", [-1.0, 0.0])
async def test_a_grant_made_since_a_restore_is_believed(held: Held, moved: float) -> None:
    since = (await held.grant()).since
    await call_restored(held.stage.redis, since + moved)
    await held.stage.broker.witness.look()

    await renewed(held)
