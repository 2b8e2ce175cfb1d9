"""`/oauth/authorize`: what an app, or somebody who plays one, may not ask for (RFC 6749 §4.1.1, AL-07…AL-12, AL-20)."""

from typing import Any, Literal

import httpx2
import pytest

from tests.refusals.refusal import (
    assert_app_is_told,
    assert_oauth_error,
    assert_page,
    audited,
    forget_endpoints,
    nothing_sent,
    query_of,
)
from tests.stage import App, BrokerStage
from tests.stage.app import REDIRECT_URI

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"  # RFC 7636, appendix B
HTML, JSON, ANY = "text/html,application/xhtml+xml,*/*;q=0.8", "application/json", "*/*"
Method = Literal["GET", "POST"]


def request_of(stage: BrokerStage, changes: dict[str, str | None]) -> dict[str, str]:
    """Return a good authorization request with parameters replaced, or removed (None)."""
    good = {
        "response_type": "code",
        "client_id": "growth-chart",
        "redirect_uri": REDIRECT_URI,
        "scope": "launch/patient patient/*.rs",
        "state": "app-state",
        "aud": stage.base,
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


async def ask(
    stage: BrokerStage, app: App, changes: dict[str, str | None], *, method: Method = "GET", accept: str = HTML
) -> httpx2.Response:
    """Send it as a browser would, cookies included, and follow nothing."""
    parameters, headers = request_of(stage, changes), {"Accept": accept}
    endpoint = f"{stage.public_url}/oauth/authorize"
    if method == "GET":
        return await app.browser.http.get(endpoint, params=parameters, headers=headers)
    return await app.browser.http.post(endpoint, data=parameters, headers=headers)


async def launch_value(stage: BrokerStage, app: App, patients: list[str]) -> str:
    """Run an EHR launch up to the app's launch URI."""
    return (await app.browser.open(stage.sandbox.launch("broker-launch", patients[0]))).parameters["launch"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_good_request_goes_to_the_ehr_with_nothing_of_the_apps_own_in_it(
    stage: BrokerStage, app: App, method: Method
) -> None:
    """AL-07, AL-10, AL-11, AL-12, AL-14, CB-10, RG-02."""
    answer = await ask(stage, app, {}, method=method)

    assert answer.status_code == 303
    asked = query_of(answer.headers["location"])
    assert answer.headers["location"].startswith(f"{stage.sandbox.issuer}/authorize?")
    assert (asked["aud"], asked["client_id"]) == (stage.sandbox.fhir_base, "broker-launch")
    assert (asked["redirect_uri"], "launch" in asked) == (f"{stage.public_url}/callback/sandbox-launch", False)
    assert asked["state"] != "app-state"
    assert len(asked["state"]) == 43
    assert asked["code_challenge"] != CHALLENGE


PAGES: list[tuple[dict[str, str | None], str, str]] = [
    ({"client_id": None}, "unauthorized_client", "unknown client_id"),
    ({"client_id": "nobody"}, "unauthorized_client", "unknown client_id"),
    ({"client_id": "GROWTH-CHART"}, "unauthorized_client", "unknown client_id"),
    ({"client_id": "<script>"}, "unauthorized_client", "unknown client_id"),
    *(
        ({"redirect_uri": uri}, "invalid_request", "redirect_uri is not registered for app growth-chart")
        for uri in (
            None,
            "https://attacker.example/callback",
            REDIRECT_URI + "/",
            REDIRECT_URI + "2",
            REDIRECT_URI[:-1],
            REDIRECT_URI.upper(),
            REDIRECT_URI + "?x=1",
            REDIRECT_URI + "?tab=2",
            REDIRECT_URI + "#x",
            REDIRECT_URI.replace("callback", "call%62ack"),
            REDIRECT_URI + "/../callback",
            REDIRECT_URI.replace("127.0.0.1", "user@127.0.0.1"),
            REDIRECT_URI.replace("127.0.0.1", "127.0.0.1.attacker.example"),
            f" {REDIRECT_URI}",
            "javascript:alert(1)",
        )
    ),
]


@pytest.mark.parametrize(("changes", "code", "cause"), PAGES)
@pytest.mark.parametrize(("method", "accept"), [("GET", HTML), ("POST", HTML), ("GET", JSON), ("POST", ANY)])
async def test_a_client_or_redirect_uri_that_is_not_registered_is_never_redirected_to(
    stage: BrokerStage, app: App, changes: dict[str, str | None], code: str, cause: str, method: Method, accept: str
) -> None:
    """AL-20, CB-06, OA-24."""
    foreign = [value for value in changes.values() if value and value not in REDIRECT_URI]
    with nothing_sent(stage.sandbox), audited(stage, "app.authorize", "denied", cause, hides=foreign):
        answer = await ask(stage, app, changes, method=method, accept=accept)

    hides = [*foreign, "app-state", CHALLENGE]
    if accept == HTML:
        assert_page(answer, 400, code, hides=hides)
    else:
        assert_oauth_error(answer, 400, code, hides=hides)
    assert "location" not in answer.headers


TOLD: list[tuple[dict[str, str | None], str, str]] = [
    ({"response_type": None}, "unsupported_response_type", "response_type is not code"),
    ({"response_type": "token"}, "unsupported_response_type", "response_type is not code"),
    ({"response_type": "code token"}, "unsupported_response_type", "response_type is not code"),
    ({"response_type": "CODE"}, "unsupported_response_type", "response_type is not code"),
    ({"code_challenge": None}, "invalid_request", "PKCE is missing or not S256"),
    ({"code_challenge_method": None}, "invalid_request", "PKCE is missing or not S256"),
    ({"code_challenge_method": "plain"}, "invalid_request", "PKCE is missing or not S256"),
    ({"code_challenge_method": "s256"}, "invalid_request", "PKCE is missing or not S256"),
    ({"code_challenge": CHALLENGE[:-1]}, "invalid_request", "PKCE is missing or not S256"),
    ({"code_challenge": CHALLENGE + "="}, "invalid_request", "PKCE is missing or not S256"),
    ({"code_challenge": CHALLENGE[:-1] + "+"}, "invalid_request", "PKCE is missing or not S256"),
    ({"aud": None}, "invalid_target", "the audience is not a FHIR base of this broker"),
    ({"aud": "{ehr}"}, "invalid_target", "the audience is not a FHIR base of this broker"),
    ({"aud": "{base}/Patient"}, "invalid_target", "the audience is not a FHIR base of this broker"),
    ({"aud": "{base}//"}, "invalid_target", "the audience is not a FHIR base of this broker"),
    ({"aud": "{shouted}"}, "invalid_target", "the audience is not a FHIR base of this broker"),
    ({"aud": "https://attacker.example/fhir"}, "invalid_target", "the audience is not a FHIR base of this broker"),
    ({"aud": "{other}"}, "unauthorized_client", "app 'growth-chart' has no launch access to EHR 'other'"),
    ({"scope": None}, "invalid_scope", "nothing of the requested scope is in the app's policy"),
    ({"scope": "   "}, "invalid_scope", "nothing of the requested scope is in the app's policy"),
    ({"scope": "openid fhirUser launch/patient"}, "invalid_scope", "nothing of the requested scope"),
    ({"scope": "user/*.rs system/*.rs"}, "invalid_scope", "nothing of the requested scope is in the app's policy"),
    ({"scope": "patient/Condition.cud"}, "invalid_scope", "nothing of the requested scope is in the app's policy"),
    ({"scope": "patient/*.sr"}, "invalid_scope", "the requested scope is malformed,"),
    ({"scope": "patient/*.rs patient/.read"}, "invalid_scope", "the requested scope is malformed,"),
    ({"scope": "patient/*.rs Patient/*.rs"}, "invalid_scope", "the requested scope is malformed,"),
    ({"scope": 'patient/*.rs "quoted"'}, "invalid_scope", "the requested scope is malformed,"),
    ({"scope": "patient/Observation.sr?code=planted"}, "invalid_scope", "the requested scope is malformed,"),
    ({"launch": "x"}, "invalid_request", "malformed launch"),
    ({"launch": "sbl_" + "0" * 61}, "invalid_request", "malformed launch"),
    ({"launch": "<script>alert(1)</script>"}, "invalid_request", "malformed launch"),
]


@pytest.mark.parametrize(("changes", "error", "cause"), TOLD)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_of_a_known_app_is_refused_at_its_redirect_uri(
    stage: BrokerStage, app: App, changes: dict[str, str | None], error: str, cause: str, method: Method
) -> None:
    """AL-08, AL-11, AL-12, OA-16, OA-20, OA-24."""
    places = {
        "base": stage.base,
        "ehr": stage.sandbox.fhir_base,
        "other": f"{stage.public_url}/fhir/other",
        "shouted": f"{stage.public_url}/fhir/SANDBOX",
    }
    changes = {name: value.format(**places) if value else value for name, value in changes.items()}
    with nothing_sent(stage.sandbox), audited(stage, "app.authorize", "denied", cause, hides=["planted"]):
        answer = await ask(stage, app, changes, method=method)

    assert_app_is_told(answer, error, hides=["attacker", "<script", cause])
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(("state", "told"), [(None, None), ("", None), ("s" * 4097, "s" * 4097)])
async def test_a_state_is_neither_absent_nor_endless(
    stage: BrokerStage, app: App, state: str | None, told: str | None
) -> None:
    """AL-10."""
    with nothing_sent(stage.sandbox), audited(stage, "app.authorize", "denied", "state is missing or too long"):
        answer = await ask(stage, app, {"state": state})

    assert_app_is_told(answer, "invalid_request", state=told)


@pytest.mark.parametrize("state", ["a&code=planted", "a\r\nSet-Cookie: b=c", "<script>", "#fragment", "é", "%0d%0a"])
async def test_a_state_comes_back_as_the_one_parameter_it_was(stage: BrokerStage, app: App, state: str) -> None:
    answer = await ask(stage, app, {"response_type": "token", "state": state})

    assert_app_is_told(answer, "unsupported_response_type", state=state)
    assert "set-cookie" not in answer.headers


async def test_an_error_keeps_the_query_of_a_registered_redirect_uri(stage: BrokerStage, second: App) -> None:
    answer = await ask(
        stage, second, {"client_id": "second", "redirect_uri": f"{REDIRECT_URI}?tab=2", "response_type": "token"}
    )

    assert answer.headers["location"].startswith(f"{REDIRECT_URI}?tab=2&error=unsupported_response_type&")


@pytest.mark.parametrize("slash", ["", "/"])
async def test_the_audience_may_end_in_one_slash(stage: BrokerStage, app: App, slash: str) -> None:
    answer = await ask(stage, app, {"aud": stage.base + slash})

    assert query_of(answer.headers["location"])["aud"] == stage.sandbox.fhir_base


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("patient/*.cruds", {"patient/*.rs", "patient/Observation.cud"}),
        ("patient/*.*", {"patient/*.rs", "patient/Observation.cud"}),
        ("patient/Patient.read user/*.cruds", {"patient/Patient.rs"}),
        ("patient/Observation.rs?category=laboratory", {"patient/Observation.rs?category=laboratory"}),
    ],
)
async def test_a_scope_that_is_too_wide_is_narrowed_before_the_ehr_sees_it(
    stage: BrokerStage, app: App, asked: str, sent: set[str]
) -> None:
    """AL-09."""
    answer = await ask(stage, app, {"scope": asked})

    scopes = query_of(answer.headers["location"])["scope"].split()
    assert {scope for scope in scopes if "/" in scope and not scope.startswith("launch/")} == sent


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("accept", [HTML, JSON])
@pytest.mark.parametrize("name", ["redirect_uri", "client_id", "state", "scope"])
async def test_no_parameter_may_be_given_twice(
    stage: BrokerStage, app: App, name: str, method: Method, accept: str
) -> None:
    """OA-01."""
    body = httpx2.QueryParams([*request_of(stage, {}).items(), (name, REDIRECT_URI), (name, "2")])
    endpoint, headers = f"{stage.public_url}/oauth/authorize", {"Accept": accept}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    with nothing_sent(stage.sandbox):
        if method == "GET":
            answer = await app.http.get(f"{endpoint}?{body}", headers=headers)
        else:
            answer = await app.http.post(endpoint, content=str(body), headers=headers | form)

    if accept == HTML:
        assert_page(answer, 400, "invalid_request", hides=["app-state", CHALLENGE])
    else:
        assert_oauth_error(answer, 400, "invalid_request", hides=["app-state", CHALLENGE])


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=x", "text/plain", ""])
async def test_a_posted_request_is_a_form(stage: BrokerStage, app: App, content_type: str) -> None:
    headers = {"Content-Type": content_type, "Accept": JSON}
    answer = await app.http.post(f"{stage.public_url}/oauth/authorize", content=b"{}", headers=headers)

    assert_oauth_error(answer, 400, "invalid_request")


