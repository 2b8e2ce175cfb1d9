"""One refresh of a grant at a time, whoever asks, whoever leaves, whatever the store does (RF-04, RF-05)."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from broker.app import open_broker
from broker.errors import StoreUnavailable
from broker.grants import Grant
from broker.scopes import Scopes
from broker.store import keys
from broker.store.connection import Script, connect
from broker.store.embedded import EmbeddedServer
from broker.store.scripts import script
from broker.vault import LocalKeyring
from tests.stage import App, Sandbox
from tests.stage.broker import KEY
from tests.stories.held import (
    DUE,
    ENDED,
    Held,
    bearers,
    code_of,
    held_at,
    until,
)

# How often: RF-04


async def test_fifty_callers_at_its_end_cause_one_refresh(held: Held) -> None:
    """RF-04, NC-04."""
    held.stage.clock.advance(ENDED)
    held.stage.sandbox.fault("token_hold", seconds=0.3)

    answers = await asyncio.gather(*(held.read() for _ in range(50)))

    assert {answer.status_code for answer in answers} == {200}
    assert held.refreshes() == 1
    assert set(bearers(held.stage.sandbox)) == {"token 2"}


@asynccontextmanager
async def replica(held: Held, state: Path) -> AsyncIterator[Held]:
    """A second broker with the same settings, key and store, in front of the same app."""
    stage = held.stage
    async with open_broker(
        stage.broker.settings,
        redis=stage.redis,
        kek=LocalKeyring([KEY]),
        audit_file=state / "replica.jsonl",
        clock=stage.clock,
        keep_every=None,
    ) as broker:
        transport = httpx2.ASGITransport(app=broker.application)
        app = App(held.app.base, http=httpx2.AsyncClient(transport=transport, timeout=30))
        yield Held(stage, app, held.handle, held.path)
        await app.close()


async def test_two_brokers_with_25_callers_each_cause_one_refresh(held: Held, tmp_path: Path) -> None:
    """RF-04, NC-04."""
    async with replica(held, tmp_path) as other:
        held.stage.clock.advance(ENDED)
        held.stage.sandbox.fault("token_hold", seconds=0.3)

        answers = await asyncio.gather(*(one.read() for one in (held, other) for _ in range(25)))

    assert {answer.status_code for answer in answers} == {200}
    assert held.refreshes() == 1
    assert (await held.grant()).generation == 2


async def test_twenty_callers_whose_token_the_ehr_refuses_cause_one_refresh(held: Held) -> None:
    """RF-04, PX-08."""
    held.stage.sandbox.expire()

    answers = await asyncio.gather(*(held.read() for _ in range(20)))

    assert {answer.status_code for answer in answers} == {200}
    assert held.refreshes() == 1
    assert set(bearers(held.stage.sandbox)) == {"token 1", "token 2"}


async def test_a_thousand_handles_share_one_refresh_and_end_together(held: Held) -> None:
    """RF-04, HB-08."""
    stage, handles = held.stage, held.stage.broker.handles

    async def one(number: int) -> str:
        issued = await handles.issue(
            tag=held.tag,
            app="growth-chart",
            ehr="sandbox",
            scopes=Scopes.parse("patient/*.rs"),
            family=f"{number:024x}",
            lifetime=300,
            refresh_lifetime=3600,
            announce=lambda _: None,
        )
        return issued.handle.reveal()

    texts = [text for batch in range(0, 1000, 50) for text in await asyncio.gather(*map(one, range(batch, batch + 50)))]
    assert len(await handles.live(held.tag)) == 1001
    stage.clock.advance(ENDED)
    answers = await asyncio.gather(*(held.app.fhir(text, held.path) for text in texts[::25]))
    assert {answer.status_code for answer in answers} == {200}
    assert held.refreshes() == 1

    assert await stage.broker.revoke_grant(held.tag, cause="test") == "revoked"

    left = [key async for key in stage.redis.scan_iter(f"sb:{{{held.tag}}}:*") if b":code:" not in key]
    assert left == [keys.grant(held.tag).encode()]
    answers = await asyncio.gather(*(held.app.fhir(text, held.path) for text in texts[::25]))
    assert {answer.status_code for answer in answers} == {401}


# The store is away


async def test_an_answer_that_finds_the_store_away_is_stored_when_it_is_back(
    sandbox: Sandbox, own_store: EmbeddedServer, tmp_path: Path
) -> None:
    """RF-05."""
    async with connect(own_store.url()) as redis, held_at(sandbox, redis, tmp_path) as held:
        sandbox.fault("token_hold", seconds=0.5)
        held.stage.clock.advance(ENDED)
        reading = asyncio.create_task(held.read())
        await until(lambda: held.refreshes() == 1)
        os.kill(own_store.process_id, signal.SIGSTOP)
        await asyncio.sleep(2)  # what the store's absence lasts: the EHR answers into it
        assert not reading.done()
        os.kill(own_store.process_id, signal.SIGCONT)

        assert (await reading).status_code == 200

        assert (await held.grant()).generation == 2
        assert (held.refreshes(), sandbox.counts()["reuse_alarms"]) == (1, 0)


async def test_a_store_that_is_away_before_the_request_costs_neither_the_grant_nor_a_second(
    sandbox: Sandbox, own_store: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RF-05."""
    async with connect(own_store.url()) as redis, held_at(sandbox, redis, tmp_path) as held:
        held.stage.clock.advance(ENDED)
        redeem, handles = type(held.stage.broker.handles).redeem, held.stage.broker.handles

        async def redeem_then_stop(*arguments: Any) -> Any:
            found = await redeem(handles, *arguments)
            os.kill(own_store.process_id, signal.SIGSTOP)
            return found

        monkeypatch.setattr(handles, "redeem", redeem_then_stop)
        began = time.monotonic()
        answer = await held.read()
        assert (answer.status_code, code_of(answer)) == (503, "store_unavailable")
        assert time.monotonic() - began < 5
        os.kill(own_store.process_id, signal.SIGCONT)
        monkeypatch.undo()

        assert (await held.read()).status_code == 200

        assert held.refreshes() == 1
        assert ((await held.grant()).state, (await held.grant()).generation) == ("active", 2)


