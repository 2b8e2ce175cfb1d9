"""How a launch reaches the EHR: by address line, form or pushed, in the EHR's own words, and who comes back."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from broker.ehr import authorization
from tests.ehr.server import reply, scripted_server
from tests.refusals.refusal import assert_page, query_of
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stage.app import LAUNCH_URI, ORIGIN
from tests.stories.tab import Page, Tab
from tests.stories.test_journeys import some_patient

CHART = "https://chart.example"
FRAMED = f'frame_ancestors = ["{CHART}"]'


@pytest.fixture
def pushing(sandbox: Sandbox) -> Sandbox:
    sandbox.switch(pushed_requests="required")
    return sandbox


@asynccontextmanager
async def tab_at(stage: BrokerStage, *, stops_at: str = ORIGIN, **options: Any) -> AsyncIterator[App]:
    """An app whose browser does what pages say."""
    app = App(stage.base, browser=Tab(stops_at=stops_at, **options))
    yield app
    await app.close()


def asked(stage: BrokerStage) -> dict[str, str]:
    """What the last authorization request at the EHR said."""
    return dict(stage.sandbox.journal("authorize")[-1]["parameters"])


def reasons(stage: BrokerStage, event: str) -> list[str]:
    lines = map(json.loads, stage.audit_lines())
    return [str(line.get("reason")) for line in lines if line["event"] == event]


@pytest.mark.parametrize("authentication", ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"])
async def test_where_the_ehr_demands_it_the_request_is_pushed_and_the_browser_carries_its_name_alone(
    pushing: Sandbox, redis: Redis, tmp_path: Path, authentication: str
) -> None:
    """OA-22, AL-14, TK-06."""
    async with open_stage(pushing, redis, tmp_path, authentication=authentication) as stage, tab_at(stage) as app:
        given = await app.standalone()

        assert given["access_token"].startswith("sbh_")
        assert set(asked(stage)) == {"client_id", "request_uri"}
        (pushed,) = pushing.journal("par")
        assert {"state", "code_challenge", "scope", "aud", "redirect_uri", "client_id"} <= set(pushed["parameters"])
        assert reasons(stage, "launch.ask") == ["the browser goes to the EHR, the request by pushed"]


async def test_a_pushed_request_that_is_refused_ends_the_launch_before_the_browser_leaves(
    pushing: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """OA-22, EP-03: the app learns nothing of the cause, the operator the code."""
    async with (
        open_stage(pushing, redis, tmp_path, authentication="client_secret_basic") as stage,
        tab_at(stage) as app,
    ):
        pushing.register(
            client_id="broker-launch",
            authentication="client_secret_basic",
            client_secret="another",
            redirect_uris=["https://elsewhere.example/"],
            scopes="openid",
        )
        landing = await app.authorize()

        assert landing.parameters["error"] == "server_error"
        assert "answered invalid_client" in reasons(stage, "app.authorize")[-1]
        assert stage.sandbox.counts()["authorize"] == 0


@pytest.fixture
def short_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request is a long one."""
    monkeypatch.setattr(authorization, "LONGEST_URL_BYTES", 64)


@pytest.mark.usefixtures("short_urls")
@pytest.mark.parametrize("scripts", [True, False])
async def test_a_long_request_is_posted_by_a_page_and_by_a_button_where_scripts_are_off(
    stage: BrokerStage, *, scripts: bool
) -> None:
    """AL-14, AL-15, CB-11, OA-06, TK-01: both ways say the same."""
    async with tab_at(stage, scripts=scripts) as app:
        landing = await app.authorize()
        page = next(one for one in app.browser.seen if "next" in one.text)
        policy = page.headers["content-security-policy"]
        form = Page.read(page.text)

        assert page.headers["cache-control"] == "no-store"
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert policy.endswith("form-action http: https:; frame-ancestors 'none'")
        assert "unsafe" not in policy
        assert form.action == f"{stage.sandbox.issuer}/authorize"
        if not scripts:
            assert "<button>" in landing.text
            return
        given = await app.exchange(landing)
        assert given["access_token"].startswith("sbh_")
        (arrival,) = stage.sandbox.journal("authorize")
        assert arrival["method"] == "POST"
        assert set(arrival["parameters"]) == set(form.fields)


