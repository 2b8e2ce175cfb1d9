"""`/callback/{registration}`: what an EHR, or who plays one, may not bring back (CB-01…CB-11, ID-01, AL-21)."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
import pytest_asyncio

from tests.refusals.refusal import assert_app_is_told, assert_page, audited, nothing_sent, query_of, raw_request
from tests.stage import App, BrokerStage, Browser

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def paused(stage: BrokerStage) -> AsyncIterator[App]:
    """An app whose browser stops where the EHR sends it back to the broker."""
    app = App(stage.base, browser=Browser(stops_at=f"{stage.public_url}/callback/"))
    yield app
    await app.close()


async def standalone(paused: App) -> str:
    """Return the callback URL of a standalone launch, not opened yet."""
    return (await paused.authorize()).url


async def launched(paused: App, stage: BrokerStage, patient: str) -> str:
    """Return the callback URL of an EHR launch, not opened yet."""
    return (await paused.browser.open(stage.sandbox.launch("broker-launch", patient))).url


async def callback(app: App, url: str) -> httpx2.Response:
    return await app.browser.http.get(url)


def changed(url: str, **parameters: str | None) -> str:
    """Return the URL with parameters replaced, or removed (None)."""
    kept = {name: value for name, value in {**query_of(url), **parameters}.items() if value is not None}
    return f"{url.partition('?')[0]}?{urlencode(kept)}"


def assert_app_forgets_and_is_told(answer: httpx2.Response, error: str, *, hides: list[str]) -> None:
    """The app that asked learns the OAuth code and its own state; the launch's cookie is dropped."""
    assert_app_is_told(answer, error, hides=hides)
    assert "Max-Age=0" in answer.headers["set-cookie"]


async def test_a_callback_ends_at_the_app_with_a_code_of_the_brokers_own(stage: BrokerStage, paused: App) -> None:
    """CB-06, HB-07."""
    url = await standalone(paused)
    answer = await callback(paused, url)

    assert answer.status_code == 303
    told = query_of(answer.headers["location"])
    assert set(told) == {"code", "state", "iss"}
    assert told["code"].startswith("sbc_")
    assert query_of(url)["code"] not in str(answer.headers)


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        (None, "state is not one that the broker issued"),
        ("", "state is not one that the broker issued"),
        ("short", "state is not one that the broker issued"),
        ("x" * 43, "state is unknown, used or expired"),
        ("x" * 10_000, "state is not one that the broker issued"),
        ("<script>alert(1)</script>", "state is not one that the broker issued"),
        ("'; DROP TABLE launches; --", "state is not one that the broker issued"),
        ("a\r\nSet-Cookie: planted=1", "state is not one that the broker issued"),
        ("\x00" * 43, "state is unknown, used or expired"),
        ("é" * 43, "state is unknown, used or expired"),
    ],
)
async def test_a_state_that_the_broker_did_not_issue_is_refused(
    stage: BrokerStage, paused: App, state: str | None, cause: str
) -> None:
    """CB-01, CB-05."""
    url = await standalone(paused)
    code = query_of(url)["code"]
    with (
        nothing_sent(stage.sandbox),
        audited(stage, "launch.finish", "denied", cause, hides=[code, state or ""]),
    ):
        answer = await callback(paused, changed(url, state=state))

    assert_page(answer, 400, "invalid_request", hides=[code, state or "", "planted"])
    assert (await callback(paused, url)).status_code == 303, "the launch of the real state is untouched"


async def test_a_state_works_once_and_its_code_is_sent_once(stage: BrokerStage, paused: App) -> None:
    """CB-01, CB-03."""
    url = await standalone(paused)
    before = stage.sandbox.counts()["token.authorization_code"]
    assert (await callback(paused, url)).status_code == 303
    assert stage.sandbox.counts()["token.authorization_code"] == before + 1

    with nothing_sent(stage.sandbox), audited(stage, "launch.finish", "denied", "unknown, used or expired"):
        answer = await callback(paused, url)

    assert_page(answer, 400, "invalid_request", hides=[query_of(url)["code"], query_of(url)["state"]])