@pytest.mark.parametrize("name", ["claim_refresh", "enter_gate", "intend_refresh"])
async def test_a_step_whose_answer_the_store_did_not_live_to_give_is_taken_back_when_it_can_be(
    held: Held, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The script ran, so there is a lease or an intent of an attempt that sent nothing (RF-05)."""
    step, release, call = script(name)._sha, script("release_refresh")._sha, Script.__call__

    async def cut_off(self: Script, *arguments: Any, **options: Any) -> Any:
        answer = None if self._sha == release else await call(self, *arguments, **options)
        if self._sha in {step, release}:
            raise StoreUnavailable("TimeoutError")
        return answer

    monkeypatch.setattr(Script, "__call__", cut_off)
    held.stage.clock.advance(ENDED)
    began = time.monotonic()
    answer = await held.read()
    assert (answer.status_code, code_of(answer)) == (503, "store_unavailable")
    assert time.monotonic() - began < 5, "callers do not wait for the store to come back"
    assert await held.stage.redis.exists(keys.lease(held.tag)) == 1
    monkeypatch.undo()

    assert (await held.read()).status_code == 200

    assert time.monotonic() - began < 5, "nobody waits for the lease to run out"
    assert held.refreshes() == 1


# Somebody leaves, or ends it, while it runs


async def test_a_caller_that_goes_away_does_not_stop_the_refresh(held: Held) -> None:
    """RF-04, RF-05."""
    held.stage.sandbox.fault("token_hold", seconds=0.5)
    held.stage.clock.advance(ENDED)
    async with httpx2.AsyncClient(timeout=0.2, trust_env=False) as hasty:
        with pytest.raises(httpx2.ReadTimeout):
            await hasty.get(f"{held.stage.base}/{held.path}", headers={"Authorization": f"Bearer {held.handle}"})

    async def renewed() -> bool:
        return (await held.grant()).generation == 2

    await until(renewed)
    assert (await held.read()).status_code == 200
    assert held.refreshes() == 1


async def test_a_grant_revoked_while_it_is_refreshed_stays_revoked_and_its_new_tokens_are_not_kept(held: Held) -> None:
    """HB-08."""
    held.stage.sandbox.fault("token_hold", seconds=0.5)
    held.stage.clock.advance(ENDED)
    reading = asyncio.create_task(held.read())
    await until(lambda: held.refreshes() == 1)

    await held.stage.broker.revoke_grant(held.tag, cause="test")

    assert (await reading).status_code == 401
    assert (await held.grant()).state == "revoked"
    assert (await held.grant()).sealed_tokens is None
    assert (await held.read()).status_code == 401
    assert "fhir" not in {entry["kind"] for entry in held.stage.sandbox.journal()}


async def test_a_grant_refreshed_while_it_is_revoked_is_revoked_at_the_ehr_by_its_newest_token(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HB-08, IN-06."""
    grants = held.stage.broker.grants
    read = grants.read

    async def read_then_renewed(tag: str) -> Grant:
        monkeypatch.undo()
        grant = await read(tag)
        held.stage.clock.advance(DUE)
        assert (await held.read()).status_code == 200
        return grant

    monkeypatch.setattr(grants, "read", read_then_renewed)

    assert await held.stage.broker.revoke_grant(held.tag, cause="test") == "revoked"

    issued = [
        entry["sha256"][:16] for entry in held.stage.sandbox.journal("issued") if entry["token"] == "refresh_token"
    ]
    revoked = held.stage.sandbox.journal("revoke")[-1]["parameters"]["token"]
    assert revoked == f"sha256:{issued[-1]}"
    assert len(issued) == 2
