"""Refreshing: with and without a scope, the headers, and what is refused."""

import pytest

from tests.refusals.refusal import assert_oauth_error
from tests.stage import App

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("scope", [None, "launch/patient openid fhirUser offline_access patient/*.rs"])
async def test_a_refresh_token_buys_a_new_access_token(public: App, scope: str | None) -> None:
    """smart_token_refresh_without_scopes, smart_token_refresh_with_scopes, smart_token_refresh_body (RF-01, RF-09)."""
    given = await public.standalone()
    asked = {"scope": scope} if scope else {}
    answer = await public.token(grant_type="refresh_token", refresh_token=given["refresh_token"], **asked)

    body = answer.json()
    assert answer.status_code == 200, answer.text
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 300, given["scope"])
    assert body["access_token"] != given["access_token"]
    assert body["refresh_token"] != given["refresh_token"]
    assert body["patient"] == given["patient"]
    assert (await public.fhir(body["access_token"], f"Patient/{body['patient']}")).status_code == 200


async def test_a_refreshed_response_is_never_stored(public: App) -> None:
    """smart_token_response_headers of a refresh (TR-03)."""
    given = await public.standalone()
    answer = await public.token(grant_type="refresh_token", refresh_token=given["refresh_token"])

    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")


async def test_a_refresh_may_narrow_the_scope(public: App) -> None:
    """smart_token_refresh_with_scopes: a subset of what was granted (RF-02)."""
    given = await public.standalone()
    answer = await public.token(
        grant_type="refresh_token", refresh_token=given["refresh_token"], scope="patient/Condition.rs"
    )

    assert answer.json()["scope"] == "patient/Condition.rs"


@pytest.mark.parametrize("token", ["bad_refresh_token", "", "sbr_"])
async def test_an_invalid_refresh_token_is_refused(public: App, token: str) -> None:
    """g10_invalid_token_refresh: 400 or 401 (OA-03)."""
    answer = await public.token(grant_type="refresh_token", refresh_token=token)

    assert_oauth_error(answer, 400, "invalid_grant" if token else "invalid_request")


async def test_a_refresh_never_widens(public: App) -> None:
    """A scope that was not granted is refused, and spends nothing (RF-11)."""
    given = await public.standalone(scope="offline_access patient/Condition.rs")
    form = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"]}
    wider = await public.token(**form, scope="patient/*.rs")

    assert_oauth_error(wider, 400, "invalid_scope")
    assert (await public.token(**form)).status_code == 200
