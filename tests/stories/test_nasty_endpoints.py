"""What EHRs were seen to say of their own places, and to ask for (spec §21, cases 9, 11 to 15 and 18 to 20)."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.stage import App, BrokerStage, Sandbox, open_stage, running_sandbox
from tests.stage.app import ORIGIN
from tests.stories.held import FOREVER, Held, audit_of, code_of, held_at, upstream
from tests.stories.test_journeys import some_patient

# 9: two encodings of Basic


@pytest.mark.parametrize("encoding", ["rfc6749", "raw"])
@pytest.mark.parametrize("secret", ["plain-secret", "with/and+", "per%2Fcent", "co:lon", "blank space", "é"])
async def test_any_secret_works_in_the_encoding_that_the_ehr_reads(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, secret: str, encoding: str
) -> None:
    """(NC-09) (TK-07) (Q1): for the code and for the refresh."""
    client = {"client_secret": secret, "basic_encoding": encoding}
    async with held_at(sandbox, redis, tmp_path, ehr=f'basic_encoding = "{encoding}"', client=client) as held:
        sandbox.expire()

        assert (await held.read()).status_code == 200
        assert held.refreshes() == 1


async def test_the_other_encoding_is_told_as_a_refused_client(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> None:
    """(NC-09): where it matters, which is where the secret has a character that is encoded."""
    client = {"client_secret": "a/b+c", "basic_encoding": "raw"}
    async with open_stage(sandbox, redis, tmp_path, authentication="client_secret_basic", client=client) as stage:
        app = stage.app()
        landing = await app.authorize()
        await app.close()

        assert landing.parameters["error"] == "server_error"
        assert "invalid_client" in audit_of(stage, "launch.finish")[-1]["reason"]
        assert sandbox.counts()["token.authorization_code"] == 1


# 11: discovery names another endpoint than the one that works


def own_endpoints(sandbox: Sandbox) -> str:
    return f'token_endpoint = "{sandbox.issuer}/token"\nauthorization_endpoint = "{sandbox.issuer}/authorize"'


@pytest.mark.parametrize("fault", ["discovery_smart_v1", "discovery_internal_host", "discovery_token_endpoint_moved"])
async def test_where_discovery_names_the_wrong_endpoints_the_operators_own_are_used_from_launch_to_refresh(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, fault: str
) -> None:
    """(NC-11) (OR-02) (OT-01)."""
    sandbox.fault(fault, times=FOREVER)
    async with held_at(sandbox, redis, tmp_path, ehr=own_endpoints(sandbox)) as held:
        sandbox.expire()

        assert (await held.read()).status_code == 200
        assert {entry["path"] for entry in sandbox.journal("token")} == {"/oauth2/token"}


@pytest.mark.parametrize(
    ("fault", "parameters"),
    [("discovery_internal_host", {"origin": "http://10.0.0.5"}), ("discovery_token_endpoint_moved", {})],
)
async def test_endpoints_inside_somebodys_network_get_neither_browser_nor_credentials(
    stage: BrokerStage, app: App, fault: str, parameters: dict[str, Any]
) -> None:
    """(NC-11) (DS-15): the launch ends before the browser leaves."""
    stage.sandbox.fault(fault, times=FOREVER, **parameters)

    answer = await app.http.get(
        f"{stage.public_url}/launch/sandbox-launch", params={"iss": stage.sandbox.fhir_base, "launch": "x"}
    )

    assert (answer.status_code, "location" in answer.headers) == (502, False)
    assert "the token endpoint cannot be used" in audit_of(stage, "launch.begin")[-1]["reason"]
    assert stage.sandbox.counts()["token"] == 0


async def test_the_endpoints_of_this_client_are_asked_for_where_each_has_its_own(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(NC-11) (EP-08): whoever does not say who he is, is sent elsewhere."""
    sandbox.fault("discovery_per_client")
    async with held_at(sandbox, redis, tmp_path, ehr='client_id_header = "Epic-Client-ID"') as held:
        assert (await held.read()).status_code == 200
        assert sandbox.journal("authorize")[-1]["path"] == "/oauth2/authorize"


