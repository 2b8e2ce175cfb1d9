"""An EHR's documents begin to name other hosts: no credential goes there before an operator has said so (DS-15)."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from broker.ehr.discovery import AGAIN_SECONDS
from broker.ehr.site import Site
from tests.ehr.server import ScriptedServer, reply, scripted_server
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stories.held import DUE, held_at

GOTCHA = json.dumps({"access_token": "canary-planted", "token_type": "Bearer", "expires_in": 3600})


@pytest.fixture
async def stranger() -> AsyncIterator[ScriptedServer]:
    """A host that would take whatever it is sent."""
    async with scripted_server({"/token": reply(GOTCHA)}) as server:
        yield server


async def doubt(stage: BrokerStage, app: App) -> None:
    """Let a minute pass and the EHR refuse the client once: the next launch looks where the endpoints are (DS-13).

    An hour would do as well, but the id_tokens of the sandbox, whose clock stays, would have expired.
    """
    stage.clock.advance(AGAIN_SECONDS)
    stage.sandbox.fault("token_invalid_client")
    assert "error" in (await app.authorize()).parameters


def site_of(stage: BrokerStage) -> Site:
    (site,) = stage.broker.directory.sites(stage.broker.directory.ehr("sandbox"))
    return site


def told(stage: BrokerStage, event: str) -> list[str]:
    records = map(json.loads, stage.audit_lines())
    return [record["reason"] for record in records if record["event"] == event]


def host(url: str) -> str:
    return url.split("/")[2]


async def test_a_launch_goes_on_with_the_known_host_when_discovery_names_another(
    secret_stage: BrokerStage, secret_app: App, stranger: ScriptedServer
) -> None:
    """Neither code nor client secret reaches the stranger; the move is audited once (DS-15)."""
    await secret_app.standalone()
    await doubt(secret_stage, secret_app)
    secret_stage.sandbox.fault("discovery_members", times=-1, set={"token_endpoint": f"{stranger.url}/token"})

    for _ in range(2):
        assert (await secret_app.standalone())["access_token"].startswith("sbh_")
        await doubt(secret_stage, secret_app)

    assert stranger.connections == 0
    known = host(secret_stage.sandbox.origin)
    assert told(secret_stage, "ehr.quarantined") == [f"token_endpoint: {known} -> {host(stranger.url)}"]


async def test_after_the_approval_the_new_host_is_used(
    secret_stage: BrokerStage, secret_app: App, stranger: ScriptedServer
) -> None:
    """At once, without a restart, and audited (DS-15)."""
    await secret_app.standalone()
    await doubt(secret_stage, secret_app)
    secret_stage.sandbox.fault("discovery_members", times=-1, set={"token_endpoint": f"{stranger.url}/token"})
    await secret_app.standalone()

    await secret_stage.broker.pins.approve(site_of(secret_stage))
    await secret_app.authorize()

    (request,) = stranger.requests
    assert (request.method, request.target) == ("POST", "/token")
    known = host(secret_stage.sandbox.origin)
    assert told(secret_stage, "ehr.approved") == [f"token_endpoint: {known} -> {host(stranger.url)}"]


async def test_a_browser_is_not_sent_to_another_authorization_endpoint(
    secret_stage: BrokerStage, secret_app: App, stranger: ScriptedServer
) -> None:
    """(DS-15)"""
    await secret_app.standalone()
    await doubt(secret_stage, secret_app)
    secret_stage.sandbox.fault("discovery_members", times=-1, set={"authorization_endpoint": f"{stranger.url}/login"})

    await secret_app.standalone()

    assert stranger.connections == 0


@pytest.mark.parametrize("url", ["{stranger}\\@{known}/oauth2/authorize", "http://x@{known}/oauth2/authorize"])
async def test_a_url_that_a_browser_reads_otherwise_sends_nobody_anywhere(
    secret_stage: BrokerStage, secret_app: App, stranger: ScriptedServer, url: str
) -> None:
    """Its host is the known one by the book, and another one in the address line; nobody is told a name (DS-15)."""
    await secret_app.standalone()
    await doubt(secret_stage, secret_app)
    bad = url.format(stranger=stranger.url, known=host(secret_stage.sandbox.origin))
    secret_stage.sandbox.fault("discovery_members", times=-1, set={"authorization_endpoint": bad})

    landing = await secret_app.authorize()

    assert landing.parameters["error"] == "server_error"
    assert stranger.connections == 0


async def test_a_refresh_token_stays_with_the_known_host(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, stranger: ScriptedServer
) -> None:
    """(DS-15)"""
    async with held_at(sandbox, redis, tmp_path) as held:
        held.stage.clock.advance(DUE)
        sandbox.fault("token_invalid_client")
        assert (await held.read()).status_code == 200
        sandbox.fault("discovery_members", times=-1, set={"token_endpoint": f"{stranger.url}/token"})
        held.stage.clock.advance(AGAIN_SECONDS)

        assert (await held.read()).status_code == 200
        assert held.refreshes() == 2
        assert len(told(held.stage, "ehr.quarantined")) == 1

    assert stranger.connections == 0


async def test_an_internal_host_is_quarantined(secret_stage: BrokerStage, secret_app: App) -> None:
    """As some athenahealth metadata names one that nobody outside knows (OT-01, DS-15)."""
    await secret_app.standalone()
    await doubt(secret_stage, secret_app)
    secret_stage.sandbox.fault("discovery_internal_host", times=-1)

    await secret_app.standalone()

    (reason,) = told(secret_stage, "ehr.quarantined")
    assert f"token_endpoint: {host(secret_stage.sandbox.origin)} -> ehr.internal" in reason


async def test_an_ehr_that_comes_back_needs_no_operator(secret_stage: BrokerStage, secret_app: App) -> None:
    await secret_app.standalone()
    await doubt(secret_stage, secret_app)
    secret_stage.sandbox.fault("discovery_internal_host")
    await secret_app.standalone()
    assert await waits(secret_stage)
    await doubt(secret_stage, secret_app)

    await secret_app.standalone()

    assert not await waits(secret_stage)


async def waits(stage: BrokerStage) -> bool:
    pin = await stage.broker.pins.read(site_of(stage))
    assert pin is not None
    return bool(pin.moves)


async def test_a_private_address_is_refused_at_first_sight(stage: BrokerStage, app: App) -> None:
    """There is nothing pinned yet that could be used instead (DS-15)."""
    stage.sandbox.fault("discovery_token_endpoint_moved")

    landing = await app.authorize()

    assert landing.parameters["error"] == "server_error"
    assert await stage.broker.pins.read(site_of(stage)) is None


# Documents of all kinds


@pytest.mark.parametrize(
    "fault",
    [
        "discovery_relative",
        "discovery_no_capabilities",
        "discovery_no_grant_types_supported",
        "discovery_no_code_challenge_methods_supported",
        "discovery_pkce_both",
        "discovery_html",
        "discovery_list",
        "discovery_404",
        "discovery_no_token_endpoint",
        "well_known_html",
        "well_known_404",
        "openid_inserted",
        "openid_wrong_issuer",
    ],
)
async def test_a_launch_survives_documents_that_are_not_as_they_should_be(
    stage: BrokerStage, app: App, fault: str
) -> None:
    """Relative URLs, missing members, pages, lists, nothing but metadata (DS-03, DS-06, DS-07, DS-11, DS-14, Q6)."""
    stage.sandbox.fault(fault)

    assert (await app.standalone())["access_token"].startswith("sbh_")


async def test_a_scope_that_the_ehr_does_not_list_is_asked_for_all_the_same(stage: BrokerStage, app: App) -> None:
    """Epic lists five, none of them clinical (DS-08)."""
    stage.sandbox.fault("discovery_members", set={"scopes_supported": ["openid"]})

    assert "patient/" in (await app.standalone())["scope"]


async def test_grant_types_that_the_ehr_does_not_list_are_used_all_the_same(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """athenahealth lists no refresh_token and grants it (OT-01)."""
    sandbox.fault("discovery_members", set={"grant_types_supported": ["authorization_code"]})
    async with held_at(sandbox, redis, tmp_path) as held:
        held.stage.clock.advance(DUE)

        assert (await held.read()).status_code == 200
        assert held.refreshes() == 1


@pytest.mark.parametrize(
    ("fault", "detail"),
    [
        ("discovery_pkce_plain", "PKCE methods without S256 (DS-06)"),
        ("discovery_no_authorization_endpoint", "no authorization_endpoint, so it cannot be launched (DS-04)"),
    ],
)
async def test_a_launch_is_refused_with_the_reason_where_it_cannot_work(
    stage: BrokerStage, app: App, fault: str, detail: str
) -> None:
    """(DS-04, DS-06)"""
    stage.sandbox.fault(fault)

    landing = await app.authorize()

    assert landing.parameters["error"] == "server_error"
    assert any(detail in line for line in stage.audit_lines())


async def test_an_ehr_for_programs_only_needs_no_authorization_endpoint(stage: BrokerStage, reports: App) -> None:
    """(DS-04)"""
    stage.sandbox.fault("discovery_no_authorization_endpoint")

    answer = await reports.token(grant_type="client_credentials", resource=stage.base, scope="system/Patient.rs")

    assert answer.status_code == 200


async def test_two_launches_within_the_hour_cause_one_fetch(stage: BrokerStage, app: App) -> None:
    """(DS-13)"""
    for _ in range(2):
        await app.standalone()

    assert stage.sandbox.counts()["smart_configuration"] == 1


async def test_a_refused_client_makes_the_broker_look_again_once(secret_stage: BrokerStage, secret_app: App) -> None:
    """`invalid_client` may mean that the endpoint is another one now (DS-13)."""
    await secret_app.standalone()
    await doubt(secret_stage, secret_app)

    await secret_app.standalone()
    await secret_app.standalone()

    assert secret_stage.sandbox.counts()["smart_configuration"] == 2


async def test_an_override_works_where_discovery_names_the_wrong_endpoints(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """Oracle lists endpoints of SMART v1 for an app of v2; what the operator says instead is audited (OR-02)."""
    sandbox.fault("discovery_smart_v1")
    own = "\n".join(
        f'{name}_endpoint = "{sandbox.origin}/oauth2/{path}"'
        for name, path in {"token": "token", "authorization": "authorize"}.items()
    )
    async with open_stage(sandbox, redis, tmp_path, ehr=own) as stage:
        app = stage.app()
        try:
            assert (await app.standalone())["access_token"].startswith("sbh_")
        finally:
            await app.close()

        known = host(sandbox.origin)
        assert told(stage, "ehr.overridden") == [
            f"by broker.toml: token_endpoint: {known}, authorization_endpoint: {known}"
        ]


async def test_the_client_is_named_where_the_ehr_answers_each_one_differently(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """Without the header, discovery names endpoints that do not exist (EP-08, EP-09)."""
    sandbox.fault("discovery_per_client")
    async with open_stage(sandbox, redis, tmp_path, ehr='client_id_header = "Epic-Client-ID"') as stage:
        app = stage.app()
        try:
            assert (await app.standalone())["access_token"].startswith("sbh_")
            assert (await app.http.get(f"{stage.base}/metadata")).status_code == 200
        finally:
            await app.close()
