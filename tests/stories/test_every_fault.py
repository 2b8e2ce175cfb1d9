"""Whatever the simulated EHR can do wrong, an app is told so in its own dialect, and nothing of it leaks (spec §21).

The table is the sandbox's own, so a new fault is tried as soon as there is one.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import httpx2
import pytest

from sandbox.faults import FAULTS, Fault
from tests.stage import App, BrokerStage
from tests.stage.browser import Landing

REALM: Final = 'Bearer realm="token broker"'
OAUTH_ERRORS: Final = {"server_error", "temporarily_unavailable", "access_denied", "invalid_grant", "invalid_request"}
SECRET: Final = re.compile(r"[A-Za-z0-9._~+/=-]{16,}")
PAGE: Final = "We will be right back"
SHORT: Final = {"delay": 0.05, "hold": 0.05, "silence": 0.2}
"""Seconds, where a fault takes some."""
AT_LAUNCH: Final = re.compile(
    "authorize|code|id_token|smart_configuration|openid|well_known|endpoints$|jwks|oauth_uris|token.authorization_code"
)
"""Faults of these points strike while a grant is made, all others while it is used."""
NOT_MET: Final = {
    "bulk": "nothing is exported here",
    "brands": "read by an operator's command",
    "endpoints_bundle": "read by an operator's command",
    "par": "requests are not pushed unless the EHR wants it",
    "introspect": "asked by an operator's command",
    "revoke": "nothing is given back",
    "launch": "nobody launches from the EHR",
    "dpop": "tokens are not bound to keys",
}
"""Where this app does not come by: other stories do."""
MET: Final = [fault for fault in FAULTS if not fault.point.startswith(tuple(NOT_MET))]


def texts(parameters: Any) -> Iterator[str]:
    """Every text in a fault's parameters."""
    if isinstance(parameters, dict):
        for value in parameters.values():
            yield from texts(value)
    elif isinstance(parameters, str):
        yield parameters


def hidden(fault: Fault) -> list[str]:
    """What the fault brings along that no app may see: other hosts, challenges, pages."""
    said = [text for text in texts(dict(fault.parameters)) if "//" in text or "error=" in text or "gateway" in text]
    return [PAGE, "MRN 2", *said, *(text.partition("//")[2].partition("/")[0] for text in said if "//" in text)]


def leaked(text: str, hashes: set[str]) -> list[str]:
    """Which of the secrets with these hashes stand in a text."""
    return [word for word in SECRET.findall(text) if hashlib.sha256(word.encode()).hexdigest() in hashes]


def shown(answer: httpx2.Response) -> str:
    return "\n".join([*(f"{name}: {value}" for name, value in answer.headers.items()), answer.text])


def assert_in_dialect(answer: httpx2.Response, base: str) -> None:
    """FHIR below the FHIR base, OAuth JSON at the token endpoint (OA-03) (OA-04) (PX-10)."""
    assert answer.headers.get("www-authenticate", REALM).startswith(REALM)
    assert answer.headers.get("location", base).startswith(base)
    if answer.status_code in {204, 304}:
        return
    document = answer.json()
    if str(answer.url).startswith(base):
        assert answer.headers["content-type"].startswith("application/fhir+json")
        assert answer.status_code < 400 or document["resourceType"] == "OperationOutcome"
    else:
        assert answer.headers["content-type"] == "application/json"
        assert answer.status_code < 400 or document["error"] in OAUTH_ERRORS


def assert_landed_well(landing: Landing, app: App) -> None:
    """At the app, with a code or an OAuth error; at a page of the broker that says which error it is; or at the EHR."""
    if landing.url.startswith(app.redirect_uri):
        assert "code" in landing.parameters or landing.parameters["error"] in OAUTH_ERRORS
        assert landing.parameters["state"] == "app-state"
    elif landing.url.startswith(app.base.partition("/fhir/")[0]):
        assert re.search("<code>[a-z_]+</code>", landing.text)


async def use(stage: BrokerStage, app: App, given: dict[str, Any]) -> None:
    """Do what an app does with what it was given: read, search, turn pages, write, refresh, and read again."""
    handle, patient = given["access_token"], given.get("patient", "unknown")
    await app.fhir(handle, f"Patient/{patient}")
    answer = await app.fhir(handle, f"Observation?patient={patient}&_count=2")
    pages = answer.json().get("link", []) if answer.status_code == 200 else []
    for page in pages:
        if page["relation"] == "next" and page["url"].startswith(app.base):
            await app.fhir(handle, page["url"].removeprefix(f"{app.base}/").removeprefix(app.base))
    observation = {"resourceType": "Observation", "status": "final", "subject": {"reference": f"Patient/{patient}"}}
    await app.fhir(handle, "Observation", method="POST", json=observation)
    app.answers.append(await app.http.get(f"{app.base}/metadata"))
    stage.clock.advance(3700)
    answer = await app.token(grant_type="refresh_token", refresh_token=given["refresh_token"])
    if answer.status_code == 200:
        await app.fhir(answer.json()["access_token"], f"Patient/{patient}")


async def journey(stage: BrokerStage, app: App, fault: Fault) -> None:
    parameters = {"seconds": SHORT[fault.effect]} if fault.effect in SHORT else {}
    given = None if AT_LAUNCH.match(fault.point) else await app.standalone()
    stage.sandbox.fault(fault.name, **parameters)
    if given is None:
        with suppress(httpx2.ConnectError):  # the person's browser goes where the EHR says
            landing = await app.authorize()
            assert_landed_well(landing, app)
            is_given = landing.url.startswith(app.redirect_uri) and "code" in landing.parameters
            given = await app.exchange(landing) if is_given else None
    if given is not None:
        with suppress(httpx2.RemoteProtocolError):  # the app sees for itself that a body is not whole
            await use(stage, app, given)


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name) for fault in MET])
async def test_a_fault_is_told_in_the_apps_dialect_and_shows_nothing(
    secret_stage: BrokerStage, secret_app: App, fault: Fault
) -> None:
    """(NC-10) (NC-12) (NC-16) (NC-17) (NC-20) (PX-10) (HB-07)."""
    await journey(secret_stage, secret_app, fault)

    waiting = {one["name"] for one in secret_stage.sandbox.faults() if not one["struck"]}
    assert fault.name not in waiting
    hashes = {issued["sha256"] for issued in secret_stage.sandbox.journal("issued")}
    assert hashes
    pages = [page for page in secret_app.browser.seen if str(page.url).startswith(secret_stage.public_url)]
    for page in pages:
        assert PAGE not in shown(page)
        assert leaked(shown(page), hashes) == []
    assert pages
    for answer in secret_app.answers:
        assert_in_dialect(answer, secret_app.base)
        text = shown(answer)
        assert [word for word in hidden(fault) if word in text] == []
        assert leaked(text, hashes) == []
        if str(answer.url).startswith(secret_app.base):
            assert secret_stage.sandbox.origin not in text


def test_a_secret_would_be_found() -> None:
    """The search above can fail."""
    token = "eyJhbGciOi.abc-_~+/=="
    hashes = {hashlib.sha256(token.encode()).hexdigest()}

    assert leaked(f'{{"diagnostics":"Bearer {token}"}}', hashes) == [token]
    assert leaked(f"x-token: {token}\nother: {token[:-1]}", hashes) == [token]


def test_a_fault_that_nobody_meets_is_one_of_the_sandboxes() -> None:
    for point in NOT_MET:
        assert any(fault.point.startswith(point) for fault in FAULTS)
