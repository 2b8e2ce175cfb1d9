"""A replica that stands still in the middle of a refresh, at its worst moment, and then goes on (RF-05, RF-15)."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import pytest
from redis.asyncio import Redis

from broker.refresh.sending import LEASE_SECONDS
from broker.store.client import StoreClient
from tests.refresh.engine_machine import WORST_POINTS, by_the_worlds_time
from tests.refresh.model_ehr import LATE_SECONDS, LIFETIME, Kind
from tests.refresh.replicas import Point
from tests.refresh.world import World, open_world, settings_of


@pytest.fixture
async def world(redis: Redis, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    assert isinstance(redis, StoreClient)
    async with open_world(settings_of(tmp_path), redis, tmp_path, getattr(request, "param", "strict")) as world:
        yield world


def at(*kinds: Kind) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("world", kinds, indirect=True)


async def stopped(world: World, name: str, when: str) -> None:
    """Let A refresh until it stops there, and let its lease run out."""
    await world.pass_time(LIFETIME - 1)
    world.replicas[0].pauses_at = (name, when)  # type: ignore[assignment]
    await world.call(0)
    await world.pass_time(LEASE_SECONDS + 1)


async def goes_on(world: World) -> None:
    world.replicas[0].pauses_at = None
    await world.run()
    await world.check()


@at("telling", "grace", "strict", "reusable")
async def test_who_stood_still_before_sending_does_not_send_any_more(world: World) -> None:
    """RF-05: another replica may have found out that nothing was sent, and have sent it."""
    await stopped(world, "intend_refresh", "after")
    await world.call(1)
    sent = len(world.ehr.requests)

    await goes_on(world)

    assert len(world.ehr.requests) == sent
    assert world.ehr.alarms == []


@at("telling", "strict")
async def test_an_answer_in_the_hand_of_who_stood_still_is_kept_whatever_was_made_of_the_grant(world: World) -> None:
    """RF-05: what another replica has concluded from its absence is undone by it."""
    await stopped(world, "commit_grant", "before")
    await world.call(1)
    assert (await world.grant()).state == {"telling": "needs_reauth", "strict": "uncertain"}[world.ehr.kind]

    await goes_on(world)

    assert ((await world.grant()).state, (await world.grant()).generation) == ("active", 2)
    assert await world.stored_token() in world.ehr.valid


@at("grace", "reusable")
async def test_an_answer_that_another_replica_has_repeated_is_refused(world: World) -> None:
    """RF-04: fencing, by the generation."""
    await world.pass_time(LIFETIME - 1)
    world.replicas[0].pauses_at = ("commit_grant", "before")
    await world.call(0)
    await world.lapse()
    await world.call(1)
    renewed = await world.stored_token()

    await goes_on(world)

    assert ((await world.grant()).generation, await world.stored_token()) == (2, renewed)


async def test_an_answer_is_kept_though_the_store_forgot_that_it_was_asked_for(world: World) -> None:
    """RF-05: a fail-over took the intent with it, and nobody else has begun an attempt since."""
    await world.pass_time(LIFETIME - 1)
    world.replicas[0].pauses_at = ("intend_refresh", "after")
    await world.call(0)
    assert await world.forget() == "intend_refresh"

    await goes_on(world)

    assert await world.stored_token() in world.ehr.valid


async def test_who_stood_still_does_not_get_a_token_that_came_and_went_meanwhile(world: World) -> None:
    await world.pass_time(LIFETIME - 1)
    world.replicas[0].pauses_at = ("claim_refresh", "before")
    await world.call(0)
    await world.call(1)
    await world.pass_time(LIFETIME + 1)
    before = len(world.served)

    await goes_on(world)

    assert world.served[before:] == [3]


async def both_stopped(world: World, first: Point, second: Point) -> None:
    """Let A stop in a refresh and, once its lease is over, B in another one."""
    await world.pass_time(LIFETIME - 1)
    for replica, point in zip(world.replicas, (first, second), strict=True):
        replica.pauses_at = point
    await world.call(0)
    await world.pass_time(LEASE_SECONDS + 1)
    await world.call(1)


@at("grace")
async def test_an_attempt_that_has_begun_since_fences_the_one_before(world: World) -> None:
    """RF-04: what the EHR answered last is what counts, and it is not the first one's to write."""
    await both_stopped(world, ("commit_grant", "before"), ("EHR token", "after"))
    await goes_on(world)
    assert (await world.grant()).generation == 1

    world.replicas[1].pauses_at = None
    await world.run()

    assert (await world.grant()).generation == 2
    assert await world.stored_token() in world.ehr.valid


@at("strict", "telling", "grace")
async def test_whoever_has_lost_its_lease_sends_nothing_beside_the_one_who_has_it(world: World) -> None:
    """RF-04."""
    await both_stopped(world, ("intend_refresh", "before"), ("EHR token", "after"))

    await goes_on(world)

    assert len(world.ehr.requests) == 1


@at("strict")
async def test_what_was_concluded_from_silence_is_not_written_over_an_answer(world: World) -> None:
    """RF-08."""
    await both_stopped(world, ("commit_grant", "before"), ("end_grant", "before"))
    await goes_on(world)
    assert (await world.grant()).generation == 2

    world.replicas[1].pauses_at = None
    await world.run()

    assert (await world.grant()).state == "active"


@at("telling")
async def test_an_ehr_that_is_late_is_not_asked_what_became_of_a_request_before_it_has_ended(world: World) -> None:
    """RF-05."""
    world.ehr.fates.append("late")
    await world.pass_time(LIFETIME - 1)
    await world.call(0)
    await world.call(1)
    await world.pass_time(LATE_SECONDS)
    await world.check()

    assert len(world.ehr.requests) == 1


async def test_a_store_that_does_not_answer_is_asked_again_to_keep_what_is_in_hand(world: World) -> None:
    """RF-05."""
    with by_the_worlds_time():
        await stopped(world, "commit_grant", "before")
        (step,) = world.waiting
        world.replicas[0].pauses_at = None
        await world.go_on(step, well=False)
        await goes_on(world)

    assert ((await world.grant()).generation, len(world.ehr.requests)) == (2, 1)


@pytest.mark.parametrize("kind", get_args(Kind))
async def test_wherever_a_replica_stands_still_and_for_however_long_no_rule_is_broken(
    redis: Redis, tmp_path: Path, kind: Kind
) -> None:
    """RF-03, RF-04, RF-05: at each of the worst moments, also where a fail-over forgets what was written last."""
    assert isinstance(redis, StoreClient)
    settings = settings_of(tmp_path)
    with by_the_worlds_time():
        for point, seconds, forgets in itertools.product(
            WORST_POINTS, (1, LEASE_SECONDS + 1, LIFETIME + 1), (False, True)
        ):
            async with open_world(settings, redis, tmp_path, kind) as world:
                await world.pass_time(LIFETIME - 1)
                world.replicas[0].pauses_at = point
                await world.call(0)
                if forgets:
                    await world.forget()
                await world.pass_time(seconds)
                await world.call(1)
                await goes_on(world)
                await world.end()
