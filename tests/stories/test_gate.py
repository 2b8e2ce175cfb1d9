"""All replicas share the gate before an EHR's token endpoint; who is held back has sent nothing (RF-08)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from broker.app import open_broker
from broker.errors import EhrHeldBack, StoreUnavailable
from broker.grants import Grant
from broker.refresh.gate import FIRST_BREAK_SECONDS, Gate
from broker.refresh.limits import Lane
from broker.store import keys
from broker.store.connection import Script
from broker.store.scripts import script
from broker.vault import LocalKeyring
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stage.broker import EHR, KEY
from tests.stories.held import DUE, ENDED, Held, code_of, hold, until


@asynccontextmanager
async def replica(stage: BrokerStage, state: Path) -> AsyncIterator[BrokerStage]:
    """A second broker on the same store, that apps reach in place of the first."""
    async with open_broker(
        stage.broker.settings,
        redis=stage.redis,
        kek=LocalKeyring([KEY]),
        audit_file=state / "replica.jsonl",
        clock=stage.clock,
        keep_every=None,
    ) as broker:
        yield BrokerStage(broker, stage.public_url, stage.redis, stage.sandbox, state, stage.clock)


def through(other: BrokerStage, held: Held) -> Held:
    """The same handle, shown to the other broker."""
    transport = httpx2.ASGITransport(app=other.broker.application)
    app = App(held.app.base, http=httpx2.AsyncClient(transport=transport, timeout=30))
    return Held(other, app, held.handle, held.path)


@asynccontextmanager
async def two_grants(sandbox: Sandbox, redis: Redis, state: Path, ehr: str = "") -> AsyncIterator[tuple[Held, Held]]:
    """Two grants of one EHR, the second one shown to another replica than the first."""
    async with (
        open_stage(sandbox, redis, state, authentication="client_secret_basic", ehr=ehr) as stage,
        replica(stage, state) as other,
    ):
        app = stage.app()
        first, second = await hold(stage, app), await hold(stage, app)
        elsewhere = through(other, second)
        try:
            yield first, elsewhere
        finally:
            await elsewhere.app.close()
            await app.close()


async def is_untouched(held: Held) -> bool:
    grant = await held.grant()
    facts = (grant.state, grant.generation, grant.hold_until, grant.attempted_by, grant.trouble)
    return facts == ("active", 1, 0.0, None, None) and not await held.stage.redis.exists(keys.lease(held.tag))


def gate_of(held: Held) -> Gate:
    return held.stage.broker.keeper.refresher.renewal.sending.gate


async def renew(held: Held, lane: Lane = "background") -> Grant:
    return await held.stage.broker.keeper.refresher.renew(await held.grant(), lane)


def count_entering(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows each time the store is asked whether somebody may enter."""
    entering, call, asked = script("enter_gate")._sha, Script.__call__, list[str]()

    async def counted(self: Script, *arguments: Any, **options: Any) -> Any:
        asked.extend(["enter"] * (self._sha == entering))
        return await call(self, *arguments, **options)

    monkeypatch.setattr(Script, "__call__", counted)
    return asked


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, code_of(answer)


@pytest.mark.parametrize("fault", ["token_503", "token_429"])
async def test_a_pause_that_an_ehr_asked_one_replica_for_is_kept_by_all_and_for_every_grant(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, fault: str
) -> None:
    async with two_grants(sandbox, redis, tmp_path) as (first, second):
        first.stage.clock.advance(ENDED)
        sandbox.fault(fault, retry_after=40)
        assert refusal(await first.read()) == (503, "ehr_unreachable")

        answer = await second.read()

        assert refusal(answer) == (503, "ehr_held_back")
        assert 30 <= int(answer.headers["retry-after"]) <= 40
        assert first.refreshes() == 1
        assert await is_untouched(second)
        second.stage.clock.advance(40.5)
        assert (await second.read()).status_code == 200


