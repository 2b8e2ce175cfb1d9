"""A refresh whose answer was lost: what the profile says is safe is done, and nothing else (RF-05, RF-15)."""

from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.errors import EhrUnreachable, ReauthorizationRequired
from broker.grants import began_at
from broker.refresh.lost import attempt_name, repeating
from broker.refresh.renewal import SETTLE_SECONDS
from broker.store import keys
from tests.stage import Sandbox
from tests.stories.held import Held, audit_of, code_of, held_at

LONG, LONG_DUE, LONG_ENDED = 250, 226, 251
"""Seconds; a handle lives for 300."""


async def lose(held: Held, fault: str) -> None:
    """Let a refresh's answer be lost: before the EHR has seen it, or after it did what was asked."""
    held.stage.sandbox.fault(fault)
    held.stage.clock.advance(LONG_DUE)
    assert (await held.read()).status_code == 200, "the old token still lives"


@pytest.mark.parametrize("fault", ["token_drop_before", "token_drop"])
async def test_an_uncertain_grant_serves_until_its_token_ends_and_is_never_asked_for_again(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, fault: str
) -> None:
    async with held_at(sandbox, redis, tmp_path, lifetime=LONG) as held:
        await lose(held, fault)
        assert (await held.grant()).state == "uncertain"
        sent = held.refreshes()

        assert (await held.read()).status_code == 200
        held.stage.clock.advance(LONG_ENDED - LONG_DUE)
        answer = await held.read()

        assert (answer.status_code, code_of(answer)) == (401, "reauthorization_required")
        assert held.refreshes() == sent


async def test_an_ehr_that_says_that_the_token_is_active_is_sent_it_again(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    async with held_at(sandbox, redis, tmp_path, lifetime=LONG, ehr="introspect_lost = true") as held:
        await lose(held, "token_drop_before")
        assert (await held.grant()).state == "active"
        held.stage.clock.advance(SETTLE_SECONDS + 1)

        assert (await held.read()).status_code == 200

        assert (await held.grant()).generation == 2
        assert [line["reason"] for line in audit_of(held.stage, "grant.introspect")][-1] == "it is active"


async def test_an_ehr_that_may_still_be_at_it_is_not_asked_yet(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> None:
    async with held_at(sandbox, redis, tmp_path, lifetime=LONG, ehr="introspect_lost = true") as held:
        await lose(held, "token_drop_before")
        sent = held.refreshes()

        assert (await held.read()).status_code == 200

        assert held.refreshes() == sent
        assert audit_of(held.stage, "grant.introspect") == []


async def test_an_ehr_that_says_that_the_token_was_used_is_not_sent_it_again(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    async with held_at(sandbox, redis, tmp_path, lifetime=LONG, ehr="introspect_lost = true") as held:
        await lose(held, "token_drop")
        sent = held.refreshes()
        held.stage.clock.advance(SETTLE_SECONDS + 1)

        answer = await held.read()

        assert answer.status_code == 401
        grant = await held.grant()
        assert (grant.state, grant.cause) == ("needs_reauth", "a refresh was lost, and its token is active no more")
        assert held.refreshes() == sent


@pytest.mark.parametrize(("later", "generation", "state", "refreshes"), [(20, 2, "active", 2), (31, 1, "uncertain", 1)])
async def test_within_the_ehrs_grace_the_token_is_sent_again_and_after_it_not(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, later: int, generation: int, state: str, refreshes: int
) -> None:
    async with held_at(sandbox, redis, tmp_path, lifetime=270, ehr="refresh_grace = 60") as held:
        held.stage.sandbox.fault("token_drop_before")
        held.stage.clock.advance(243)
        assert (await held.read()).status_code == 200
        held.stage.clock.advance(later)

        await held.read()

        assert ((await held.grant()).generation, (await held.grant()).state) == (generation, state)
        assert held.refreshes() == refreshes


async def test_a_repeat_that_fails_does_not_make_the_grace_longer(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    async with held_at(sandbox, redis, tmp_path, lifetime=LONG, ehr="refresh_grace = 60") as held:
        await lose(held, "token_drop_before")
        first = await redis.hget(keys.grant(held.tag), "intent")
        held.stage.clock.advance(20)
        sandbox.fault("token_503")

        assert (await held.read()).status_code == 200

        assert await redis.hget(keys.grant(held.tag), "intent") == first


async def test_an_operator_may_say_that_it_is_sent_again(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> None:
    async with held_at(sandbox, redis, tmp_path, lifetime=LONG) as held:
        await lose(held, "token_drop_before")
        uncertain, renewal = await held.grant(), held.stage.broker.keeper.refresher.renewal
        assert (await renewal.renew(uncertain)).generation == 1

        renewed = await renewal.renew(uncertain, even_uncertain=True)

        assert (renewed.state, renewed.generation) == ("active", 2)


async def test_what_has_ended_is_not_brought_back_by_an_operators_word(held: Held) -> None:
    grant = await held.grant()
    await held.stage.broker.revoke_grant(held.tag, cause="test")
    sent: Any = held.refreshes()

    with pytest.raises(ReauthorizationRequired):
        await held.stage.broker.keeper.refresher.renewal.renew(grant, even_uncertain=True)

    assert held.refreshes() == sent


async def test_a_broker_that_dies_in_a_repeat_does_not_make_the_grace_longer(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """RF-15: what was first sent long ago is not sent again because somebody has repeated it since."""
    async with held_at(sandbox, redis, tmp_path, lifetime=270, ehr="refresh_grace = 60") as held:
        sandbox.fault("token_drop_before")
        held.stage.clock.advance(243)
        assert (await held.read()).status_code == 200
        first = began_at((await held.grant()).attempted_by or "")
        held.stage.clock.advance(20)
        renewal, grant = held.stage.broker.keeper.refresher.renewal, await held.grant()
        said = await renewal._claim(grant, attempt_name("repeat", held.stage.clock()), "look")
        owner = repeating("repeat@0", said.partition(" ")[2])
        await renewal.sending._intend(grant, owner, 10)  # and here it dies
        await redis.delete(keys.lease(held.tag))

        assert began_at((await held.grant()).attempted_by or "") == first
        held.stage.clock.advance(11)
        sent = held.refreshes()
        await held.read()

        assert ((await held.grant()).state, held.refreshes()) == ("uncertain", sent)


async def test_an_operators_try_that_fails_leaves_the_lost_one_written_down(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """RF-05: else the next call would take the grant for one of which nothing was ever lost."""
    async with held_at(sandbox, redis, tmp_path, lifetime=LONG) as held:
        await redis.hset(keys.grant(held.tag), "intent", "dead@5")
        sandbox.fault("token_503")
        renewal = held.stage.broker.keeper.refresher.renewal
        with pytest.raises(EhrUnreachable):
            await renewal.renew(await held.grant(), even_uncertain=True)
        assert (await held.grant()).attempted_by == "dead@5"
        held.stage.clock.advance(LONG_DUE)
        sent = held.refreshes()

        assert (await held.read()).status_code == 200

        assert ((await held.grant()).state, held.refreshes()) == ("uncertain", sent)
