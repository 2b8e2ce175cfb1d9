"""`/oauth/introspect` and `/oauth/revoke`: an app's own handles, and nobody else's (RFC 7662, RFC 7009)."""

import base64
import json
from typing import Any

import httpx2
import pytest

from broker.credentials import HANDLE, REFRESH_HANDLE, mint, new_tag
from tests.refusals.refusal import assert_oauth_error, assert_outcome, audited, logged, nothing_sent
from tests.stage import App, BrokerStage, MovableClock
from tests.stage.broker import APP_SECRET_TEXT

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVALID_TOKEN = 'Bearer realm="token broker", error="invalid_token"'
INACTIVE = {"active": False}


def ones(count: int) -> bytes:
    return b"\1" * count


NOT_OURS = {
    "not a token": "x",
    "unknown handle": mint(HANDLE, new_tag(ones), ones).reveal(),
    "unknown refresh handle": mint(REFRESH_HANDLE, new_tag(ones), ones).reveal(),
    "wrong checksum": mint(HANDLE, new_tag(ones), ones).reveal()[:-1] + "0",
    "a script": "<script>alert(1)</script>",
    "long": "z" * 50_000,
}


async def introspect(app: App, token: str, **more: str) -> httpx2.Response:
    return await send(app, "introspect", token=token, **more)


async def revoke(app: App, token: str, **more: str) -> httpx2.Response:
    return await send(app, "revoke", token=token, **more)


async def send(app: App, endpoint: str, **form: str) -> httpx2.Response:
    named = {} if app.auth else {"client_id": app.client_id}
    url = f"{app.base.rpartition('/fhir/')[0]}/oauth/{endpoint}"
    return await app.http.post(url, data={**named, **form}, auth=app.auth or httpx2.USE_CLIENT_DEFAULT)


def claims_of(id_token: str) -> dict[str, Any]:
    """Return what a JWT says, unverified."""
    return dict(json.loads(base64.urlsafe_b64decode(id_token.split(".")[1] + "==")))


def assert_inactive(answer: httpx2.Response) -> None:
    """Exactly `{"active": false}`: neither why, nor whose (RFC 7662 §2.2)."""
    assert (answer.status_code, answer.json()) == (200, INACTIVE)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"


async def test_an_app_learns_what_its_handle_may_do(stage: BrokerStage, app: App) -> None:
    """HB-06."""
    given = await app.standalone()
    with nothing_sent(stage.sandbox):
        answer = await introspect(app, given["access_token"])

    assert answer.headers["cache-control"] == "no-store"
    told, identity = answer.json(), claims_of(given["id_token"])
    assert abs(told.pop("exp") - stage.clock() - 300) < 10
    assert told == {
        "active": True,
        "client_id": "growth-chart",
        "token_type": "Bearer",
        "scope": given["scope"],
        "aud": stage.base,
        "iss": stage.public_url,
        "sub": identity["sub"],
        **{name: given[name] for name in given.keys() & {"patient", "encounter", "fhirUser", "need_patient_banner"}},
        **{name: given[name] for name in given.keys() & {"smart_style_url", "tenant", "intent", "fhirContext"}},
    }


@pytest.mark.parametrize("token", NOT_OURS.values(), ids=NOT_OURS)
@pytest.mark.parametrize("hint", ["", "access_token", "refresh_token", "nonsense"])
async def test_what_is_not_a_live_handle_is_inactive(stage: BrokerStage, app: App, token: str, hint: str) -> None:
    """HB-06, IN-04."""
    with nothing_sent(stage.sandbox):
        assert_inactive(await introspect(app, token, token_type_hint=hint))


@pytest.mark.parametrize("asker", ["second", "reports"])
async def test_another_apps_handle_is_inactive_and_cannot_be_revoked(
    stage: BrokerStage, app: App, second: App, reports: App, asker: str
) -> None:
    """HB-06, IN-04."""
    given = await app.standalone()
    other = second if asker == "second" else reports
    for token in (given["access_token"], given["refresh_token"]):
        with nothing_sent(stage.sandbox):
            assert_inactive(await introspect(other, token))
            answer = await revoke(other, token)
        assert (answer.status_code, answer.content) == (200, b"")

    assert (await introspect(app, given["access_token"])).json()["active"] is True
    assert (await app.fhir(given["access_token"], f"Patient/{given['patient']}")).status_code == 200
    assert (await app.token(grant_type="refresh_token", refresh_token=given["refresh_token"])).status_code == 200


async def test_an_expired_handle_is_inactive(stage: BrokerStage, app: App, borrowed_clock: MovableClock) -> None:
    """HB-06, IN-04."""
    given = await app.standalone()
    borrowed_clock.advance(300)

    assert_inactive(await introspect(app, given["access_token"]))


async def test_a_handle_of_a_revoked_grant_is_inactive(stage: BrokerStage, app: App) -> None:
    """HB-06, HB-08."""
    before = {tag async for tag in stage.broker.grants.tags()}
    given = await app.standalone()
    (tag,) = {tag async for tag in stage.broker.grants.tags()} - before
    await stage.broker.revoke_grant(tag, cause="test")

    assert_inactive(await introspect(app, given["access_token"]))


