"""What an EHR can do to a refresh, and what is left of the grant then (RF-05, RF-08, RF-15, CX-11)."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from redis.asyncio import Redis

from broker.ehr.id_token import IdTokens
from broker.ehr.token_endpoint import TokenEndpoint
from broker.grants import Grant, Grants, SealedGeneration, TokenSet
from broker.refresh.asking import Asking
from broker.refresh.renewal import REFUSED_SECONDS
from broker.store import keys
from broker.store.scripts import script
from tests.stage import Sandbox
from tests.stories.held import (
    DUE,
    ENDED,
    FOREVER,
    Held,
    audit_of,
    bearers,
    code_of,
    held_at,
    until,
)


async def second(grants: Grants, first: Grant, tokens: TokenSet) -> SealedGeneration:
    """What somebody else would write over the first generation."""
    times = {"created_at": first.created_at, "used_at": first.used_at}
    return await grants.seal(first.tag, first.terms, tokens, generation=2, **times)


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
    """RF-08."""
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
    held.stage.clock.advance(REFUSED_SECONDS)
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
    """RF-08."""
    with port() as number:
        await move_token_endpoint(held, f"http://127.0.0.1:{number}/token")
        held.stage.clock.advance(DUE)
        assert (await held.read()).status_code == 200
        held.stage.clock.advance(ENDED - DUE)
        answer = await held.read()

    assert (answer.status_code, code_of(answer)) == (503, "ehr_unreachable")
    assert (await held.grant()).state == "active"
    assert held.refreshes() == 0


async def move_token_endpoint(held: Held, url: str) -> None:
    """Let the EHR's documents name another place, and an operator approve it."""
    directory, pins = held.stage.broker.directory, held.stage.broker.pins
    (site,) = directory.sites(directory.ehr("sandbox"))
    pin = await pins.read(site)
    assert pin is not None
    await pins.settle(site, replace(pin.endpoints, token_endpoint=url))
    await pins.approve(site)


@pytest.mark.parametrize("fault", ["discovery_500", "discovery_drop"])
async def test_an_ehr_whose_documents_cannot_be_read_is_asked_where_it_was_known(held: Held, fault: str) -> None:
    """RF-08, DS-13."""
    held.stage.clock.advance(DUE)
    held.stage.sandbox.fault("token_invalid_client")  # makes the broker look for the endpoints again
    await held.read()
    held.stage.sandbox.fault(fault, times=FOREVER)
    held.stage.clock.advance(ENDED - DUE)

    assert (await held.read()).status_code == 200
    assert held.refreshes() == 2
    assert (await held.grant()).generation == 2


# The EHR will not any more


async def test_invalid_grant_asks_for_reauthorization_and_nothing_is_sent_again(held: Held) -> None:
    """RF-08, RF-10."""
    held.stage.sandbox.fault("token_invalid_grant")
    held.stage.clock.advance(DUE)

    for _ in range(2):
        answer = await held.read()
        assert (answer.status_code, code_of(answer)) == (401, "reauthorization_required")

    assert (await held.grant()).state == "needs_reauth"
    assert held.refreshes() == 1
    assert "fhir" not in {entry["kind"] for entry in held.stage.sandbox.journal()}


async def test_invalid_grant_means_nothing_when_somebody_else_has_renewed_meanwhile(held: Held) -> None:
    """RF-08."""
    sandbox, grants = held.stage.sandbox, held.stage.broker.grants
    sandbox.fault("token_delay", seconds=0.5)
    sandbox.fault("token_invalid_grant")
    held.stage.clock.advance(DUE)
    reading = asyncio.create_task(held.read())
    await until(lambda: held.refreshes() == 1)
    before = await held.grant()
    owner = await held.stage.redis.hget(keys.grant(held.tag), "intent")
    assert isinstance(owner, bytes)
    tokens = await grants.open_tokens(before)
    assert await grants.commit(await second(grants, before, tokens), owner=owner.decode()) == "ok"

    assert (await reading).status_code == 200

    assert ((await held.grant()).state, (await held.grant()).generation) == ("active", 2)


@pytest.mark.parametrize(
    ("named", "status", "state"),
    [
        ("somebody-else", 401, "suspended"),
        (None, 200, "active"),
        ("", 200, "active"),
    ],
)
async def test_a_refresh_that_names_another_patient_ends_the_grant(
    held: Held, named: str | None, status: int, state: str
) -> None:
    """CX-11."""
    held.stage.sandbox.fault("token_members", set={"patient": named})
    held.stage.clock.advance(DUE)

    assert (await held.read()).status_code == status

    assert (await held.grant()).state == state
    assert (await held.grant()).terms.context.patient == held.path.removeprefix("Patient/")