@pytest.mark.usefixtures("short_urls")
async def test_epic_is_posted_to_in_ehr_launches_alone(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> None:
    """EP-11, AL-15."""
    async with open_stage(sandbox, redis, tmp_path, ehr='authorize_post = "ehr_launch"') as stage, tab_at(stage) as app:
        patient = await some_patient(app)
        assert stage.sandbox.journal("authorize")[-1]["method"] == "GET"

        given = await app.launched(stage.sandbox.launch("broker-launch", patient))

        assert given["patient"] == patient
        assert stage.sandbox.journal("authorize")[-1]["method"] == "POST"


@pytest.mark.parametrize(
    ("rule", "setting", "aud"),
    [
        ("refused", 'authorize_audience = "omit"', None),
        ("slash-required", 'audience_slash = "add"', "{base}/"),
        ("exact", 'audience_slash = "strip"', "{base}"),
        ("exact", "resource_parameter = true", "{base}"),
    ],
)
async def test_the_audience_is_what_this_ehr_takes(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, rule: str, setting: str, aud: str | None
) -> None:
    """AL-11, AL-13, OT-02, NC-14."""
    sandbox.switch(aud=rule)
    async with open_stage(sandbox, redis, tmp_path, ehr=setting) as stage, tab_at(stage) as app:
        await app.standalone()

        said = asked(stage)
        assert said.get("aud") == (aud.format(base=sandbox.fhir_base) if aud else None)
        assert ("resource" in said) == ("resource" in setting)


async def test_scopes_are_asked_in_the_ehrs_dialect_and_what_was_widened_is_on_record(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """OR-06, SC-03, AL-09: the handle stays as narrow as what was meant."""
    async with (
        open_stage(sandbox, redis, tmp_path, ehr='scope_dialect = "v1"\nexpand_wildcards = true') as stage,
        tab_at(stage) as app,
    ):
        given = await app.standalone(scope="launch/patient patient/Observation.r")

        assert "patient/Observation.read" in asked(stage)["scope"].split()
        assert "*" not in asked(stage)["scope"]
        assert given["scope"].split() == ["launch/patient", "patient/Observation.r"]
        assert reasons(stage, "launch.ask") == [
            "the browser goes to the EHR, the request by query; said wider in the EHR's dialect: patient/Observation.r"
        ]

        await app.standalone(scope="launch/patient patient/*.rs")
        words = [word for word in asked(stage)["scope"].split() if word.startswith("patient/")]
        assert "patient/Patient.read" in words
        assert all(word.endswith(".read") and "*" not in word for word in words)


async def test_openid_and_fhir_user_are_asked_together(stage: BrokerStage) -> None:
    """AL-16, AL-17, AL-18."""
    async with tab_at(stage) as app:
        await app.standalone(scope="launch/patient patient/*.rs")

        said = asked(stage)
        assert {"openid", "fhirUser"} <= set(said["scope"].split())
        assert "nonce" in said
        assert "max_age" not in said


SHARED = """
[[ehr]]
id = "second"
fhir_base = "{second}"

[[registration]]
id = "both"
ehr = ["sandbox", "second"]
flow = "launch"
client_id = "broker-both"
{callback}
scopes = "launch launch/patient patient/*.rs"
app = "viewer"

[[app]]
id = "viewer"
authentication = "none"
redirect_uris = ["http://127.0.0.1:1/callback"]
launch_uri = "http://127.0.0.1:1/launch"
[[app.access]]
registration = "both"
scopes = "launch launch/patient patient/*.rs"
"""


@asynccontextmanager
async def at_both(sandbox: Sandbox, redis: Redis, state: Path, callback: str) -> AsyncIterator[tuple[BrokerStage, App]]:
    """A registration at two EHRs, and an app at the first."""
    more = SHARED.format(second=sandbox.fhir_base.replace("127.0.0.1", "localhost"), callback=callback)
    async with open_stage(sandbox, redis, state, more=more) as stage:
        paths = [""] if "shared" in callback else ["/sandbox", "/second"]
        sandbox.register(
            client_id="broker-both",
            authentication="private_key_jwt",
            jwks_uri=f"{stage.public_url}/jwks/both",
            redirect_uris=[f"{stage.public_url}/callback/both{path}" for path in paths],
            scopes="launch launch/patient patient/*.rs",
        )
        app = App(stage.base, "viewer", browser=Tab(stops_at=ORIGIN))
        yield stage, app
        await app.close()


async def test_each_ehr_of_a_registration_has_a_redirect_uri_of_its_own(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """CB-07, EP-12, RG-02: a code that comes to the other EHR's address goes nowhere."""
    async with at_both(sandbox, redis, tmp_path, "") as (stage, app):
        assert (await app.standalone(scope="launch/patient patient/*.rs"))["access_token"].startswith("sbh_")
        assert asked(stage)["redirect_uri"] == f"{stage.public_url}/callback/both/sandbox"

        await app.browser.close()
        app.browser = Tab(stops_at=f"{stage.public_url}/callback/")
        url = (await app.authorize(scope="launch/patient patient/*.rs")).url
        exchanged = stage.sandbox.counts()["token.authorization_code"]
        answer = await app.browser.http.get(url.replace("/both/sandbox?", "/both/second?"))

        assert_page(answer, 400, "invalid_request", hides=[query_of(url)["code"]])
        assert stage.sandbox.counts()["token.authorization_code"] == exchanged


async def test_a_shared_redirect_uri_needs_an_ehr_that_announces_iss(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """CB-07, OA-24."""
    async with at_both(sandbox, redis, tmp_path, 'callback = "shared"') as (stage, app):
        landing = await app.authorize(scope="launch/patient patient/*.rs")

        assert landing.parameters["error"] == "server_error"
        assert "does not announce iss" in reasons(stage, "app.authorize")[-1]
        assert stage.sandbox.counts()["authorize"] == 0


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (None, ""),
        ("authorize_no_iss", "no iss although the EHR announces it (CB-08)"),
        ("authorize_wrong_iss", "iss is not this EHR's issuer (CB-07)"),
    ],
)
async def test_at_a_shared_redirect_uri_iss_tells_whose_code_it_is(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, fault: str | None, cause: str
) -> None:
    """CB-07, CB-08, NC-13."""
    sandbox.switch(response_iss=True)
    async with at_both(sandbox, redis, tmp_path, 'callback = "shared"') as (stage, app):
        if fault:
            sandbox.fault(fault)
        landing = await app.authorize(scope="launch/patient patient/*.rs")

        assert asked(stage)["redirect_uri"] == f"{stage.public_url}/callback/both"
        if fault is None:
            assert (await app.exchange(landing))["access_token"].startswith("sbh_")
            return
        assert landing.parameters["error"] == "invalid_request"
        assert cause in reasons(stage, "launch.finish")[-1]
        assert stage.sandbox.counts()["token.authorization_code"] == 0


@pytest.mark.parametrize(("callback", "audience"), [('callback = "shared"', ""), ("", 'assertion_audience = "issuer"')])
async def test_an_ehr_that_claims_anothers_issuer_gets_neither_code_nor_assertion(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, callback: str, audience: str
) -> None:
    """CB-07, Q3: of one registration, the one EHR would be sent what is good at the other."""
    document = {
        "capabilities": ["launch-standalone"],
        "grant_types_supported": [],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
    }
    sandbox.switch(response_iss=True)
    async with scripted_server() as evil:
        named = {"authorization_endpoint": f"{evil.url}/authorize", "token_endpoint": f"{evil.url}/token"}
        evil.answers["/r4/.well-known/smart-configuration"] = reply(
            json.dumps({**document, **named, "issuer": sandbox.issuer})
        )
        second = f'{evil.url}/r4"\nassertion_audience = "issuer' if audience else f"{evil.url}/r4"
        more = SHARED.format(second=second, callback=callback)
        async with open_stage(sandbox, redis, tmp_path, more=more, ehr=audience) as stage:
            base = stage.base.replace("/sandbox", "/second")
            app = App(base, "viewer", browser=Tab(stops_at=ORIGIN))
            landing = await app.authorize(scope="launch/patient patient/*.rs")
            await app.close()

            assert landing.parameters["error"] == "server_error"
            assert "names an issuer that does not name its" in reasons(stage, "app.authorize")[-1]
            assert {request.target.partition("?")[0] for request in evil.requests} == {
                "/r4/.well-known/smart-configuration"
            }


@pytest.fixture
async def framed(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[BrokerStage]:
    async with open_stage(sandbox, redis, tmp_path, registration=FRAMED) as stage:
        yield stage


@pytest.mark.parametrize("cookies", [True, False])
async def test_a_launch_in_a_frame_works_without_any_cookie(framed: BrokerStage, *, cookies: bool) -> None:
    """AL-22, CB-02, NC-20: the tab keeps the proof, for the callback and again for the app's request."""
    async with tab_at(framed, cookies=cookies) as app:
        patient = await some_patient(app)
        given = await app.launched(framed.sandbox.launch("broker-launch", patient))

        assert given["patient"] == patient
        tab = app.browser
        assert isinstance(tab, Tab)
        assert cookies or tab.storage == {}, "a proof is used once"


async def test_tabs_without_cookies_keep_their_patients_apart(framed: BrokerStage) -> None:
    """AL-21, AL-22, NC-20."""
    async with tab_at(framed) as first, tab_at(framed, cookies=False) as one, tab_at(framed, cookies=False) as two:
        query = "Patient?_count=2"
        reports = framed.app("reports")
        handle = await reports.token(grant_type="client_credentials", scope="system/Patient.rs", resource=framed.base)
        bundle = (await reports.fhir(handle.json()["access_token"], query)).json()
        patients = [entry["resource"]["id"] for entry in bundle["entry"]]
        landings = {}
        for app, patient in zip((one, two), patients, strict=True):
            landings[patient] = await app.browser.open(framed.sandbox.launch("broker-launch", patient))
        for app, patient in zip((one, two), patients, strict=True):
            launch = landings[patient].parameters["launch"]
            given = await app.exchange(await app.authorize(scope="launch patient/*.rs", launch=launch))
            assert given["patient"] == patient
        await reports.close()
        assert first.answers == []


async def test_another_tabs_launch_is_refused_without_its_proof(framed: BrokerStage) -> None:
    """CB-02, AL-22: no key, no launch, as with cookies."""
    callback = f"{framed.public_url}/callback/"
    async with tab_at(framed, stops_at=callback, cookies=False) as app, tab_at(framed, cookies=False) as other:
        url = (await app.authorize()).url
        exchanged = framed.sandbox.counts()["token.authorization_code"]

        landing = await other.browser.open(url)

        assert landing.status == 400
        assert framed.sandbox.counts()["token.authorization_code"] == exchanged
        assert "not the one that began the launch (CB-02)" in reasons(framed, "launch.finish")[-1]


@pytest.mark.parametrize("origin", [None, "null", CHART, "http://127.0.0.1:1"])
async def test_a_proof_that_another_sites_page_posts_counts_for_nothing(
    framed: BrokerStage, origin: str | None
) -> None:
    """CB-02: who posts his own launch from a page of his signs nobody in with it."""
    async with tab_at(framed, stops_at=f"{framed.public_url}/callback/", cookies=False) as app:
        url, tab = (await app.authorize()).url, app.browser
        assert isinstance(tab, Tab)
        (key,) = tab.storage.values()
        headers = {"Origin": origin} if origin else {}

        answer = await app.http.post(url.partition("?")[0], data={**query_of(url), "tab_key": key}, headers=headers)

        assert_page_in_frame(answer.headers["content-security-policy"])
        assert (answer.status_code, framed.sandbox.counts()["token.authorization_code"]) == (400, 0)
        asked_again = await app.http.post(
            f"{framed.public_url}/oauth/authorize", data={"tab_key": key}, headers={**headers, "Accept": "text/html"}
        )
        assert asked_again.status_code == 400


def assert_page_in_frame(policy: str) -> None:
    assert policy.endswith(f"; frame-ancestors {CHART}")


async def test_pages_and_redirects_of_a_registration_are_framed_by_its_origins_alone(framed: BrokerStage) -> None:
    """CB-11."""
    async with tab_at(framed) as app:
        await app.launched(framed.sandbox.launch("broker-launch", await some_patient(app)))
        ours = [one for one in app.browser.seen if str(one.url).startswith(framed.public_url)]
        launches = [one for one in ours if urlsplit(str(one.url)).path != "/oauth/authorize"]

        assert len(launches) >= 3
        for answer in launches:
            assert_page_in_frame(answer.headers["content-security-policy"])
        refused = await app.http.get(f"{framed.public_url}/launch/sandbox-launch?iss=x")
        assert_page_in_frame(refused.headers["content-security-policy"])


async def test_nobody_frames_what_no_registration_lets_be_framed(stage: BrokerStage) -> None:
    """CB-11, CB-09, CB-10."""
    async with tab_at(stage) as app:
        await app.launched(stage.sandbox.launch("broker-launch", await some_patient(app)))
        ours = [one for one in app.browser.seen if str(one.url).startswith(stage.public_url)]

        assert {one.status_code for one in ours} == {303}
        assert all(one.headers["content-security-policy"].endswith("; frame-ancestors 'none'") for one in ours)
        assert all(one.headers["cache-control"] == "no-store" for one in ours)
        assert ours[-1].headers["location"].startswith((LAUNCH_URI, ORIGIN))
