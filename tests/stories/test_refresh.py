"""A grant is kept current: one refresh at a time, never a lost token, never the same refresh token twice (RF-01…RF-15).

Access tokens live for 100 seconds here, so one is due after 90. The stage's clock moves, the sandbox's does not.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from broker.app import open_broker
from broker.grants import Grant
from broker.scopes import Scopes
from broker.store import keys
from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer, wheel_server
from broker.store.scripts import script
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stage.broker import KEY

LIFETIME, DUE, ENDED = 100, 92, 101
SHORT_LIFETIME, SHORT_DUE = 20, 19
"""For `private_key_jwt`: the sandbox takes no assertion whose `nbf`, 30 seconds back, is in its future."""
FOREVER = -1


@dataclass
class Held:
    """An app with a handle."""

    stage: BrokerStage
    app: App
    handle: str
    path: str

    @property
    def tag(self) -> str:
        return self.handle[4:16]

    async def read(self) -> httpx2.Response:
        return await self.app.fhir(self.handle, self.path)

    async def grant(self) -> Grant:
        return await self.stage.broker.grants.read(self.tag)

    def refreshes(self) -> int:
        return int(self.stage.sandbox.counts()["token.refresh_token"])


async def hold(stage: BrokerStage, app: App, lifetime: int = LIFETIME) -> Held:
    stage.sandbox.fault("token_lifetime", seconds=lifetime)
    answer = await app.standalone()
    return Held(stage, app, answer["access_token"], f"Patient/{answer['patient']}")


@pytest.fixture
async def stage(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[BrokerStage]:
    async with open_stage(sandbox, redis, tmp_path, authentication="client_secret_basic") as stage:
        yield stage


@pytest.fixture
async def held(stage: BrokerStage, app: App) -> Held:
    return await hold(stage, app)


@asynccontextmanager
async def held_at(sandbox: Sandbox, redis: Redis, state: Path, **options: Any) -> AsyncIterator[Held]:
    """A stage of another kind than the fixture's."""
    lifetime = options.pop("lifetime", LIFETIME)
    async with open_stage(sandbox, redis, state, **{"authentication": "client_secret_basic", **options}) as stage:
        app = stage.app()
        yield await hold(stage, app, lifetime)
        await app.close()


async def until(condition: Callable[[], Awaitable[bool] | bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            met = condition()
            if met if isinstance(met, bool) else await met:
                return
            await asyncio.sleep(0.01)


def code_of(answer: httpx2.Response) -> str:
    outcome = answer.json()
    assert outcome["resourceType"] == "OperationOutcome"
    return str(outcome["issue"][0]["details"]["coding"][0]["code"])


def bearers(sandbox: Sandbox) -> list[str]:
    """Which issued access token each FHIR call brought, as its number."""
    issued = [entry["sha256"][:16] for entry in sandbox.journal("issued") if entry["token"] == "access_token"]
    return [f"token {issued.index(entry['bearer']) + 1}" for entry in sandbox.journal("fhir")]


def refresh_audits(stage: BrokerStage) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, stage.audit_lines()) if line["event"] == "grant.refresh"]


# When


@pytest.mark.parametrize(
    ("after", "refreshes", "bearer"), [(85, 0, "token 1"), (DUE, 1, "token 2"), (150, 1, "token 2")]
)
async def test_a_token_is_renewed_before_the_call_once_it_is_due(
    held: Held, after: int, refreshes: int, bearer: str
) -> None:
    held.stage.clock.advance(after)

    assert (await held.read()).status_code == 200

    assert held.refreshes() == refreshes
    assert bearers(held.stage.sandbox) == [bearer]
    assert (await held.grant()).generation == 1 + refreshes


async def test_each_refresh_is_audited_before_and_after(held: Held) -> None:
    held.stage.clock.advance(DUE)
    await held.read()

    said = [(line["outcome"], line["reason"], line["generation"]) for line in refresh_audits(held.stage)]
    assert said == [("allowed", "due", 1), ("allowed", "answered, and the store said ok", 1)]