async def test_a_state_lives_ten_minutes(stage: BrokerStage, paused: App) -> None:
    """CB-01."""
    url = await standalone(paused)
    (key,) = [key async for key in stage.redis.scan_iter(match="sb:launch:*")]
    assert 590_000 < await stage.redis.pttl(key) <= 600_000
    await stage.redis.delete(key)

    with nothing_sent(stage.sandbox), audited(stage, "launch.finish", "denied", "unknown, used or expired"):
        answer = await callback(paused, url)

    assert_page(answer, 400, "invalid_request", hides=[query_of(url)["code"]])


@pytest.mark.parametrize("cookie", ["absent", "wrong", "another launch's"])
async def test_another_browser_cannot_finish_a_launch(
    stage: BrokerStage, paused: App, second: App, cookie: str
) -> None:
    """CB-02: who lures somebody into his own authorization does not get that somebody signed in."""
    if cookie == "another launch's":
        await standalone(paused)
    others = {name: str(value) for name, value in paused.browser.http.cookies.items()}
    paused.browser.http.cookies.clear()
    url = await standalone(paused)
    (name,) = paused.browser.http.cookies
    sent = {"absent": {}, "wrong": {name: "x" * 43}, "another launch's": {name: next(iter(others.values()), "")}}

    with (
        nothing_sent(stage.sandbox),
        audited(stage, "launch.finish", "denied", "the browser is not the one that began the launch (CB-02)"),
    ):
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in sent[cookie].items())}
        answer = await second.http.get(url, headers=headers)
    assert_page(answer, 400, "invalid_request", hides=[query_of(url)["code"], query_of(url)["state"]])

    with nothing_sent(stage.sandbox), audited(stage, "launch.finish", "denied", "unknown, used or expired"):
        assert_page(await callback(paused, url), 400, "invalid_request")


async def test_a_state_of_another_registration_is_refused(stage: BrokerStage, paused: App) -> None:
    """CB-07, OA-24: each EHR has a redirect URI of its own; a code that comes to another's goes nowhere."""
    url = await standalone(paused)
    with (
        nothing_sent(stage.sandbox),
        audited(stage, "launch.finish", "denied", "state belongs to another registration or EHR (CB-07)"),
    ):
        answer = await callback(paused, url.replace("/callback/sandbox-launch", "/callback/other-launch"))

    assert_page(answer, 400, "invalid_request", hides=[query_of(url)["code"], query_of(url)["state"]])


async def test_an_unknown_registration_uses_up_no_launch(stage: BrokerStage, paused: App) -> None:
    url = await standalone(paused)
    with nothing_sent(stage.sandbox), audited(stage, "launch.finish", "denied", "unknown registration"):
        answer = await callback(paused, url.replace("/callback/sandbox-launch", "/callback/nobody"))

    assert_page(answer, 404, "not_found", hides=[query_of(url)["code"]])
    assert (await callback(paused, url)).status_code == 303


@pytest.mark.parametrize("name", ["state", "code", "error", "iss"])
async def test_no_parameter_may_come_twice(stage: BrokerStage, paused: App, name: str) -> None:
    """OA-01."""
    url = await standalone(paused)
    with nothing_sent(stage.sandbox):
        answer = await callback(paused, f"{url}&{name}=1&{name}=2")

    assert_page(answer, 400, "invalid_request", hides=[query_of(url)["code"], query_of(url)["state"]])


HOSTILE = ["<script>alert(1)</script>", "a\r\nSet-Cookie: planted=1", "y" * 30_000, "access_denied\x00", "é"]


@pytest.mark.parametrize("error", ["access_denied", "server_error", *HOSTILE])
async def test_an_error_of_the_ehr_reaches_the_app_that_asked_as_access_denied(
    stage: BrokerStage, paused: App, error: str
) -> None:
    """CB-04, CB-05, CB-06."""
    url = changed(
        await standalone(paused),
        code=None,
        error=error,
        error_description="canary-words",
        error_uri="https://e.example",
    )
    known = error if error in {"access_denied", "server_error"} else "an unreadable error"
    hostile = [] if known == error else [error, "planted"]
    with nothing_sent(stage.sandbox), audited(stage, "launch.finish", "denied", f"the EHR answered {known}"):
        answer = await callback(paused, url)

    assert_app_forgets_and_is_told(answer, "access_denied", hides=["canary-words", "e.example", *hostile])