# 12: metadata in every shape


@pytest.mark.parametrize("shape", ["well_known_html", "well_known_404", "discovery_html"])
@pytest.mark.parametrize("metadata", ["xml", "json"])
async def test_an_ehr_is_found_by_metadata_alone_whatever_that_is_by_default(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, shape: str, metadata: str
) -> None:
    """(NC-12) (DS-11) (DS-14) (EP-09): a page with status 200 is no document, and JSON is asked for by name."""
    sandbox.switch(metadata_format=metadata)
    sandbox.fault(shape, times=FOREVER)
    async with held_at(sandbox, redis, tmp_path) as held:
        assert (await held.read()).status_code == 200

        accepted = {entry["headers"]["accept"] for entry in sandbox.journal("metadata")}
        assert accepted == {"application/fhir+json"}


async def test_metadata_in_xml_alone_is_said_to_be_unreadable(stage: BrokerStage, app: App) -> None:
    """(NC-12) (EP-09)."""
    stage.sandbox.fault("well_known_404")
    stage.sandbox.fault("metadata_xml", times=FOREVER)

    landing = await app.authorize()

    assert landing.parameters["error"] == "server_error"
    assert "(DS-03, DS-11)" in audit_of(stage, "app.authorize")[-1]["reason"]
    assert stage.sandbox.counts()["authorize"] == 0


# 13: one word, three issuers


@pytest.mark.parametrize("iss", ["{issuer}", "{issuer}/", "{base}//", "{origin}"])
async def test_the_iss_of_a_launch_is_the_fhir_base_and_no_issuer(stage: BrokerStage, app: App, iss: str) -> None:
    """(NC-13) (NC-15) (AL-02)."""
    sandbox = stage.sandbox
    said = iss.format(issuer=sandbox.issuer, base=sandbox.fhir_base, origin=sandbox.origin)
    before = upstream(sandbox)

    answer = await app.http.get(f"{stage.public_url}/launch/sandbox-launch", params={"iss": said, "launch": "x"})

    assert (answer.status_code, upstream(sandbox)) == (400, before)


@pytest.mark.parametrize(
    ("iss", "allowed"), [("{issuer}", True), ("{issuer}/", False), ("{base}", False), ("https://issuer.invalid", False)]
)
async def test_the_iss_of_a_callback_is_the_issuer_and_no_fhir_base(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, iss: str, *, allowed: bool
) -> None:
    """(NC-13) (CB-07) (CB-08): to the letter."""
    sandbox.switch(response_iss=True)
    said = iss.format(issuer=sandbox.issuer, base=sandbox.fhir_base)
    sandbox.fault("authorize_wrong_iss", set={"iss": said})
    async with open_stage(sandbox, redis, tmp_path) as stage:
        app = stage.app()
        landing = await app.authorize()
        await app.close()

    assert ("code" in landing.parameters) is allowed
    assert sandbox.counts()["token.authorization_code"] == allowed


# 14: an audience that the EHR does not take