@pytest.mark.parametrize(
    ("fault", "parameters", "lifetime"),
    [
        ("token_no_expires_in", {}, 300),
        ("token_members", {"set": {"expires_in": 0}}, 300),
        ("token_members", {"set": {"expires_in": "soon"}}, 300),
        ("token_expires_in_string", {}, LIFETIME),
    ],
)
async def test_a_lifetime_is_read_as_it_comes_or_taken_to_be_300_seconds(
    stage: BrokerStage, app: App, fault: str, parameters: dict[str, Any], lifetime: int
) -> None:
    stage.sandbox.fault(fault, **parameters)
    held = await hold(stage, app)
    grant = await held.grant()

    assert grant.expires_at - grant.since == pytest.approx(lifetime, abs=0.5)
    assert grant.expires_at - grant.renew_at == min(30, lifetime / 10)
    stage.sandbox.fault(fault, **parameters)
    stage.clock.advance(lifetime - 5)
    if lifetime < 300:  # the handle itself lives 300 seconds
        assert (await held.read()).status_code == 200
        assert held.refreshes() == 1


# How often: RF-04


async def test_fifty_callers_at_its_end_cause_one_refresh(held: Held) -> None:
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
        stage.broker.settings, redis=stage.redis, keys=[KEY], audit_file=state / "replica.jsonl", clock=stage.clock
    ) as broker:
        transport = httpx2.ASGITransport(app=broker.application)
        app = App(held.app.base, http=httpx2.AsyncClient(transport=transport, timeout=30))
        yield Held(stage, app, held.handle, held.path)
        await app.close()


async def test_two_brokers_with_25_callers_each_cause_one_refresh(held: Held, tmp_path: Path) -> None:
    async with replica(held, tmp_path) as other:
        held.stage.clock.advance(ENDED)
        held.stage.sandbox.fault("token_hold", seconds=0.3)

        answers = await asyncio.gather(*(one.read() for one in (held, other) for _ in range(25)))

    assert {answer.status_code for answer in answers} == {200}
    assert held.refreshes() == 1
    assert (await held.grant()).generation == 2


async def test_twenty_callers_whose_token_the_ehr_refuses_cause_one_refresh(held: Held) -> None:
    held.stage.sandbox.expire()

    answers = await asyncio.gather(*(held.read() for _ in range(20)))

    assert {answer.status_code for answer in answers} == {200}
    assert held.refreshes() == 1
    assert set(bearers(held.stage.sandbox)) == {"token 1", "token 2"}


async def test_a_thousand_handles_share_one_refresh_and_end_together(held: Held) -> None:
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


# With what: RF-01, RF-02, RF-03


@pytest.mark.parametrize(
    ("authentication", "sent", "header"),
    [
        ("none", {"client_id"}, False),
        ("client_secret_basic", set(), True),
        ("private_key_jwt", {"client_assertion_type", "client_assertion"}, False),
    ],
)
async def test_a_refresh_authenticates_as_the_code_exchange_did_and_asks_for_no_scope(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, authentication: str, sent: set[str], *, header: bool
) -> None:
    async with held_at(sandbox, redis, tmp_path, authentication=authentication, lifetime=SHORT_LIFETIME) as held:
        held.stage.clock.advance(SHORT_DUE)
        assert (await held.read()).status_code == 200

    exchange, refresh = sandbox.journal("token")
    assert refresh["status"] == 200
    assert set(refresh["parameters"]) == {"grant_type", "refresh_token"} | sent
    assert refresh["authorization"] is exchange["authorization"] is header


