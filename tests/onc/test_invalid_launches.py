"""Launches that must not succeed: a wrong audience, a wrong code, a wrong client, a wrong or absent PKCE proof."""

import base64
import hashlib

import pytest

from tests.onc.kit import code_form, fresh_code
from tests.refusals.refusal import assert_oauth_error, nothing_sent
from tests.stage import App, BrokerStage

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"  # RFC 7636, appendix B


@pytest.mark.parametrize("aud", ["https://inferno.example/invalid_aud", "{ehr}", "{base}/Patient", "{base}//", None])
async def test_an_invalid_aud_is_refused(public: App, stage: BrokerStage, aud: str | None) -> None:
    """g10_smart_invalid_aud: neither the EHR's own base nor anything but the broker's (AL-11, OA-20)."""
    said = aud.format(ehr=stage.sandbox.fhir_base, base=stage.base) if aud else None
    with nothing_sent(stage.sandbox):
        landing = await public.authorize(aud=said)

    assert landing.parameters["error"] == "invalid_target"
    assert landing.parameters["iss"] == stage.public_url
    assert "code" not in landing.parameters


async def test_a_trailing_slash_of_aud_is_no_fault(public: App, stage: BrokerStage) -> None:
    """Q7: clients differ in it, and it names the same server."""
    assert "code" in (await public.authorize(aud=f"{stage.base}/")).parameters


@pytest.mark.parametrize("missing", ["state", "code_challenge", "code_challenge_method"])
async def test_a_required_parameter_cannot_be_left_out(public: App, stage: BrokerStage, missing: str) -> None:
    """AL-10, AL-12: `state` and PKCE are required of every client, and no error forgets who answers (RFC 9207)."""
    with nothing_sent(stage.sandbox):
        landing = await public.authorize(**{missing: None})  # type: ignore[arg-type]  # scope is not among them

    assert (landing.parameters["error"], landing.parameters["iss"]) == ("invalid_request", stage.public_url)


@pytest.mark.parametrize("mode", ["fragment", "form_post", "query.jwt"])
async def test_another_response_mode_is_refused(public: App, mode: str) -> None:
    """What the metadata does not list is not silently answered otherwise."""
    assert (await public.authorize(response_mode=mode)).parameters["error"] == "invalid_request"


async def test_the_query_is_the_response_mode(public: App) -> None:
    assert "code" in (await public.authorize(response_mode="query")).parameters


@pytest.mark.parametrize("code", ["BAD_CODE", "sbc_", "0" * 65])
async def test_an_invalid_code_is_refused(public: App, code: str) -> None:
    """g10_smart_invalid_token_request_stu2: a code that was never issued (OA-03)."""
    await fresh_code(public)

    assert_oauth_error(await public.token(**code_form(public, code)), 400, "invalid_grant")


async def test_an_invalid_client_id_is_refused(public: App) -> None:
    """g10_smart_invalid_token_request_stu2: nobody of that name (OA-03)."""
    form = code_form(public, await fresh_code(public))

    assert_oauth_error(await public.token(**form, client_id="BAD_CLIENT_ID"), 401, "invalid_client")


async def test_a_code_of_another_client_is_refused(public: App, limited: App) -> None:
    """RFC 6749 §4.1.3: a code is its client's."""
    form = code_form(public, await fresh_code(public))

    assert_oauth_error(await limited.token(**form), 400, "invalid_grant")


async def test_another_redirect_uri_is_refused(public: App) -> None:
    """RFC 6749 §4.1.3: the same as in the authorization request (OA-24)."""
    form = code_form(public, await fresh_code(public), redirect_uri="http://127.0.0.1:1/other")

    assert_oauth_error(await public.token(**form), 400, "invalid_grant")


async def test_a_replayed_code_ends_what_it_gave(public: App) -> None:
    """RFC 6749 §4.1.2 (CB-03): the second use of a code takes the first one's handle with it."""
    form = code_form(public, await fresh_code(public))
    given = (await public.token(**form)).json()
    read = f"Patient/{given['patient']}"
    assert (await public.fhir(given["access_token"], read)).status_code == 200

    assert_oauth_error(await public.token(**form), 400, "invalid_grant")
    assert (await public.fhir(given["access_token"], read)).status_code == 401


def challenge_of(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("verifier", "error"),
    [
        (None, "invalid_request"),
        ("", "invalid_request"),
        ("c2a6e1a0-55a4-4b84-9b51-7b2b8e9f2d10-6f0b2e1c-0d5e-4a0f-8f6e-2f0c6a7b9d11", "invalid_grant"),
        ("plain", "invalid_grant"),
        ("short", "invalid_request"),
        ("é" * 43, "invalid_request"),
    ],
    ids=["missing", "blank", "wrong", "the challenge itself", "too short", "not unreserved"],
)
async def test_an_invalid_code_verifier_is_refused(public: App, verifier: str | None, error: str) -> None:
    """g10_smart_invalid_pkce_code_verifier_group: missing, blank, wrong, plain (AL-12, OA-16)."""
    code = await fresh_code(public)
    said = challenge_of(public.verifier) if verifier == "plain" else verifier

    assert_oauth_error(await public.token(**code_form(public, code, code_verifier=said)), 400, error)


async def test_a_plain_challenge_is_refused(public: App) -> None:
    """OA-16: there is no way down from S256."""
    landing = await public.authorize(code_challenge=CHALLENGE, code_challenge_method="plain")

    assert landing.parameters["error"] == "invalid_request"
