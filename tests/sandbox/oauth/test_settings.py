"""Settings can be changed while the sandbox runs, one test at a time."""

import pytest

from tests.sandbox.oauth.driver import FHIR_BASE, Driver, redirected


async def test_a_setting_changes_at_once_and_until_the_reset(ehr: Driver) -> None:
    answer = await ehr.http.post("/__settings", json={"aud": "refused", "access_token_lifetime": 9})
    assert (answer.json()["aud"], answer.json()["access_token_lifetime"]) == ("refused", 9)
    assert redirected(await ehr.authorize(aud=FHIR_BASE))["error"] == "invalid_request"
    assert (await ehr.tokens(aud=None))["expires_in"] == 9
    await ehr.http.post("/__reset")
    assert (await ehr.http.get("/__settings")).json()["aud"] == "exact"
    assert (await ehr.tokens())["expires_in"] == 3600


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "the body is an object with some of auto_approve, access_token_lifetime"),
        ({"public_url": "http://a.example"}, "the body is an object with some of"),
        ({"aud": "sometimes"}, "aud must be one of exact, slash-optional"),
        ({"dpop": "yes"}, "dpop must be true or false"),
        ({"refresh_interval": True}, "refresh_interval must be a number"),
        ({"refresh_interval": -1}, "refresh_interval must be a number"),
        ({"oauth_path": 1}, "oauth_path must be a string"),
    ],
)
async def test_a_setting_that_makes_no_sense_is_refused(ehr: Driver, document: object, says: str) -> None:
    answer = await ehr.http.post("/__settings", json=document)
    assert answer.status_code == 400
    assert says in answer.json()["error"]