@pytest.mark.parametrize(
    ("refresh", "withheld_at", "distinct"),
    [("rotate", None, 3), ("keep", None, 1), ("rotate", 0, 2), ("rotate", 1, 2)],
    ids=["always rotates", "never rotates", "omits the first", "omits the second"],
)
async def test_a_new_refresh_token_replaces_the_old_and_a_missing_one_does_not(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, refresh: str, withheld_at: int | None, distinct: int
) -> None:
    async with held_at(sandbox, redis, tmp_path, refresh=refresh) as held:
        for number in range(3):
            if number == withheld_at:
                sandbox.fault("token_no_refresh_token")
            held.stage.clock.advance(DUE)
            assert (await held.read()).status_code == 200

    spent = [entry["parameters"]["refresh_token"] for entry in sandbox.journal("token")[1:]]
    assert len(spent) == 3
    assert len(set(spent)) == distinct
    assert sandbox.counts()["reuse_alarms"] == 0


# The EHR cannot now: RF-08


@pytest.mark.parametrize(
    ("fault", "status", "code", "issue"),
    [
        ("token_500", 503, "ehr_unreachable", "transient"),
        ("token_503", 503, "ehr_unreachable", "transient"),
        ("token_429", 503, "ehr_unreachable", "transient"),
        ("token_html", 502, "ehr_misbehaved", "exception"),
        ("token_invalid_client", 502, "ehr_refused", "exception"),
    ],
)
async def test_a_refresh_that_fails_keeps_the_grant_and_the_living_token(
    held: Held, fault: str, status: int, code: str, issue: str
) -> None:
    held.stage.sandbox.fault(fault, times=FOREVER)
    held.stage.clock.advance(DUE)
    assert (await held.read()).status_code == 200
    assert bearers(held.stage.sandbox) == ["token 1"]

    held.stage.clock.advance(ENDED - DUE)
    answer = await held.read()

    assert (answer.status_code, code_of(answer)) == (status, code)
    assert answer.json()["issue"][0]["code"] == issue
    assert answer.headers.get("retry-after") == ("1" if status == 503 else None)
    assert ((await held.grant()).state, (await held.grant()).generation) == ("active", 1)
    held.stage.sandbox.clear_faults()
    assert (await held.read()).status_code == 200
    assert bearers(held.stage.sandbox) == ["token 1", "token 2"]


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port where connections are refused."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    yield port


