"""A grant that asks for its tokens by itself, with a client and a key of its own, as at Epic (EP-17, OA-14, OA-15)."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog
from redis.asyncio import Redis

from broker.ehr.dynamic_client import REGISTER_SCOPE, DynamicClient, DynamicClients
from broker.errors import EhrAnswerLost, EhrRefused
from broker.refresh.renewal import REFUSED_SECONDS
from tests.leaks.evidence import redis_text
from tests.stage import Sandbox
from tests.stage.broker import SANDBOX_SCOPES
from tests.stories.held import Held, audit_of, bearers, code_of, held_at

LIFETIME, DUE, ENDED = 8, 7.5, 8.5
"""Seconds: short, since the sandbox's clock does not move, and an assertion's `nbf` is 30 back."""
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ON_FILE = {"scopes": f"{SANDBOX_SCOPES} {REGISTER_SCOPE}"}


def dynamic(sandbox: Sandbox, redis: Redis, state: Path, **options: Any) -> AbstractAsyncContextManager[Held]:
    """A grant whose registration wants dynamic clients; the broker is a public client unless told otherwise."""
    plain = {"authentication": "none", "client": ON_FILE, "registration": "dynamic_client = true"}
    return held_at(sandbox, redis, state, **{**plain, "lifetime": LIFETIME, **options})


@pytest.fixture
async def held(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[Held]:
    sandbox.switch(dynamic_clients=True)
    async with dynamic(sandbox, redis, tmp_path) as held:
        yield held
    sandbox.switch(dynamic_clients=False)


async def client_of(held: Held) -> DynamicClient:
    client = (await held.stage.broker.grants.open_tokens(await held.grant())).dynamic_client
    assert client is not None
    return client


def asked_by_assertion(held: Held) -> list[dict[str, Any]]:
    return [entry for entry in held.stage.sandbox.journal("token") if entry["grant_type"] == JWT_BEARER]


def register_audit(held: Held) -> list[tuple[str, str]]:
    return [(line["outcome"], line["reason"]) for line in audit_of(held.stage, "grant.register")]


@pytest.mark.parametrize("authentication", ["none", "private_key_jwt"])
async def test_a_launch_registers_a_client_whose_token_works(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, authentication: str
) -> None:
    """(EP-17, OA-14, OA-15)"""
    sandbox.switch(dynamic_clients=True)
    async with dynamic(sandbox, redis, tmp_path, authentication=authentication) as held:
        assert (await held.read()).status_code == 200

        client = await client_of(held)
        issued = [entry for entry in sandbox.journal("issued") if entry["token"] == "access_token"]
        assert [entry["client_id"] for entry in issued] == ["broker-launch", client.client_id]
        assert bearers(sandbox) == ["token 2"]
        assert (sandbox.counts()["register"], (await held.grant()).generation) == (1, 2)
        assert register_audit(held) == [("allowed", "due"), ("allowed", "registered")]
    sandbox.switch(dynamic_clients=False)


async def test_the_person_approves_it_and_the_app_never_has_it(held: Held) -> None:
    """(EP-17)"""
    (asked,) = held.stage.sandbox.journal("authorize")
    assert REGISTER_SCOPE in asked["parameters"]["scope"].split()
    answer = held.app.answers[0].json()
    assert "DynamicClient" not in answer["scope"] + str((await held.grant()).terms.scopes)


async def test_it_renews_by_assertion_and_never_by_refresh_token(held: Held) -> None:
    """The assertion is the grant, not the proof of a client (OA-14, EP-17)."""
    for _ in range(3):
        held.stage.clock.advance(DUE)
        assert (await held.read()).status_code == 200

    assert (await held.grant()).generation == 5
    assert bearers(held.stage.sandbox) == ["token 3", "token 4", "token 5"]
    assert held.refreshes() == 0
    asked, client_id = asked_by_assertion(held), (await client_of(held)).client_id
    assert {tuple(sorted(entry["parameters"])) for entry in asked} == {("assertion", "client_id", "grant_type")}
    assert {entry["parameters"]["client_id"] for entry in asked} == {client_id}
    assert len({entry["parameters"]["assertion"] for entry in asked}) == 4


@pytest.mark.parametrize("fault", ["token_drop", "token_drop_before"])
async def test_a_lost_answer_is_asked_for_again(held: Held, fault: str) -> None:
    """Nothing rotates, so nothing is lost (EP-17, RF-05)."""
    held.stage.sandbox.fault(fault)
    held.stage.clock.advance(ENDED)
    lost = await held.read()
    assert (lost.status_code, code_of(lost)) == (504, "ehr_answer_lost")
    assert ((await held.grant()).state, (await held.grant()).generation) == ("active", 2)

    assert (await held.read()).status_code == 200

    assert ((await held.grant()).state, (await held.grant()).generation) == ("active", 3)


async def test_calls_at_once_share_one_assertion(held: Held) -> None:
    """(EP-17, RF-04)"""
    held.stage.clock.advance(ENDED)
    answers = await asyncio.gather(*(held.read() for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(asked_by_assertion(held)) == 2


async def test_a_refused_assertion_ends_the_grant(held: Held) -> None:
    """(EP-17)"""
    held.stage.sandbox.fault("token_invalid_grant")
    held.stage.clock.advance(ENDED)
    answer = await held.read()
    assert (answer.status_code, code_of(answer)) == (401, "reauthorization_required")
    assert (await held.grant()).state == "needs_reauth"


async def test_an_error_without_a_reason_leaves_the_grant(held: Held) -> None:
    """(EP-17)"""
    held.stage.sandbox.fault("token_error_null", document={"error": "invalid_request", "error_description": None})
    held.stage.clock.advance(ENDED)
    assert code_of(await held.read()) == "ehr_refused"
    held.stage.clock.advance(REFUSED_SECONDS)
    assert (await held.read()).status_code == 200


async def test_each_grant_has_a_client_and_a_key_of_its_own(held: Held) -> None:
    """(EP-17)"""
    answer = await held.app.standalone()
    other = Held(held.stage, held.app, answer["access_token"], held.path)

    clients = [await client_of(held), await client_of(other)]

    assert len({client.client_id for client in clients}) == 2
    assert len({json.loads(client.key.reveal())["d"] for client in clients}) == 2


@pytest.mark.parametrize(
    ("scopes", "dynamic_clients", "cause"),
    [
        (SANDBOX_SCOPES, True, f"the EHR did not grant {REGISTER_SCOPE}"),
        (ON_FILE["scopes"], False, "the EHR names no registration_endpoint"),
    ],
)
async def test_without_a_dynamic_client_the_grant_lasts_as_long_as_its_token(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, scopes: str, *, dynamic_clients: bool, cause: str
) -> None:
    """(EP-17)"""
    sandbox.switch(dynamic_clients=dynamic_clients)
    async with dynamic(sandbox, redis, tmp_path, refresh="none", client={"scopes": scopes}) as held:
        assert (await held.read()).status_code == 200
        grant = await held.grant()
        assert (grant.terms.dynamic_client, grant.terms.no_dynamic_client) == (False, cause)
        assert (grant.generation, grant.refreshable) == (1, False)
        assert register_audit(held) == [("allowed", "due"), ("failed", cause)]

        held.stage.clock.advance(ENDED)
        assert code_of(await held.read()) == "reauthorization_required"
        assert asked_by_assertion(held) == []
    sandbox.switch(dynamic_clients=False)


async def test_a_registration_endpoint_that_is_gone_costs_the_client_alone(held: Held) -> None:
    """(EP-17, OA-04)"""
    held.stage.sandbox.switch(dynamic_clients=False)
    answer = await held.app.standalone()
    other = Held(held.stage, held.app, answer["access_token"], held.path)
    assert (await other.read()).status_code == 200
    cause = "the registration endpoint answered status 404 without a JSON object (OA-04)"
    assert (await other.grant()).terms.no_dynamic_client == cause


async def test_a_first_token_that_is_lost_is_asked_for_on_first_use(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(EP-17)"""
    answer = await launch_failing(held, monkeypatch, EhrAnswerLost("the answer was lost"))
    other = Held(held.stage, held.app, answer["access_token"], held.path)
    assert (await other.grant()).generation == 1
    assert (await other.read()).status_code == 200
    assert (await other.grant()).generation == 2