async def test_a_posted_request_that_is_too_long_is_not_read(stage: BrokerStage, app: App) -> None:
    answer = await ask(stage, app, {"state": "s" * 70_000}, method="POST", accept=JSON)

    assert_oauth_error(answer, 413, "invalid_request", hides=["ssss"])


async def test_a_launch_value_works_once(stage: BrokerStage, app: App, patients: list[str]) -> None:
    value = await launch_value(stage, app, patients)
    assert "code" in query_of((await ask(stage, app, {"launch": value})).headers["location"])

    with (
        nothing_sent(stage.sandbox),
        audited(stage, "app.authorize", "denied", "unknown, used or expired launch", hides=[value]),
    ):
        answer = await ask(stage, app, {"launch": value})
    assert_app_is_told(answer, "invalid_request", hides=[value])


async def test_a_launch_value_lives_two_minutes(stage: BrokerStage, app: App, patients: list[str]) -> None:
    value = await launch_value(stage, app, patients)
    (key,) = [key async for key in stage.redis.scan_iter(match="sb:{*}:launch:*")]
    assert 115_000 < await stage.redis.pttl(key) <= 120_000
    await stage.redis.delete(key)

    with nothing_sent(stage.sandbox), audited(stage, "app.authorize", "denied", "unknown, used or expired launch"):
        answer = await ask(stage, app, {"launch": value})
    assert_app_is_told(answer, "invalid_request", hides=[value])