async def test_an_error_of_the_ehr_in_an_ehr_launch_is_a_page_because_no_app_has_asked(
    stage: BrokerStage, paused: App, patients: list[str]
) -> None:
    """CB-04, CB-09, CB-11, OA-06."""
    stage.sandbox.fault("authorize_error", error="access_denied", error_description="canary-words")
    url = await launched(paused, stage, patients[0])
    with nothing_sent(stage.sandbox), audited(stage, "launch.finish", "denied", "the EHR answered access_denied"):
        answer = await callback(paused, url)

    assert_page(answer, 403, "access_denied", hides=["canary-words", query_of(url)["state"], patients[0]])


async def test_a_code_beside_an_error_is_not_used(stage: BrokerStage, paused: App) -> None:
    url = changed(await standalone(paused), error="access_denied")
    with nothing_sent(stage.sandbox), audited(stage, "launch.finish", "denied", "the EHR answered access_denied"):
        answer = await callback(paused, url)

    assert_app_forgets_and_is_told(answer, "access_denied", hides=[query_of(url)["code"]])


@pytest.mark.parametrize("code", [None, ""])
async def test_a_callback_without_code_or_error_is_the_ehrs_mistake(
    stage: BrokerStage, paused: App, code: str | None
) -> None:
    url = changed(await standalone(paused), code=code)
    with (
        nothing_sent(stage.sandbox),
        audited(stage, "launch.finish", "failed", "the callback has neither code nor error"),
    ):
        answer = await callback(paused, url)

    assert_app_forgets_and_is_told(answer, "server_error", hides=[query_of(url)["state"]])


async def test_an_issuer_that_is_not_this_ehrs_is_a_mix_up(stage: BrokerStage, paused: App) -> None:
    """CB-07."""
    url = changed(await standalone(paused), iss="https://issuer.invalid")
    with (
        nothing_sent(stage.sandbox),
        audited(stage, "launch.finish", "denied", "the callback's iss is not this EHR's issuer (CB-07)"),
    ):
        answer = await callback(paused, url)

    assert_app_forgets_and_is_told(answer, "invalid_request", hides=["issuer.invalid", query_of(url)["code"]])


async def test_a_callback_of_100_kb_is_refused_unread(stage: BrokerStage, paused: App) -> None:
    """CB-05."""
    path = changed(await standalone(paused), code="z" * 100_000).removeprefix(stage.public_url)
    with nothing_sent(stage.sandbox):
        answer = await raw_request(stage, f"GET {path} HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n".encode())

    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 413 "))
    assert b"zzzz" not in answer


@pytest.mark.parametrize("code", ["<script>alert(1)</script>", "a\r\nX: 1", "+ /=%&", "w" * 20_000])
async def test_a_hostile_code_reaches_the_token_endpoint_alone(stage: BrokerStage, paused: App, code: str) -> None:
    """CB-05, TK-01."""
    url = changed(await standalone(paused), code=code)
    with audited(stage, "launch.finish", "failed", "answered invalid_grant", hides=[code]):
        answer = await callback(paused, url)

    assert_app_forgets_and_is_told(answer, "server_error", hides=[code])


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("id_token_bad_nonce", "the id_token's nonce is not the one that was sent (ID-01)"),
        ("id_token_bad_signature", "the id_token's signature does not verify"),
        ("id_token_bad_audience", "the id_token is not acceptable (InvalidClaimError)"),
        ("id_token_bad_issuer", "the id_token's issuer is not one that is expected (ID-03)"),
        ("id_token_expired", "the id_token is not acceptable (ExpiredTokenError)"),
    ],
)
@pytest.mark.parametrize("begun_by", ["app", "ehr"])
async def test_a_bad_id_token_ends_the_launch(
    stage: BrokerStage, paused: App, patients: list[str], fault: str, cause: str, begun_by: str
) -> None:
    """ID-01, OA-27, AL-18."""
    url = await standalone(paused) if begun_by == "app" else await launched(paused, stage, patients[0])
    stage.sandbox.fault(fault)
    before = await grants_in(stage)
    with audited(stage, "launch.finish", "failed", cause):
        answer = await callback(paused, url)

    if begun_by == "app":
        assert_app_forgets_and_is_told(answer, "server_error", hides=["canary-", cause])
    else:
        assert_page(answer, 502, "ehr_misbehaved", hides=["canary-", cause, query_of(url)["state"]])
    assert await grants_in(stage) == before, "nothing is kept of what a bad id_token came with"