@contextlib.contextmanager
def full_port() -> Iterator[int]:
    """A port where connections are neither accepted nor refused: its queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as fillers:
        for _ in range(3):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.parametrize("port", [closed_port, full_port])
async def test_a_refresh_that_was_never_sent_keeps_the_grant(
    held: Held, port: Callable[[], contextlib.AbstractContextManager[int]]
) -> None:
    sandbox = held.stage.sandbox
    held.stage.clock.advance(DUE)
    sandbox.fault("token_invalid_client")  # makes the broker look for the endpoints again
    assert (await held.read()).status_code == 200
    with port() as number:
        sandbox.fault("discovery_members", set={"token_endpoint": f"http://127.0.0.1:{number}/token"})
        assert (await held.read()).status_code == 200
        held.stage.clock.advance(ENDED - DUE)
        answer = await held.read()

    assert (answer.status_code, code_of(answer)) == (503, "ehr_unreachable")
    assert (await held.grant()).state == "active"
    assert held.refreshes() == 1


@pytest.mark.parametrize("fault", ["discovery_500", "discovery_drop"])
async def test_an_ehr_whose_endpoints_cannot_be_found_keeps_the_grant(held: Held, fault: str) -> None:
    held.stage.clock.advance(DUE)
    held.stage.sandbox.fault("token_invalid_client")
    await held.read()
    held.stage.sandbox.fault(fault, times=2)

    assert (await held.read()).status_code == 200
    held.stage.clock.advance(ENDED - DUE)
    answer = await held.read()

    assert (answer.status_code, code_of(answer)) == (503, "ehr_unreachable")
    assert held.refreshes() == 1
    assert (await held.read()).status_code == 200


# The EHR will not any more


async def test_invalid_grant_asks_for_reauthorization_and_nothing_is_sent_again(held: Held) -> None:
    held.stage.sandbox.fault("token_invalid_grant")
    held.stage.clock.advance(DUE)

    for _ in range(2):
        answer = await held.read()
        assert (answer.status_code, code_of(answer)) == (401, "reauthorization_required")

    assert (await held.grant()).state == "needs_reauth"
    assert held.refreshes() == 1
    assert "fhir" not in {entry["kind"] for entry in held.stage.sandbox.journal()}


async def test_invalid_grant_means_nothing_when_somebody_else_has_renewed_meanwhile(held: Held) -> None:
    sandbox, grants = held.stage.sandbox, held.stage.broker.grants
    sandbox.fault("token_delay", seconds=0.5)
    sandbox.fault("token_invalid_grant")
    held.stage.clock.advance(DUE)
    reading = asyncio.create_task(held.read())
    await until(lambda: held.refreshes() == 1)
    before = await held.grant()
    owner = await held.stage.redis.hget(keys.grant(held.tag), "intent")
    assert owner is not None
    tokens = await grants.open_tokens(before)
    assert await grants.commit(held.tag, before.terms, tokens, generation=1, owner=owner.decode()) == "ok"

    assert (await reading).status_code == 200

    assert ((await held.grant()).state, (await held.grant()).generation) == ("active", 2)


@pytest.mark.parametrize(
    ("named", "status", "state"),
    [
        ("somebody-else", 401, "needs_reauth"),
        (None, 200, "active"),
        ("", 200, "active"),
    ],
)
async def test_a_refresh_that_names_another_patient_ends_the_grant(
    held: Held, named: str | None, status: int, state: str
) -> None:
    held.stage.sandbox.fault("token_members", set={"patient": named})
    held.stage.clock.advance(DUE)

    assert (await held.read()).status_code == status

    assert (await held.grant()).state == state
    assert (await held.grant()).terms.context.patient == held.path.removeprefix("Patient/")


@pytest.mark.parametrize("form", ["{id}", "Patient/{id}", "{base}/Patient/{id}"])
async def test_a_refresh_may_name_the_same_patient_in_any_form(held: Held, form: str) -> None:
    patient = held.path.removeprefix("Patient/")
    named = form.format(id=patient, base=held.stage.sandbox.fhir_base)
    held.stage.sandbox.fault("token_members", set={"patient": named})
    held.stage.clock.advance(DUE)

    assert (await held.read()).status_code == 200

    assert (await held.grant()).terms.context.patient == patient


# The answer is lost: RF-05, RF-15


@pytest.mark.parametrize(
    ("fault", "parameters"), [("token_drop", {}), ("token_drop_before", {}), ("token_timeout", {"seconds": 4})]
)
async def test_a_lost_answer_leaves_a_rotating_grant_uncertain_and_the_old_token_is_never_sent_again(
    held: Held, fault: str, parameters: dict[str, Any]
) -> None:
    held.stage.sandbox.fault(fault, **parameters)
    held.stage.clock.advance(ENDED)

    for _ in range(3):
        answer = await held.read()
        assert (answer.status_code, code_of(answer)) == (401, "reauthorization_required")

    assert (await held.grant()).state == "uncertain"
    assert held.refreshes() == 1
    assert held.stage.sandbox.counts()["reuse_alarms"] == 0


@pytest.mark.parametrize("fault", ["token_drop", "token_drop_before"])
async def test_a_lost_answer_is_repeated_where_the_ehr_takes_the_same_token_again(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, fault: str
) -> None:
    async with held_at(sandbox, redis, tmp_path, refresh="keep", refresh_tokens="reusable") as held:
        sandbox.fault(fault)
        held.stage.clock.advance(DUE)
        assert (await held.read()).status_code == 200
        assert (await held.grant()).generation == 1

        assert (await held.read()).status_code == 200

        assert (await held.grant()).generation == 2
        assert held.refreshes() == 2
        assert sandbox.counts()["reuse_alarms"] == 0


async def begin_elsewhere(held: Held, *, intend: bool) -> None:
    """Another replica begins a refresh and dies; its lease runs out 50 ms later."""
    both = [keys.grant(held.tag), keys.lease(held.tag)]
    assert await script("claim_refresh")(held.stage.redis, both, ["dead", 50, 1, ""]) == b"claimed"
    if intend:
        assert await script("intend_refresh")(held.stage.redis, both, ["dead", 50, 1]) == b"ok"


async def test_a_refresh_cut_off_after_it_may_have_been_sent_leaves_the_grant_uncertain(held: Held) -> None:
    await begin_elsewhere(held, intend=True)
    held.stage.clock.advance(ENDED)

    answer = await held.read()

    assert (answer.status_code, code_of(answer)) == (401, "reauthorization_required")
    assert (await held.grant()).state == "uncertain"
    assert held.refreshes() == 0


async def test_a_refresh_cut_off_before_it_was_sent_costs_nothing(held: Held) -> None:
    await begin_elsewhere(held, intend=False)
    held.stage.clock.advance(ENDED)

    assert (await held.read()).status_code == 200

    assert held.refreshes() == 1


async def test_an_answer_that_comes_after_all_ends_the_uncertainty(held: Held) -> None:
    await begin_elsewhere(held, intend=True)
    held.stage.clock.advance(ENDED)
    await held.read()
    grants, before = held.stage.broker.grants, await held.grant()
    assert before.state == "uncertain"

    tokens = await grants.open_tokens(before)
    assert await grants.commit(held.tag, before.terms, tokens, generation=1, owner="somebody else") == "fenced"
    assert await grants.commit(held.tag, before.terms, tokens, generation=1, owner="dead") == "ok"

    assert ((await held.grant()).state, (await held.grant()).cause) == ("active", None)
    assert (await held.read()).status_code == 200


# The store is away


@pytest.fixture
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A store of this test alone, to be stopped at will; short paths keep its socket in place."""
    with EmbeddedServer.start(tmp_path_factory.mktemp("s"), server=wheel_server()) as server:
        yield server
        os.kill(server.process_id, signal.SIGCONT)