async def test_an_audience_that_is_not_taken_ends_the_launch(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> None:
    """(NC-14) (AL-11): with a profile's `audience_slash` it would be taken."""
    sandbox.switch(aud="slash-required")
    async with open_stage(sandbox, redis, tmp_path) as stage:
        app = stage.app()
        landing = await app.authorize()
        await app.close()

        assert landing.parameters["error"] == "access_denied"
        assert audit_of(stage, "launch.finish")[-1]["outcome"] == "denied"
        assert sandbox.counts()["token"] == 0


async def test_an_error_page_at_the_ehr_leaves_a_record_of_where_the_browser_went_and_nothing_to_use(
    stage: BrokerStage, app: App
) -> None:
    """(NC-14): no callback comes, so nothing else is known; the launch lapses."""
    elsewhere = ["https://elsewhere.example/"]
    stage.sandbox.register(client_id="broker-launch", authentication="none", redirect_uris=elsewhere, scopes="openid")

    landing = await app.authorize()

    assert (landing.status, landing.url.startswith(stage.sandbox.origin)) == (400, True)
    assert [line["outcome"] for line in audit_of(stage, "launch.ask")] == ["allowed"]
    assert audit_of(stage, "launch.finish") == []
    assert [tag async for tag in stage.broker.grants.tags()] == []


# 15: a launch from an EHR of the attacker's


async def test_an_ehr_that_nobody_configured_gets_no_request_and_no_user(stage: BrokerStage, app: App) -> None:
    """(NC-15) (AL-02): a whole second EHR, as good as the first but for not being on file."""
    with running_sandbox() as attacker:
        attacker.register(
            client_id="broker-launch",
            authentication="none",
            redirect_uris=[f"{stage.public_url}/callback/sandbox-launch"],
            launch_uri=f"{stage.public_url}/launch/sandbox-launch",
            scopes="launch openid patient/*.rs",
        )
        patient = await some_patient(app)
        before = upstream(attacker)

        landing = await app.browser.open(attacker.launch("broker-launch", patient))

        assert landing.url.startswith(f"{stage.public_url}/launch/")
        assert landing.status == 400
        assert attacker.origin not in landing.text
        assert upstream(attacker) == before
    assert audit_of(stage, "launch.begin")[-1]["outcome"] == "denied"


# 18: storage. Bulk files, and bulk jobs (19): test_bulk_exports.py


async def test_a_redirect_to_storage_is_not_followed_with_or_without_the_token(held: Held) -> None:
    """(PX-05)."""
    held.stage.sandbox.fault("fhir_storage")

    answer = await held.read()

    assert (answer.status_code, code_of(answer)) == (502, "ehr_misbehaved")
    assert "location" not in answer.headers
    assert "X-Signature" not in answer.text
    counts = held.stage.sandbox.counts()
    assert counts.get("storage.authorization", 0) == 0
    assert counts.get("storage", 0) == 0


# 20: tabs


async def test_launches_in_parallel_tabs_of_one_browser_keep_their_patients_apart(
    stage: BrokerStage, app: App, reports: App
) -> None:
    """(NC-20) (AL-21): interleaved step by step, with one cookie jar."""
    given = await reports.token(grant_type="client_credentials", scope="system/Patient.rs", resource=reports.base)
    bundle = (await reports.fhir(given.json()["access_token"], "Patient?_count=2")).json()
    patients = [entry["resource"]["id"] for entry in bundle["entry"]]
    landings = [await app.browser.open(stage.sandbox.launch("broker-launch", patient)) for patient in patients]
    tabs = [App(app.base, browser=app.browser) for _ in patients]

    codes = [
        await tab.authorize(scope="launch patient/*.rs", launch=landing.parameters["launch"])
        for tab, landing in zip(tabs, landings, strict=True)
    ]
    answers = [await tab.exchange(code) for tab, code in zip(reversed(tabs), reversed(codes), strict=True)]

    assert [answer["patient"] for answer in reversed(answers)] == patients
    for answer, patient in zip(reversed(answers), patients, strict=True):
        others = next(one for one in patients if one != patient)
        assert (await app.fhir(answer["access_token"], f"Patient/{patient}")).json()["id"] == patient
        assert (await app.fhir(answer["access_token"], f"Patient/{others}")).status_code == 403
    await asyncio.gather(*(tab.http.aclose() for tab in tabs))


async def test_a_401_can_be_read_by_the_apps_page(held: Held) -> None:
    """(NC-20) (CO-02): whether it is the broker's own or comes of the EHR's."""
    origin = {"Origin": ORIGIN}
    held.stage.sandbox.fault("fhir_401_no_cors", times=FOREVER)
    answers = [
        await held.app.fhir(held.handle, held.path, headers=origin),
        await held.app.fhir(held.handle[:-1] + "-", held.path, headers=origin),
    ]

    assert [answer.status_code for answer in answers] == [401, 401]
    assert [answer.headers["access-control-allow-origin"] for answer in answers] == [ORIGIN, ORIGIN]
    assert all("www-authenticate" in answer.headers for answer in answers)
