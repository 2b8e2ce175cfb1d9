"""The standalone launch, for each kind of client, and the token response it ends with."""

import pytest

from tests.onc.kit import code_form, fresh_code
from tests.refusals.keys import Algorithm, Keys, proof
from tests.stage import App, BrokerStage
from tests.stage.app import REDIRECT_URI

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_app_is_answered_at_its_redirect_uri_with_code_state_and_issuer(
    public: App, stage: BrokerStage
) -> None:
    """smart_app_redirect_stu2, smart_code_received: the issuer too (RFC 9207 §2, CB-07)."""
    landing = await public.authorize()

    assert landing.url.startswith(f"{REDIRECT_URI}?")
    assert landing.parameters.keys() == {"code", "state", "iss"}
    assert (landing.parameters["state"], landing.parameters["iss"]) == ("app-state", stage.public_url)


async def test_the_app_may_post_its_request(public: App, stage: BrokerStage) -> None:
    """smart_app_redirect_stu2 by POST, as `authorize-post` promises (AL-14)."""
    await public.authorize(client_id="nobody")  # makes a verifier, and asks nothing of the EHR
    form = {"response_type": "code", "client_id": public.client_id, "redirect_uri": REDIRECT_URI, "state": "s"}
    form |= {"scope": "patient/*.rs", "aud": stage.base, "code_challenge": "c" * 43, "code_challenge_method": "S256"}
    answer = await public.browser.http.post(f"{stage.public_url}/oauth/authorize", data=form)

    landing = await public.browser.open(answer.headers["location"])
    assert landing.parameters.keys() == {"code", "state", "iss"}


async def test_a_public_client_exchanges_its_code(public: App) -> None:
    """smart_token_exchange and smart_token_response_body for a public client (TK-03, TR-01, TR-02)."""
    response = await public.standalone()

    assert response["token_type"] == "Bearer"
    assert response["expires_in"] == 300
    assert isinstance(response["patient"], str)
    assert response["need_patient_banner"] in (True, False)
    assert set(response["scope"].split()) == {"launch/patient", "openid", "fhirUser", "offline_access", "patient/*.rs"}


async def test_a_symmetric_client_exchanges_its_code(confidential: App) -> None:
    """smart_token_exchange for a confidential client with a secret (TK-07, OA-05)."""
    response = await confidential.standalone()

    assert response["scope"] == "launch/patient patient/Patient.rs"
    assert "refresh_token" not in response


@pytest.mark.parametrize("algorithm", ["RS384", "ES384"])
async def test_an_asymmetric_client_exchanges_its_code(
    keyed: App, keys: Keys, stage: BrokerStage, algorithm: Algorithm
) -> None:
    """smart_token_exchange_stu2 with private_key_jwt (RG-08, CA-08, OA-13)."""
    key, kid = (keys.rsa, "rsa") if algorithm == "RS384" else (keys.ec, "ec")
    signed = keys.assertion(
        keyed.client_id, f"{stage.public_url}/oauth/token", key=key, header={"alg": algorithm, "kid": kid}
    )
    answer = await keyed.token(**code_form(keyed, await fresh_code(keyed)), **proof(signed))

    assert answer.status_code == 200, answer.text
    assert answer.json()["access_token"].startswith("sbh_")


async def test_the_token_response_is_never_stored(public: App) -> None:
    """smart_token_response_headers (TR-03)."""
    await public.standalone()

    headers = public.answers[-1].headers
    assert (headers["cache-control"], headers["pragma"]) == ("no-store", "no-cache")
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ("patient/*.rs", "patient/*.rs"),
        ("patient/*.read", "patient/*.rs"),
        ("patient/Condition.r patient/Condition.s", "patient/Condition.rs"),
        ("patient/*.cruds", "patient/*.rs patient/Observation.cud"),
        ("patient/Condition.rs user/*.rs __vendor", "patient/Condition.rs"),
    ],
)
async def test_the_granted_scope_is_told_and_never_wider_than_asked(public: App, asked: str, granted: str) -> None:
    """g10_smart_scopes, g10_limited_scope_grant (TR-04, SC-03, SC-04, SC-07, OA-02)."""
    assert (await public.standalone(scope=asked))["scope"] == granted


async def test_the_patient_in_context_can_be_read(public: App) -> None:
    """g10_patient_context (CX-01, PX-01)."""
    response = await public.standalone()
    answer = await public.fhir(response["access_token"], f"Patient/{response['patient']}")

    assert (answer.status_code, answer.json()["id"]) == (200, response["patient"])


async def test_unknown_parameters_are_ignored(public: App) -> None:
    """RFC 6749 §3.1: what is not known is not looked at, `display` and `prompt` among it (OA-01)."""
    code = await fresh_code(public, display="popup", prompt="consent", claims_locales="en", unknown="x")

    assert (await public.token(**code_form(public, code), unknown="x")).status_code == 200