async def test_an_answer_that_finds_the_store_away_is_stored_when_it_is_back(
    sandbox: Sandbox, own_store: EmbeddedServer, tmp_path: Path
) -> None:
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


@pytest.mark.parametrize("alive", [True, False])
async def test_a_store_that_is_away_before_the_request_costs_neither_the_grant_nor_a_second(
    sandbox: Sandbox, own_store: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, alive: bool
) -> None:
    """The claim times out, and is carried out by the store when it goes on: nobody holds that lease (RF-05)."""
    async with connect(own_store.url()) as redis, held_at(sandbox, redis, tmp_path) as held:
        held.stage.clock.advance(DUE if alive else ENDED)
        redeem, handles = type(held.stage.broker.handles).redeem, held.stage.broker.handles

        async def redeem_then_stop(*arguments: Any) -> Any:
            found = await redeem(handles, *arguments)
            os.kill(own_store.process_id, signal.SIGSTOP)
            return found

        monkeypatch.setattr(handles, "redeem", redeem_then_stop)
        began = time.monotonic()
        answer = await held.read()
        assert (answer.status_code, code_of(answer)) == (503, "store_unavailable")
        assert time.monotonic() - began < 1.5
        os.kill(own_store.process_id, signal.SIGCONT)
        monkeypatch.undo()

        assert (await held.read()).status_code == 200

        assert held.refreshes() == 1
        assert ((await held.grant()).state, (await held.grant()).generation) == ("active", 2)


# Somebody leaves, or ends it, while it runs


