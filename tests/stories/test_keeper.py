"""What is renewed unasked (RF-06, RF-07), over replicas and through failures."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.app import Broker, open_broker
from broker.grants import Grant
from broker.refresh.keeper import AGAIN_SECONDS, AT_ONCE_PER_EHR
from broker.refresh.limits import Lane
from broker.settings import Settings
from broker.store import keys
from broker.vault import LocalKeyring
from tests.stage import Sandbox
from tests.stage.broker import KEY
from tests.stories.held import DUE, ENDED, FOREVER, Held, bearers, code_of, held_at, until

ALIVE = "refresh_while_alive = true"


@pytest.fixture
async def mortal(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[Held]:
    """A grant whose refresh token dies with its access token."""
    sandbox.switch(refresh_while_alive=True)
    async with held_at(sandbox, redis, tmp_path, ehr=ALIVE) as held:
        yield held


@asynccontextmanager
async def replica(
    held: Held, state: Path, every: float | None = None, *, settings: Settings | None = None
) -> AsyncIterator[Broker]:
    stage = held.stage
    async with open_broker(
        settings or stage.broker.settings,
        redis=stage.redis,
        kek=LocalKeyring([KEY]),
        audit_file=state / "replica.jsonl",
        clock=stage.clock,
        keep_every=every,
    ) as broker:
        yield broker


async def scheduled(held: Held) -> float | None:
    return await held.stage.redis.zscore(due_key(held), held.tag)


def due_key(held: Held) -> str:
    return keys.due(keys.part(held.tag), "sandbox")


async def test_left_alone_it_would_die(mortal: Held) -> None:
    """(RF-07): what the keeper is there for."""
    mortal.stage.clock.advance(ENDED)
    mortal.stage.sandbox.expire()

    answer = await mortal.read()

    assert (answer.status_code, code_of(answer)) == (401, "reauthorization_required")


async def test_nothing_is_renewed_before_it_is_due(mortal: Held) -> None:
    await mortal.stage.broker.keeper.look()

    assert mortal.refreshes() == 0
    assert await scheduled(mortal) == (await mortal.grant()).renew_at


async def test_a_running_broker_keeps_it(mortal: Held, tmp_path: Path) -> None:
    """(RF-07)."""
    mortal.stage.clock.advance(DUE)
    async with replica(mortal, tmp_path, every=0.02):

        async def renewed() -> bool:
            return (await mortal.grant()).generation == 2

        await until(renewed)

    assert mortal.refreshes() == 1


async def test_over_replicas_only_one_keeps_it(mortal: Held, tmp_path: Path) -> None:
    """(RF-07) (RF-04)."""
    async with replica(mortal, tmp_path) as other:
        mortal.stage.clock.advance(DUE)
        await asyncio.gather(*(one.keeper.look() for one in (mortal.stage.broker, other) for _ in range(5)))

    assert mortal.refreshes() == 1
    assert (await mortal.grant()).generation == 2


async def test_a_failed_renewal_is_tried_again_while_the_token_lives(mortal: Held) -> None:
    """(RF-07) (RF-08)."""
    mortal.stage.clock.advance(DUE - AGAIN_SECONDS - 2)
    mortal.stage.sandbox.fault("token_500", times=FOREVER)
    due = (await mortal.grant()).renew_at
    mortal.stage.clock.advance(max(0.0, due - mortal.stage.clock()))
    await mortal.stage.broker.keeper.look()
    assert (await mortal.grant()).generation == 1

    mortal.stage.sandbox.clear_faults()
    await mortal.stage.redis.zadd(due_key(mortal), {mortal.tag: mortal.stage.clock()})
    await mortal.stage.broker.keeper.look()

    assert (await mortal.grant()).generation == 2


async def test_a_grant_that_nobody_uses_any_more_is_let_go(mortal: Held) -> None:
    """(RF-07): after the time in which the app could still come back, 8 hours."""
    await mortal.stage.redis.hset(keys.grant(mortal.tag), "used_at", repr(mortal.stage.clock() - 8 * 3600))
    mortal.stage.clock.advance(DUE)

    await mortal.stage.broker.keeper.look()

    assert mortal.refreshes() == 0
    assert await scheduled(mortal) is None


async def test_a_revoked_grant_is_let_go(mortal: Held) -> None:
    await mortal.stage.broker.revoke_grant(mortal.tag, cause="test")
    mortal.stage.clock.advance(DUE)

    await mortal.stage.broker.keeper.look()

    assert mortal.refreshes() == 0
    assert await scheduled(mortal) is None


async def test_a_grant_in_use_is_renewed_ahead_of_its_end(held: Held) -> None:
    """(RF-06): no caller waits for it."""
    await held.read()
    await until(lambda: is_in_use(held))
    held.stage.clock.advance(DUE)

    await held.stage.broker.keeper.look()

    assert held.refreshes() == 1
    assert await scheduled(held) == (await held.grant()).renew_at
    assert (await held.read()).status_code == 200
    assert (held.refreshes(), bearers(held.stage.sandbox)) == (1, ["token 1", "token 2"])


async def is_in_use(held: Held) -> bool:
    return (await held.grant()).is_in_use


async def test_a_grant_that_nobody_used_since_its_last_renewal_is_let_go(held: Held) -> None:
    """(RF-06): an authorization is not kept for its own sake."""
    await held.read()
    await until(lambda: is_in_use(held))
    for _ in range(3):
        held.stage.clock.advance(DUE)
        await held.stage.broker.keeper.look()

    assert held.refreshes() == 1
    assert await scheduled(held) is None


async def test_a_grant_that_was_let_go_is_renewed_at_its_next_use_and_then_kept_again(held: Held) -> None:
    """(RF-06)."""
    held.stage.clock.advance(DUE)
    await held.stage.broker.keeper.look()
    assert (held.refreshes(), await scheduled(held)) == (0, None)

    assert (await held.read()).status_code == 200

    assert held.refreshes() == 1
    await until(lambda: is_scheduled(held))


async def is_scheduled(held: Held) -> bool:
    return await scheduled(held) == (await held.grant()).renew_at


async def test_a_use_is_written_down_at_once_after_a_renewal_and_then_once_in_a_while(held: Held) -> None:
    """(RF-13) (RF-06): a token of five minutes is renewed after three."""
    await held.read()
    await until(lambda: is_in_use(held))
    first = (await held.grant()).used_at
    held.stage.clock.advance(DUE - 10)
    await held.read()
    assert (await held.grant()).used_at == first
    await held.stage.redis.hset(keys.grant(held.tag), "used_at", repr(held.stage.clock() - 300))

    await held.read()

    async def is_written() -> bool:
        return (await held.grant()).used_at >= held.stage.clock() - 10

    await until(is_written)


@pytest.mark.parametrize(
    "unknown",
    [
        {"app": lambda known: tuple(app for app in known if app.id != "growth-chart")},
        {"ehr": lambda known: tuple(ehr.model_copy(update={"enabled": False}) for ehr in known)},
    ],
    ids=["app", "ehr"],
)
async def test_a_replica_that_does_not_know_the_app_or_the_ehr_leaves_the_grant_to_others(
    mortal: Held, tmp_path: Path, unknown: dict[str, Callable[[Any], Any]]
) -> None:
    """(RF-07): while a new configuration is rolled out, some replicas do not have it yet."""
    settings = mortal.stage.broker.settings
    older = settings.model_copy(update={name: change(getattr(settings, name)) for name, change in unknown.items()})
    mortal.stage.clock.advance(DUE)
    async with replica(mortal, tmp_path, settings=older) as behind:
        await behind.keeper.look()
    assert mortal.refreshes() == 0
    assert await scheduled(mortal) is not None

    await mortal.stage.redis.zadd(due_key(mortal), {mortal.tag: mortal.stage.clock()})
    await mortal.stage.broker.keeper.look()

    assert (await mortal.grant()).generation == 2


async def test_a_grant_that_nobody_knows_any_more_is_let_go_when_its_token_has_ended(
    mortal: Held, tmp_path: Path
) -> None:
    settings = mortal.stage.broker.settings.model_copy(update={"app": ()})
    mortal.stage.clock.advance(ENDED)
    async with replica(mortal, tmp_path, settings=settings) as behind:
        await behind.keeper.look()

    assert await scheduled(mortal) is None


async def test_a_grant_that_was_let_go_by_mistake_is_kept_again_once_it_is_used(mortal: Held) -> None:
    """(RF-07)."""
    await mortal.stage.redis.delete(due_key(mortal))
    mortal.stage.clock.advance(DUE)

    assert (await mortal.read()).status_code == 200

    assert await scheduled(mortal) == (await mortal.grant()).renew_at


@dataclass
class DeadEhr:
    """Many grants of an EHR that never answers, beside one of another."""

    healthy: Grant
    dead: Mapping[str, Grant]
    asked: Counter[str] = field(default_factory=Counter)

    async def read(self, tag: str) -> Grant:
        return self.dead.get(tag, self.healthy)

    async def renew(self, grant: Grant, _lane: Lane) -> Grant:
        self.asked[grant.terms.ehr] += 1
        if grant.tag in self.dead:
            await asyncio.Event().wait()
        return replace(grant, renew_at=grant.renew_at + 1000)


async def test_an_ehr_that_does_not_answer_keeps_no_other_ehrs_grants(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(RF-07) (RF-08)."""
    more = f'[[ehr]]\nid = "dead"\nfhir_base = "https://dead.example/r4"\n{ALIVE}\n'
    async with held_at(sandbox, redis, tmp_path, ehr=ALIVE, more=more) as held:
        held.stage.clock.advance(DUE)
        healthy, keeper = await held.grant(), held.stage.broker.keeper
        tags = [f"dead{number:08d}" for number in range(550)]
        dead = {tag: replace(healthy, tag=tag, terms=replace(healthy.terms, ehr="dead")) for tag in tags}
        fake: Any = DeadEhr(healthy, dead)
        for tag in tags:
            await redis.zadd(keys.due(keys.part(tag), "dead"), {tag: 1.0})
        keeper = replace(keeper, grants=fake, refresher=fake)

        running = asyncio.create_task(keeper.run(0.01))
        await until(lambda: fake.asked["sandbox"] == 1 and fake.asked["dead"] == AT_ONCE_PER_EHR)
        await asyncio.sleep(0.1)  # some looks more

        assert fake.asked == {"sandbox": 1, "dead": AT_ONCE_PER_EHR}
        assert keeper.at["dead"] == len(keeper.renewing) == AT_ONCE_PER_EHR
        keeper.stop()
        await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert (keeper.at["dead"], keeper.renewing) == (0, set())


async def test_a_replica_that_is_told_to_end_begins_nothing_more_and_finishes_what_it_began(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    async with held_at(sandbox, redis, tmp_path, ehr=ALIVE) as held:
        draining = False
        held.stage.clock.advance(DUE)
        held.stage.sandbox.fault("token_hold", seconds=0.3)
        running = asyncio.create_task(held.stage.broker.keeper.run(0.01, lambda: draining))
        await until(lambda: held.refreshes() == 1)

        draining = True
        await running

        assert (await held.grant()).generation == 2
