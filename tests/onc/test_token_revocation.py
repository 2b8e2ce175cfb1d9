"""Token revocation: by the app at the revocation endpoint, by an operator at the broker."""

import httpx2
import pytest

from tests.refusals.refusal import assert_oauth_error
from tests.stage import App, BrokerStage

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def revoke(app: App, token: str, **more: str) -> httpx2.Response:
    url = f"{app.base.rpartition('/fhir/')[0]}/oauth/revoke"
    return await app.http.post(url, data={"client_id": app.client_id, "token": token, **more})


async def test_revoked_tokens_neither_read_nor_refresh(public: App) -> None:
    """g10_token_revocation: access to a patient fails with 401, a refresh with 400 (IN-06, HB-06, HB-08, OA-10)."""
    given = await public.standalone()
    patient = f"Patient/{given['patient']}"
    assert (await public.fhir(given["access_token"], patient)).status_code == 200
    assert (await revoke(public, given["refresh_token"])).status_code == 200

    assert (await public.fhir(given["access_token"], patient)).status_code == 401
    refreshed = await public.token(grant_type="refresh_token", refresh_token=given["refresh_token"])
    assert_oauth_error(refreshed, 400, "invalid_grant")


async def test_an_operators_revocation_does_the_same(public: App, stage: BrokerStage) -> None:
    """g10_token_revocation, as a person asks for it at the EHR's or the broker's desk (HB-08, RF-14)."""
    given = await public.standalone()
    await stage.broker.revoke_grant(given["access_token"][4:16], cause="the patient asked")

    assert (await public.fhir(given["access_token"], f"Patient/{given['patient']}")).status_code == 401
    refreshed = await public.token(grant_type="refresh_token", refresh_token=given["refresh_token"])
    assert refreshed.status_code in {400, 401}


@pytest.mark.parametrize("token", ["unknown", "sbh_", "sbr_"])
@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "urn:example:unknown"])
async def test_an_unknown_token_is_answered_like_a_known_one(public: App, token: str, hint: str) -> None:
    """RFC 7009 §2.2 (HB-06)."""
    answer = await revoke(public, token, token_type_hint=hint)

    assert (answer.status_code, answer.content) == (200, b"")
