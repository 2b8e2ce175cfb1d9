"""Backend Services: a signed request for a token, and every way of getting it wrong."""

from typing import Any

import pytest

from tests.onc.kit import BACKEND, backend_form
from tests.refusals.keys import Keys, present
from tests.refusals.refusal import assert_oauth_error
from tests.stage import App, BrokerStage

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def post(app: App, form: dict[str, str]) -> Any:
    return await app.http.post(f"{app.base.rpartition('/fhir/')[0]}/oauth/token", data=form)


async def test_a_signed_request_gets_a_token_that_works(public: App, keys: Keys, stage: BrokerStage) -> None:
    """smart_backend_services_auth_request_success, smart_backend_services_auth_response_body (BS-03, BS-05, BS-06)."""
    answer = await post(public, backend_form(stage, keys))

    body = answer.json()
    assert answer.status_code == 200, answer.text
    assert body.keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 300, "system/Patient.rs")
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    assert (await public.fhir(body["access_token"], "Patient?_count=1")).status_code == 200


@pytest.mark.parametrize("grant_type", ["not_a_grant_type", "password", "authorization_codes"])
async def test_a_grant_type_that_does_not_exist_is_refused(
    public: App, keys: Keys, stage: BrokerStage, grant_type: str
) -> None:
    """smart_backend_services_invalid_grant_type (BS-09, OA-03)."""
    answer = await post(public, backend_form(stage, keys) | {"grant_type": grant_type})

    assert_oauth_error(answer, 400, "unsupported_grant_type")


@pytest.mark.parametrize("kind", ["not_an_assertion_type", "urn:ietf:params:oauth:grant-type:jwt-bearer", None])
async def test_an_assertion_of_another_type_is_refused(
    public: App, keys: Keys, stage: BrokerStage, kind: str | None
) -> None:
    """smart_backend_services_invalid_client_assertion (BS-09, CA-08, OA-14)."""
    answer = await post(public, present({**backend_form(stage, keys), "client_assertion_type": kind}))

    assert_oauth_error(answer, 401, "invalid_client")


@pytest.mark.parametrize(
    "assertion",
    [
        {"claims": {"iss": "not_a_valid_client_id"}},
        {"claims": {"sub": "not_a_valid_client_id"}},
        {"claims": {"aud": "https://elsewhere.example/token"}},
        {"claims": {"exp": 1}},
        {"claims": {"exp": None}},
        {"claims": {"jti": None}},
        {"header": {"kid": "unknown"}},
        {"header": {"kid": None}},
    ],
    ids=lambda changes: str(next(iter(changes.values()))),
)
async def test_a_bad_jwt_is_refused(public: App, keys: Keys, stage: BrokerStage, assertion: dict[str, Any]) -> None:
    """smart_backend_services_invalid_jwt (BS-09, CA-09, OA-13, OA-26)."""
    answer = await post(public, backend_form(stage, keys, assertion=assertion))

    assert_oauth_error(answer, 401, "invalid_client")


async def test_a_jwt_signed_with_another_key_is_refused(public: App, keys: Keys, stage: BrokerStage) -> None:
    """smart_backend_services_invalid_jwt: the key that is published is the key that signs (OA-13)."""
    answer = await post(public, backend_form(stage, keys, assertion={"key": keys.foreign}))

    assert_oauth_error(answer, 401, "invalid_client")


async def test_a_jwt_works_once(public: App, keys: Keys, stage: BrokerStage) -> None:
    """CA-07, CA-09: its `jti` is remembered."""
    form = backend_form(stage, keys)

    assert (await post(public, form)).status_code == 200
    assert_oauth_error(await post(public, form), 401, "invalid_client")


@pytest.mark.parametrize("client_id", [BACKEND, None])
async def test_client_id_may_be_said_beside_the_assertion(
    public: App, keys: Keys, stage: BrokerStage, client_id: str | None
) -> None:
    """OA-12: optional, and then it must match."""
    form = present({**backend_form(stage, keys), "client_id": client_id})

    assert (await post(public, form)).status_code == 200
    assert_oauth_error(await post(public, {**backend_form(stage, keys), "client_id": "reports"}), 401, "invalid_client")


@pytest.mark.parametrize("scope", ["system/Condition.rs", "system/*.rs", "patient/Patient.rs", "openid", None])
async def test_a_scope_beyond_the_pre_authorized_is_refused(
    public: App, keys: Keys, stage: BrokerStage, scope: str | None
) -> None:
    """BS-04, BS-08: more than was registered is not silently made less."""
    answer = await post(public, present({**backend_form(stage, keys), "scope": scope}))

    assert_oauth_error(answer, 400, "invalid_scope")


@pytest.mark.parametrize(
    ("resource", "error"),
    [(None, "invalid_request"), ("https://elsewhere.example/fhir", "invalid_target"), ("{base}#x", "invalid_target")],
)
async def test_the_resource_names_this_server(
    public: App, keys: Keys, stage: BrokerStage, resource: str | None, error: str
) -> None:
    """OA-20: `resource` is the FHIR base, absolute, without a fragment."""
    named = resource.format(base=stage.base) if resource else None
    answer = await post(public, present({**backend_form(stage, keys), "resource": named}))

    assert_oauth_error(answer, 400, error)