async def grants_in(stage: BrokerStage) -> set[bytes]:
    return {key async for key in stage.redis.scan_iter(match="sb:{*}:grant")}


@pytest.mark.parametrize(
    ("fault", "parameters", "outcome", "error", "status", "code", "cause"),
    [
        ("token_500", {}, "failed", "temporarily_unavailable", 503, "ehr_unreachable", "status 500"),
        ("token_503", {}, "failed", "temporarily_unavailable", 503, "ehr_unreachable", "status 503"),
        ("token_429", {}, "failed", "temporarily_unavailable", 503, "ehr_unreachable", "status 429"),
        ("token_html", {}, "failed", "server_error", 502, "ehr_misbehaved", "without a JSON object (OA-04)"),
        ("token_invalid_grant", {}, "failed", "server_error", 502, "ehr_refused", "answered invalid_grant"),
        ("token_invalid_client", {}, "failed", "server_error", 502, "ehr_refused", "answered invalid_client"),
        ("token_drop_before", {}, "failed", "temporarily_unavailable", 504, "ehr_answer_lost", "no answer"),
        ("token_drop", {}, "failed", "temporarily_unavailable", 504, "ehr_answer_lost", "no answer"),
        ("token_timeout", {}, "failed", "temporarily_unavailable", 504, "ehr_answer_lost", "no answer within 4 s"),
        ("token_scope", {"scope": ""}, "denied", "access_denied", 403, "access_denied", "no resource scope"),
        ("token_scope", {"scope": "openid launch"}, "denied", "access_denied", 403, "access_denied", "no resource"),
        ("token_scope", {"scope": "patient/*.read "}, "allowed", "", 303, "", "grant created"),
        (
            "token_members",
            {"drop": ["access_token"]},
            "failed",
            "server_error",
            502,
            "ehr_answer_unreadable",
            "(TR-01)",
        ),
        (
            "token_members",
            {"set": {"token_type": "mac"}},
            "failed",
            "server_error",
            502,
            "ehr_answer_unreadable",
            "(TR-02)",
        ),
    ],
)
@pytest.mark.parametrize("begun_by", ["app", "ehr"])
async def test_a_token_endpoint_that_fails_ends_the_launch(
    stage: BrokerStage,
    paused: App,
    patients: list[str],
    fault: str,
    parameters: dict[str, Any],
    outcome: str,
    error: str,
    status: int,
    code: str,
    cause: str,
    begun_by: str,
) -> None:
    """CB-03, OA-04, TR-01, TR-02."""
    url = await standalone(paused) if begun_by == "app" else await launched(paused, stage, patients[0])
    stage.sandbox.fault(fault, client_id="broker-launch", **parameters)
    before = stage.sandbox.counts()["token"]
    with audited(stage, "launch.finish", outcome, cause, hides=["a fault was armed"]):
        answer = await callback(paused, url)

    assert stage.sandbox.counts()["token"] == before + 1, "a code is sent once, whatever comes of it"
    if not error:
        assert answer.status_code == status
    elif begun_by == "app":
        assert_app_forgets_and_is_told(answer, error, hides=["canary-", "a fault was armed", "Maintenance"])
    else:
        assert_page(answer, status, code, hides=["canary-", "a fault was armed", "Maintenance", patients[0]])


async def test_two_interleaved_launches_end_with_the_right_patient_each(
    stage: BrokerStage, app: App, paused: App, patients: list[str]
) -> None:
    """AL-21: one browser, two tabs."""
    first, second_ = patients
    to_first = await launched(paused, stage, first)
    to_second = await launched(paused, stage, second_)
    landed_second = query_of((await callback(paused, to_second)).headers["location"])
    landed_first = query_of((await callback(paused, to_first)).headers["location"])
    app.browser.http.cookies.update(paused.browser.http.cookies)

    handles = {}
    for patient, landed in ((first, landed_first), (second_, landed_second)):
        landing = await app.authorize(scope="launch patient/*.rs", launch=landed["launch"])
        handles[patient] = await app.exchange(landing)

    for patient, other in ((first, second_), (second_, first)):
        assert handles[patient]["patient"] == patient
        handle = handles[patient]["access_token"]
        assert (await app.fhir(handle, f"Patient/{patient}")).json()["id"] == patient
        assert (await app.fhir(handle, f"Patient/{other}")).status_code == 403
