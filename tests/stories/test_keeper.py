"""Grants that would not survive being left alone (RF-07), over replicas and through failures."""

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
from broker.refresh.keeper import AGAIN_SECONDS, AT_ONCE_PER_EHR, WAITING_PER_EHR
from broker.settings import Settings
from broker.store import keys
from broker.vault import LocalKeyring
from tests.stage import Sandbox
from tests.stage.broker import KEY
from tests.stories.held import DUE, ENDED, FOREVER, Held, code_of, held_at, until

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
    return await held.stage.redis.zscore(keys.SCHEDULE, held.tag)


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
    await mortal.stage.redis.zadd(keys.SCHEDULE, {mortal.tag: mortal.stage.clock()})
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


async def test_other_grants_are_left_alone(held: Held) -> None:
    """(RF-07): only where the profile says so."""
    held.stage.clock.advance(DUE)

    await held.stage.broker.keeper.look()

    assert held.refreshes() == 0
    assert await scheduled(held) is None


async def test_a_use_is_written_down_once_in_a_while(held: Held) -> None:
    """(RF-13)."""
    first = (await held.grant()).used_at
    await held.read()
    assert (await held.grant()).used_at == first
    await held.stage.redis.hset(keys.grant(held.tag), "used_at", repr(first - 300))

    await held.read()

    assert (await held.grant()).used_at >= first


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
    assert await scheduled(mortal) == pytest.approx(mortal.stage.clock() + AGAIN_SECONDS, abs=5)

    await mortal.stage.redis.zadd(keys.SCHEDULE, {mortal.tag: mortal.stage.clock()})
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
    await mortal.stage.redis.delete(keys.SCHEDULE)
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

    async def renew(self, grant: Grant) -> Grant:
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
        tags = [f"dead{number:08d}" for number in range(WAITING_PER_EHR + 50)]
        dead = {tag: replace(healthy, tag=tag, terms=replace(healthy.terms, ehr="dead")) for tag in tags}
        fake: Any = DeadEhr(healthy, dead)
        await redis.zadd(keys.SCHEDULE, dict.fromkeys(tags, 1.0))
        keeper = replace(keeper, grants=fake, refresher=fake)

        running = asyncio.create_task(keeper.run(0.01))
        await until(lambda: fake.asked["sandbox"] == 1)

        assert fake.asked == {"sandbox": 1, "dead": AT_ONCE_PER_EHR}
        assert keeper.waiting["dead"] == len(keeper.renewing) == WAITING_PER_EHR
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert (keeper.waiting["dead"], keeper.renewing) == (0, set())