LAUNCH_MISUSED: list[tuple[str, dict[str, str | None], str, str]] = [
    ("of another app", {"client_id": "second"}, "invalid_request", "launch was given to another app"),
    ("in another browser", {}, "invalid_request", "the browser is not the one that was launched (CB-02)"),
    ("with a wrong cookie", {}, "invalid_request", "the browser is not the one that was launched (CB-02)"),
]


@pytest.mark.parametrize(("misuse", "changes", "error", "cause"), LAUNCH_MISUSED)
async def test_a_launch_value_is_bound_to_app_and_browser_and_spent_by_misuse(
    stage: BrokerStage,
    app: App,
    second: App,
    patients: list[str],
    misuse: str,
    changes: dict[str, Any],
    error: str,
    cause: str,
) -> None:
    """CB-02."""
    value = await launch_value(stage, app, patients)
    other = app if misuse == "of another app" else second
    if misuse == "with a wrong cookie":
        name = next(iter(app.browser.http.cookies))
        other.browser.http.cookies.set(name, "x" * 43, domain="127.0.0.1")
    with nothing_sent(stage.sandbox), audited(stage, "app.authorize", "denied", cause, hides=[value]):
        answer = await ask(stage, other, {"launch": value, **changes})
    assert_app_is_told(answer, error, hides=[value])

    with nothing_sent(stage.sandbox):
        assert_app_is_told(await ask(stage, app, {"launch": value}), "invalid_request")


async def test_a_launch_value_is_for_the_ehr_that_launched(
    stage: BrokerStage, second: App, app: App, patients: list[str]
) -> None:
    value = await launch_value(stage, app, patients)
    other: dict[str, str | None] = {"client_id": "second", "aud": f"{stage.public_url}/fhir/other", "launch": value}
    with nothing_sent(stage.sandbox), audited(stage, "app.authorize", "denied", "launch was given to another app"):
        answer = await ask(stage, app, other)

    assert_app_is_told(answer, "invalid_request", hides=[value])


async def test_an_ehr_that_is_down_is_told_to_the_app(stage: BrokerStage, app: App) -> None:
    await forget_endpoints(stage)
    stage.sandbox.fault("discovery_500")
    with audited(stage, "app.authorize", "failed", "status 500"):
        answer = await ask(stage, app, {})

    assert_app_is_told(answer, "temporarily_unavailable", hides=["a fault was armed", "500"])
    assert "set-cookie" not in answer.headers