async def launch_failing(held: Held, monkeypatch: pytest.MonkeyPatch, error: Exception) -> dict[str, Any]:
    """Launch while no dynamic client gets a token."""

    async def fail(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(DynamicClients, "token", fail)
        landing = await held.app.authorize()
    return await held.app.exchange(landing) if "code" in landing.parameters else landing.parameters


async def test_a_client_that_is_refused_at_once_denies_the_launch(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """(EP-17)"""
    error = EhrRefused("the token endpoint answered invalid_grant (status 400)", error="invalid_grant")
    answer = await launch_failing(held, monkeypatch, error)
    assert answer["error"] == "access_denied"
    last = audit_of(held.stage, "launch.finish")[-1]
    assert (last["outcome"], last["reason"].partition(":")[0]) == ("denied", "the dynamic client got no token")


async def test_revoking_ends_the_token_at_the_ehr_by_the_client_that_has_it(held: Held) -> None:
    """(EP-17, IN-06)"""
    tokens = await held.stage.broker.grants.open_tokens(await held.grant())
    client_id = (await client_of(held)).client_id

    assert await held.stage.broker.revoke_grant(held.tag, cause="test") == "revoked"

    sandbox = held.stage.sandbox
    assert [entry["client_id"] for entry in sandbox.journal("revoke")] == ["broker-launch", client_id]
    stolen = {"Authorization": f"Bearer {tokens.access_token.reveal()}"}
    assert httpx2.get(f"{sandbox.fhir_base}/{held.path}", headers=stolen).status_code == 401
    assert code_of(await held.read()) == "invalid_token"


async def test_an_operator_can_ask_about_the_token_of_a_dynamic_client(held: Held) -> None:
    """(EP-20, IN-03)"""
    held.stage.sandbox.switch(introspection="bearer")
    assert await held.stage.broker.introspect_grant(held.tag) == []
    held.stage.sandbox.switch(introspection="client")


async def test_neither_key_nor_client_id_stands_anywhere(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> None:
    """(EP-17)"""
    sandbox.switch(dynamic_clients=True)
    with structlog.testing.capture_logs() as logged:
        async with dynamic(sandbox, redis, tmp_path) as held:
            held.stage.clock.advance(DUE)
            await held.read()
            sandbox.fault("token_invalid_grant")
            held.stage.clock.advance(ENDED)
            await held.read()
            tokens = await held.stage.broker.grants.open_tokens(await held.grant())
            client = await client_of(held)
            sinks = [repr(logged), await redis_text(redis), repr(tokens), repr(client), str(held.stage.audit_lines())]
            sinks += [answer.text + str(answer.headers) for answer in held.app.answers]
    key = json.loads(client.key.reveal())
    secrets = {"key": key["d"], "client_id": client.client_id}
    assert found_in(sinks, secrets) == []
    assert found_in([*sinks, f"planted {client.client_id}"], secrets) == ["client_id"]
    assert held.tag in sinks[0]
    assert held.tag in sinks[1]
    sandbox.switch(dynamic_clients=False)


def found_in(sinks: list[str], secrets: dict[str, str]) -> list[str]:
    return [name for name, secret in secrets.items() if any(secret in sink for sink in sinks)]