async def test_a_revoked_handle_ends_at_once_and_alone(stage: BrokerStage, app: App) -> None:
    """HB-06, HB-08."""
    first = await app.standalone()
    second = (await app.token(grant_type="refresh_token", refresh_token=first["refresh_token"])).json()
    patient = f"Patient/{first['patient']}"
    with nothing_sent(stage.sandbox):
        answer = await revoke(app, first["access_token"])
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["cache-control"] == "no-store"
        refused = await app.fhir(first["access_token"], patient)
        assert_outcome(refused, 401, "invalid_token", challenge=INVALID_TOKEN, hides=[first["access_token"]])
        assert_inactive(await introspect(app, first["access_token"]))

    assert (await app.fhir(second["access_token"], patient)).status_code == 200


async def test_revoking_a_refresh_handle_ends_all_that_came_from_one_authorization(
    stage: BrokerStage, app: App
) -> None:
    """HB-06, OA-10."""
    other = await app.standalone()
    first = await app.standalone()
    second = (await app.token(grant_type="refresh_token", refresh_token=first["refresh_token"])).json()
    patient = f"Patient/{first['patient']}"
    assert (await revoke(app, second["refresh_token"])).status_code == 200

    with nothing_sent(stage.sandbox):
        for given in (first, second):
            refused = await app.fhir(given["access_token"], patient)
            assert_outcome(refused, 401, "invalid_token", challenge=INVALID_TOKEN)
        again = await app.token(grant_type="refresh_token", refresh_token=second["refresh_token"])
        assert_oauth_error(again, 400, "invalid_grant", hides=[second["refresh_token"]])
    assert (await app.fhir(other["access_token"], patient)).status_code == 200


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "nonsense"])
async def test_a_wrong_hint_hides_nothing_from_revocation(app: App, hint: str) -> None:
    """HB-06."""
    given = await app.standalone()
    await revoke(app, given["refresh_token"], token_type_hint=hint)

    assert_inactive(await introspect(app, given["access_token"]))


@pytest.mark.parametrize("token", NOT_OURS.values(), ids=NOT_OURS)
async def test_revoking_what_is_not_known_is_answered_like_success(stage: BrokerStage, app: App, token: str) -> None:
    """HB-06."""
    before = len(stage.audit_lines())
    with nothing_sent(stage.sandbox):
        answer = await revoke(app, token)

    assert (answer.status_code, answer.content) == (200, b"")
    (line,) = stage.audit_lines()[before:]
    assert '"event":"handle.revoke","outcome":"denied"' in line
    assert len(token) < 2 or token not in line


async def test_revoking_twice_is_answered_like_once(app: App) -> None:
    given = await app.standalone()
    assert [(await revoke(app, given["access_token"])).status_code for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("endpoint", ["introspect", "revoke"])
class TestWhoAsks:
    @pytest.mark.parametrize(
        ("client_id", "auth", "cause"),
        [
            ("", None, "unknown client_id"),
            ("nobody", None, "unknown client_id"),
            ("reports", None, "no secret, or one that this broker never made"),
            ("", ("reports", "guess"), "no secret, or one that this broker never made"),
            ("", ("growth-chart", APP_SECRET_TEXT), "app growth-chart authenticates by none, not by a secret"),
            ("signed", None, "client_assertion_type is missing"),
        ],
    )
    async def test_who_proves_nothing_is_told_nothing(
        self,
        stage: BrokerStage,
        app: App,
        endpoint: str,
        client_id: str,
        auth: tuple[str, str] | None,
        cause: str,
    ) -> None:
        given = await app.standalone()
        asker = App(stage.base, client_id, auth=auth)
        with (
            nothing_sent(stage.sandbox),
            audited(stage, "app.authenticate", "denied", cause, hides=[given["access_token"], APP_SECRET_TEXT]),
        ):
            answer = await send(asker, endpoint, token=given["access_token"])
        await asker.close()

        assert_oauth_error(answer, 401, "invalid_client", hides=[given["access_token"], APP_SECRET_TEXT])
        assert (await app.fhir(given["access_token"], f"Patient/{given['patient']}")).status_code == 200

    @pytest.mark.parametrize("form", [{}, {"token": ""}])
    async def test_a_request_names_its_token(
        self, stage: BrokerStage, app: App, endpoint: str, form: dict[str, str]
    ) -> None:
        with nothing_sent(stage.sandbox), logged("token is missing"):
            assert_oauth_error(await send(app, endpoint, **form), 400, "invalid_request")

    async def test_a_request_is_a_form_without_repetitions(self, stage: BrokerStage, app: App, endpoint: str) -> None:
        """OA-01."""
        url = f"{stage.public_url}/oauth/{endpoint}"
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        with nothing_sent(stage.sandbox), logged("a parameter is repeated", hides=["canary-"]):
            twice = await app.http.post(url, content="client_id=growth-chart&token=canary-a&token=b", headers=form)
        assert_oauth_error(twice, 400, "invalid_request", hides=["canary-"])
        with nothing_sent(stage.sandbox), logged("not a form"):
            as_json = await app.http.post(url, json={"client_id": "growth-chart", "token": "canary-a"})
        assert_oauth_error(as_json, 400, "invalid_request", hides=["canary-"])

    async def test_a_token_in_the_query_is_not_looked_at(self, stage: BrokerStage, app: App, endpoint: str) -> None:
        """OA-08."""
        given = await app.standalone()
        url = f"{stage.public_url}/oauth/{endpoint}?token={given['access_token']}"
        answer = await app.http.post(url, data={"client_id": "growth-chart"})

        assert_oauth_error(answer, 400, "invalid_request", hides=[given["access_token"]])
        assert (await app.fhir(given["access_token"], f"Patient/{given['patient']}")).status_code == 200