async def test_no_pause_is_longer_for_everybody_than_the_setting_says(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """The grant that heard of it still waits for all of it."""
    async with two_grants(sandbox, redis, tmp_path, "token_longest_pause = 30") as (first, second):
        first.stage.clock.advance(ENDED)
        sandbox.fault("token_503", retry_after=3600)
        await first.read()
        first.stage.clock.advance(30.5)

        assert (await second.read()).status_code == 200
        assert refusal(await first.read()) == (503, "ehr_unreachable")
        assert first.refreshes() == 2


async def test_an_ehr_that_fails_is_left_alone_by_all_until_one_request_finds_that_it_works(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    async with two_grants(sandbox, redis, tmp_path, "token_failures = 2") as (first, second):
        first.stage.clock.advance(ENDED)
        sandbox.fault("token_500", times=2)
        assert refusal(await first.read()) == (503, "ehr_unreachable")
        assert refusal(await first.read()) == (503, "ehr_unreachable")
        assert refusal(await second.read()) == (503, "ehr_held_back")
        assert first.refreshes() == 2
        assert await is_untouched(second)

        first.stage.clock.advance(FIRST_BREAK_SECONDS)
        with pytest.raises(EhrHeldBack, match="is left alone"):  # it may be this replica alone that fails
            await renew(first)
        sandbox.fault("token_hold", seconds=0.6)
        reading = asyncio.create_task(second.read())
        await until(lambda: first.refreshes() == 3)
        gate_of(first).closed.clear()
        with pytest.raises(EhrHeldBack, match="one request finds out"):
            await renew(first)
        assert first.refreshes() == 3

        assert (await reading).status_code == 200
        assert (await first.read()).status_code == 200


async def test_a_probe_that_fails_makes_the_next_break_longer(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> None:
    async with two_grants(sandbox, redis, tmp_path, "token_failures = 1") as (first, second):
        first.stage.clock.advance(ENDED)
        sandbox.fault("token_500", times=2)
        await first.read()
        first.stage.clock.advance(FIRST_BREAK_SECONDS)
        await second.read()
        assert first.refreshes() == 2

        second.stage.clock.advance(FIRST_BREAK_SECONDS + 0.5)
        gate_of(first).closed.clear()
        answer = await first.read()

        assert refusal(answer) == (503, "ehr_held_back")
        assert 1 <= int(answer.headers["retry-after"]) <= 5
        assert first.refreshes() == 2


async def test_a_launch_and_a_caller_pass_while_background_work_is_held_back(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    async with two_grants(sandbox, redis, tmp_path, "token_concurrency = 2\nrefresh_while_alive = true") as both:
        first, second = both
        began = first.stage.clock() + DUE
        await redis.zadd(keys.gate_slots(EHR), {"another": began + 60})
        first.stage.clock.advance(DUE)

        await second.stage.broker.keeper.look()

        assert first.refreshes() == 0
        assert await is_untouched(second)
        planned = await redis.zscore(keys.due(keys.part(second.tag), EHR), second.tag)
        assert planned is not None
        assert began + 1 <= planned <= second.stage.clock() + 1
        assert "access_token" in await first.app.standalone()
        second.stage.clock.advance(ENDED - DUE)
        assert (await second.read()).status_code == 200


async def test_a_caller_who_joined_background_work_that_was_held_back_asks_for_himself(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    async with two_grants(sandbox, redis, tmp_path, "token_concurrency = 2") as (first, second):
        second.stage.clock.advance(ENDED)
        await redis.zadd(keys.gate_slots(EHR), {"another": second.stage.clock() + 60})
        grant, refresher = await second.grant(), second.stage.broker.keeper.refresher

        background, caller = await asyncio.gather(
            refresher.renew(grant, "background"), refresher.renew(grant), return_exceptions=True
        )

        assert isinstance(background, EhrHeldBack)
        assert isinstance(caller, Grant)
        assert (caller.generation, first.refreshes()) == (2, 1)


async def test_a_token_that_lives_serves_on_at_once_while_its_ehr_is_left_alone(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_grants(sandbox, redis, tmp_path, "token_concurrency = 2") as (first, second):
        second.stage.clock.advance(DUE)
        ends = second.stage.clock() + 60
        await redis.zadd(keys.gate_slots(EHR), {"another": ends, "a third": ends})
        asked = count_entering(monkeypatch)

        answers = [await second.read() for _ in range(3)]

        assert [answer.status_code for answer in answers] == [200] * 3
        assert (len(asked), first.refreshes()) == (3, 0), "who waits for a slot asks again and again"
        assert await is_untouched(second)


async def test_the_keeper_leaves_all_grants_of_an_ehr_alone_for_as_long_as_its_gate_said(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    async with two_grants(sandbox, redis, tmp_path, "refresh_while_alive = true") as (first, second):
        first.stage.clock.advance(DUE)
        ends = first.stage.clock() + 60
        await redis.hset(keys.gate(EHR), "paused", repr(ends))
        keeper = first.stage.broker.keeper

        await keeper.look()
        await redis.zadd(keys.due(keys.part(second.tag), EHR), {second.tag: 1.0})
        await keeper.look()

        planned = await redis.zscore(keys.due(keys.part(first.tag), EHR), first.tag)
        assert planned is not None
        assert ends - 0.01 <= planned <= ends + 5
        assert await redis.zscore(keys.due(keys.part(second.tag), EHR), second.tag) == 1.0
        assert first.refreshes() == 0
        first.stage.clock.advance(60.1)
        await first.read()
        assert keeper.held[EHR] < first.stage.clock()


async def test_a_slot_whose_holder_finds_the_store_away_is_given_back_when_it_is_there_again(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, call = script("leave_gate")._sha, Script.__call__
    away = True

    async def unsteady(self: Script, *arguments: Any, **options: Any) -> Any:
        if away and self._sha == left:
            raise StoreUnavailable("TimeoutError")
        return await call(self, *arguments, **options)

    monkeypatch.setattr(Script, "__call__", unsteady)
    held.stage.clock.advance(ENDED)
    assert (await held.read()).status_code == 200, "nobody waits for it"
    assert await held.stage.redis.zcard(keys.gate_slots(EHR)) == 1

    away = False

    async def is_free() -> bool:
        return await held.stage.redis.zcard(keys.gate_slots(EHR)) == 0

    await until(is_free)


async def test_who_waits_for_a_slot_waits_in_line_and_one_of_them_asks_the_store(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, ehr = gate_of(held), held.stage.broker.directory.ehr(EHR)
    slots, ends = keys.gate_slots(EHR), held.stage.clock() + 60
    await held.stage.redis.zadd(slots, {f"other {number}": ends for number in range(ehr.token_concurrency)})
    asked, loop = count_entering(monkeypatch), asyncio.get_running_loop()

    async def pass_through(number: int) -> int:
        async with gate.passage(ehr, "interactive", takes=1.0):
            return number

    began, waiting = loop.time(), [asyncio.create_task(pass_through(number)) for number in range(20)]
    await asyncio.sleep(0.5)
    assert len(asked) < 22 + (loop.time() - began) / 0.05, "each once, and then one of them every 50 ms"
    await held.stage.redis.delete(slots)

    assert await asyncio.gather(*waiting) == list(range(20))


async def test_the_lease_is_as_long_as_all_credentials_in_turn_may_take(held: Held) -> None:
    """RF-05, RG-11."""
    renewal, grant = held.stage.broker.keeper.refresher.renewal, await held.grant()
    assert await renewal._claim(grant, "me@1", "") == "claimed"

    assert await renewal.sending._intend(grant, "me@1", 180.0) >= held.stage.clock() + 180

    assert await held.stage.redis.pttl(keys.lease(held.tag)) > 180_000


async def test_a_caller_who_finds_every_slot_taken_waits_a_moment_for_one(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    async with two_grants(sandbox, redis, tmp_path, "token_concurrency = 2") as (first, second):
        slots = keys.gate_slots(EHR)
        first.stage.clock.advance(ENDED)
        await redis.zadd(slots, {"another": first.stage.clock() + 60, "a third": first.stage.clock() + 60})
        reading = asyncio.create_task(second.read())
        await asyncio.sleep(0.2)
        assert (first.refreshes(), reading.done()) == (0, False)

        await redis.zrem(slots, "another")

        assert (await reading).status_code == 200


async def test_who_waits_in_vain_for_a_slot_has_sent_nothing(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> None:
    async with two_grants(sandbox, redis, tmp_path, "token_concurrency = 2") as (first, second):
        second.stage.clock.advance(ENDED)
        ends = second.stage.clock() + 60
        await redis.zadd(keys.gate_slots(EHR), {"another": ends, "a third": ends})
        reading = asyncio.create_task(second.read())
        await asyncio.sleep(0.1)
        second.stage.clock.advance(3)  # its patience

        assert refusal(await reading) == (503, "ehr_held_back")

        assert first.refreshes() == 0
        assert await is_untouched(second)


async def test_the_budget_of_a_minute_is_one_for_all_replicas(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> None:
    async with two_grants(sandbox, redis, tmp_path, "token_requests_per_minute = 6") as (first, second):
        first.stage.clock.advance(ENDED)  # and with it what the two launches have spent
        assert (await first.read()).status_code == 200
        assert (await second.read()).status_code == 200
        second.stage.sandbox.expire()
        second.stage.clock.advance(6)

        answer = await second.read()

        assert refusal(answer) == (503, "ehr_held_back")
        assert 4 <= int(answer.headers["retry-after"]) <= 9
        assert first.refreshes() == 2


async def test_codes_that_somebody_made_up_keep_nobody_from_an_ehr_that_fails_on_them(held: Held) -> None:
    """Whoever begins a launch says what the code is, and needs no account for it."""
    held.stage.sandbox.fault("token_500", times=20)
    for _ in range(20):
        landing = await held.app.authorize()
        assert landing.parameters["error"] == "temporarily_unavailable"

    assert (await gate_of(held).state(EHR)).name == "open"
    held.stage.clock.advance(DUE)
    assert (await renew(held)).generation == 2


async def test_launches_that_anybody_begins_leave_room_for_who_has_access(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    limits = "token_concurrency = 10\ntoken_requests_per_minute = 1000000"
    async with two_grants(sandbox, redis, tmp_path, limits) as (held, _):
        gate, ehr = gate_of(held), held.stage.broker.directory.ehr(EHR)
        async with AsyncExitStack() as launches:
            held.stage.clock.advance(ENDED)
            for _ in range(9):
                await launches.enter_async_context(gate.passage(ehr, "launch", takes=60))
            one_more = asyncio.create_task(launches.enter_async_context(gate.passage(ehr, "launch", takes=60)))
            await until(gate.lines[EHR, "launch"].locked)

            assert (await held.read()).status_code == 200
            with pytest.raises(EhrHeldBack, match="token_concurrency"):
                await one_more


async def test_a_launch_is_told_to_come_again_while_its_ehr_is_left_alone(stage: BrokerStage, app: App) -> None:
    await app.standalone()
    await stage.redis.hset(keys.gate(EHR), "paused", repr(stage.clock() + 40))
    sent = stage.sandbox.counts()["token.authorization_code"]

    landing = await app.authorize()

    assert landing.parameters["error"] == "temporarily_unavailable"
    assert stage.sandbox.counts()["token.authorization_code"] == sent


async def test_a_backend_app_is_told_to_come_again_while_the_ehr_is_left_alone(
    stage: BrokerStage, reports: App
) -> None:
    await stage.redis.hset(keys.gate(EHR), "paused", repr(stage.clock() + 40))

    for _ in range(40):  # more than an app may ask for in a minute
        answer = await reports.token(grant_type="client_credentials", resource=stage.base, scope="system/Patient.rs")
        assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
        assert 20 <= int(answer.headers["retry-after"]) <= 40

    assert stage.sandbox.counts().get("token.client_credentials", 0) == 0
    stage.clock.advance(0.5)
    await stage.redis.delete(keys.gate(EHR))
    stage.broker.keeper.refresher.renewal.sending.gate.closed.clear()
    answer = await reports.token(grant_type="client_credentials", resource=stage.base, scope="system/Patient.rs")
    assert answer.status_code == 200


async def test_introspection_waits_at_the_gate_and_revocation_does_not(held: Held) -> None:
    """(IN-06): giving access back is never held back."""
    await held.stage.redis.hset(keys.gate(EHR), "paused", repr(held.stage.clock() + 40))

    with pytest.raises(EhrHeldBack):
        await held.stage.broker.introspect_grant(held.tag)
    assert held.stage.sandbox.counts().get("introspect", 0) == 0

    assert await held.stage.broker.revoke_grant(held.tag, cause="test") == "revoked"
    assert held.stage.sandbox.counts()["revoke"] >= 1


async def test_a_broker_that_was_stopped_between_intent_and_sending_sends_nothing(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RF-05: its lease may be over, and another replica may have sent the same refresh token since."""
    intended, call = script("intend_refresh")._sha, Script.__call__

    async def stopped(self: Script, *arguments: Any, **options: Any) -> Any:
        answer = await call(self, *arguments, **options)
        if self._sha == intended:
            held.stage.clock.advance(58.5)  # the lease lives on for less than the request's time limit
        return answer

    held.stage.clock.advance(ENDED)
    monkeypatch.setattr(Script, "__call__", stopped)
    answer = await held.read()
    monkeypatch.undo()

    assert refusal(answer) == (503, "ehr_held_back")
    assert held.refreshes() == 0
    assert await is_untouched(held)
    assert (await held.read()).status_code == 200


async def test_a_request_that_the_lease_may_not_outlive_is_not_sent(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """RF-05: whichever of a registration's credentials it is the turn of."""
    async with two_grants(sandbox, redis, tmp_path) as (held, _):
        sending = held.stage.broker.keeper.refresher.renewal.sending
        asking = held.stage.broker.keeper.refresher.renewal.asking
        grant = await held.grant()
        ask = await asking.prepare(grant, await held.stage.broker.grants.open_tokens(grant))

        with pytest.raises(EhrHeldBack, match="nothing was sent"):
            await sending._ask(grant, ask, held.stage.clock() + ask.timeout - 0.1)

        assert held.refreshes() == 0