async def test_a_caller_that_goes_away_does_not_stop_the_refresh(held: Held) -> None:
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


# What was granted: RF-09, RF-11


@pytest.mark.parametrize(
    ("fault", "parameters", "kept", "recorded"),
    [
        (
            "token_scope",
            {"scope": "{before} patient/*.cruds user/*.rs"},
            None,
            True,
        ),
        ("token_no_scope", {}, None, False),
        ("token_scope", {"scope": "patient/Patient.rs"}, "patient/Patient.rs", False),
    ],
    ids=["wider", "not said", "narrower"],
)
async def test_the_scope_of_a_grant_shrinks_with_a_refresh_but_never_grows(
    held: Held, fault: str, parameters: dict[str, str], kept: str | None, *, recorded: bool
) -> None:
    before = str((await held.grant()).terms.scopes)
    held.stage.sandbox.fault(fault, **{name: text.format(before=before) for name, text in parameters.items()})
    held.stage.clock.advance(DUE)

    assert (await held.read()).status_code == 200

    assert str((await held.grant()).terms.scopes) == (kept or before)
    assert any("RF-11" in line["reason"] for line in refresh_audits(held.stage)) is recorded
    observations = await held.app.fhir(held.handle, f"Observation?patient={held.path}")
    assert observations.status_code == (403 if kept else 200)


# Backend services: BS-06, BS-10


async def backend(stage: BrokerStage, reports: App, lifetime: int = SHORT_LIFETIME) -> Held:
    stage.sandbox.fault("token_lifetime", seconds=lifetime)
    answer = await reports.token(grant_type="client_credentials", scope="system/Patient.rs", resource=reports.base)
    assert answer.status_code == 200, answer.text
    return Held(stage, reports, answer.json()["access_token"], "Patient?_count=1")


@pytest.mark.parametrize("after", [SHORT_DUE, SHORT_LIFETIME + 1])
async def test_a_backend_token_is_renewed_by_a_new_assertion_once_for_all(
    stage: BrokerStage, reports: App, after: int
) -> None:
    held = await backend(stage, reports)
    stage.clock.advance(after)

    answers = await asyncio.gather(*(held.read() for _ in range(20)))

    assert {answer.status_code for answer in answers} == {200}
    first, second = stage.sandbox.journal("token")
    assert set(second["parameters"]) == {"grant_type", "scope", "client_assertion_type", "client_assertion"}
    assert first["parameters"]["client_assertion"] != second["parameters"]["client_assertion"]


async def test_a_backend_token_whose_renewal_is_lost_is_asked_for_again(stage: BrokerStage, reports: App) -> None:
    held = await backend(stage, reports)
    stage.sandbox.fault("token_drop")
    stage.clock.advance(SHORT_LIFETIME + 1)

    lost = await held.read()

    assert (lost.status_code, code_of(lost)) == (504, "ehr_answer_lost")
    assert (await held.read()).status_code == 200
    assert stage.sandbox.counts()["token.client_credentials"] == 3


async def test_two_hundred_jobs_share_one_backend_token(stage: BrokerStage, reports: App) -> None:
    await backend(stage, reports, LIFETIME)
    ask = {"grant_type": "client_credentials", "scope": "system/Patient.rs", "resource": reports.base}

    answers = await asyncio.gather(*(reports.token(**ask) for _ in range(200)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["access_token"] for answer in answers}) == 200
    assert stage.sandbox.counts()["token.client_credentials"] == 1


async def test_a_pointer_turned_to_another_grant_is_not_followed(stage: BrokerStage, app: App, reports: App) -> None:
    launched = await hold(stage, app)
    await backend(stage, reports)
    (pointer,) = [key async for key in stage.redis.scan_iter("sb:backend:*")]
    await stage.redis.set(pointer, launched.tag)

    held = await backend(stage, reports)

    assert held.tag != launched.tag
    assert stage.sandbox.counts()["token.client_credentials"] == 2