@pytest.mark.parametrize("form", ["{id}", "Patient/{id}", "{base}/Patient/{id}"])
async def test_a_refresh_may_name_the_same_patient_in_any_form(held: Held, form: str) -> None:
    """CX-01, CX-11."""
    patient = held.path.removeprefix("Patient/")
    named = form.format(id=patient, base=held.stage.sandbox.fhir_base)
    held.stage.sandbox.fault("token_members", set={"patient": named})
    held.stage.clock.advance(DUE)

    assert (await held.read()).status_code == 200

    assert (await held.grant()).terms.context.patient == patient


# The answer is lost: RF-05, RF-15


@pytest.mark.parametrize(
    ("fault", "parameters"), [("token_drop", {}), ("token_drop_before", {}), ("token_timeout", {"seconds": 7})]
)
async def test_a_lost_answer_leaves_a_rotating_grant_uncertain_and_the_old_token_is_never_sent_again(
    held: Held, fault: str, parameters: dict[str, Any]
) -> None:
    """RF-05, RF-15, NC-04."""
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
    """RF-05, NC-04."""
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
    assert await script("claim_refresh")(held.stage.redis, both, ["dead", 50, 1, "", 0]) == b"claimed"
    if intend:
        assert await script("intend_refresh")(held.stage.redis, both, ["dead", 50, 1]) == b"ok"


async def test_a_refresh_cut_off_after_it_may_have_been_sent_leaves_the_grant_uncertain(held: Held) -> None:
    """RF-05."""
    await begin_elsewhere(held, intend=True)
    held.stage.clock.advance(ENDED)

    answer = await held.read()

    assert (answer.status_code, code_of(answer)) == (401, "reauthorization_required")
    assert (await held.grant()).state == "uncertain"
    assert held.refreshes() == 0


async def test_a_refresh_cut_off_before_it_was_sent_costs_nothing(held: Held) -> None:
    """RF-05."""
    await begin_elsewhere(held, intend=False)
    held.stage.clock.advance(ENDED)

    assert (await held.read()).status_code == 200

    assert held.refreshes() == 1


async def test_an_answer_that_comes_after_all_ends_the_uncertainty(held: Held) -> None:
    """RF-05."""
    await begin_elsewhere(held, intend=True)
    held.stage.clock.advance(ENDED)
    await held.read()
    grants, before = held.stage.broker.grants, await held.grant()
    assert before.state == "uncertain"

    tokens = await grants.open_tokens(before)
    later = await second(grants, before, tokens)
    assert await grants.commit(later, owner="somebody else") == "fenced"
    assert await grants.commit(later, owner="dead") == "ok"

    assert ((await held.grant()).state, (await held.grant()).cause) == ("active", None)
    assert (await held.read()).status_code == 200


# What nobody foresaw


def unforeseen(*_: object, **__: object) -> NoReturn:
    raise RecursionError


async def test_what_goes_wrong_before_a_refresh_is_sent_costs_nothing(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RF-05, RF-08: whatever it is, the lease is given back."""
    refresher = held.stage.broker.keeper.refresher
    with monkeypatch.context() as broken:
        broken.setattr(Asking, "prepare", unforeseen)
        with pytest.raises(RecursionError):
            await refresher.renew(await held.grant())

    assert (await refresher.renew(await held.grant())).generation == 2
    assert audit_of(held.stage, "grant.refresh")[1]["reason"] == "not sent (RecursionError)"
    assert held.refreshes() == 1


async def test_what_goes_wrong_while_a_refresh_is_sent_may_have_lost_its_answer(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RF-05."""
    monkeypatch.setattr(TokenEndpoint, "refresh", unforeseen)

    kept = await held.stage.broker.keeper.refresher.renew(await held.grant())

    assert (kept.generation, kept.state) == (1, "uncertain"), "it serves until its token ends"
    grant = await held.grant()
    assert (grant.state, grant.cause) == (
        "uncertain",
        "the answer to a refresh was lost: the request failed unforeseen (RecursionError)",
    )


async def test_a_refresh_token_is_kept_whatever_the_id_token_beside_it_does(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CX-11, RF-03: who signed in is good to know, and the refresh token cannot be had again."""
    sandbox.fault("token_members", times=FOREVER, drop=["id_token"], set={})
    async with held_at(sandbox, redis, tmp_path) as held:
        assert (await held.grant()).terms.context.subject is None
        sandbox.clear_faults()
        sandbox.fault("token_refresh_id_token")
        monkeypatch.setattr(IdTokens, "verify", unforeseen)
        held.stage.clock.advance(DUE)

        assert (await held.read()).status_code == 200

        assert ((await held.grant()).state, (await held.grant()).generation) == ("active", 2)
        assert (await held.grant()).terms.context.subject is None
