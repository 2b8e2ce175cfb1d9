"""Discovery: `.well-known/smart-configuration`, its required fields, and that every one of them is true."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from tests.onc.kit import TOKEN_EXCHANGE, code_form, fresh_code
from tests.refusals.keys import Keys, proof
from tests.stage import App, BrokerStage

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVER_METADATA = ("oauth-authorization-server", "openid-configuration")


@pytest_asyncio.fixture(loop_scope="module")
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False) as client:
        yield client


async def configuration(http: httpx2.AsyncClient, stage: BrokerStage) -> dict[str, Any]:
    return dict((await http.get(f"{stage.base}/.well-known/smart-configuration")).json())


@pytest.mark.parametrize("accept", ["application/json", "*/*", "text/html", "application/fhir+xml"])
async def test_the_configuration_is_json_whatever_is_accepted_and_needs_no_token(
    http: httpx2.AsyncClient, stage: BrokerStage, accept: str
) -> None:
    """well_known_endpoint (DS-01, DS-02)."""
    answer = await http.get(f"{stage.base}/.well-known/smart-configuration", headers={"Accept": accept})

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert isinstance(answer.json(), dict)


async def test_the_required_fields_are_there(http: httpx2.AsyncClient, stage: BrokerStage) -> None:
    """well_known_capabilities_stu2 (DS-03, DS-04, DS-05, DS-06)."""
    said = await configuration(http, stage)

    assert said["authorization_endpoint"] == f"{stage.public_url}/oauth/authorize"
    assert said["token_endpoint"] == f"{stage.public_url}/oauth/token"
    assert said["introspection_endpoint"] == f"{stage.public_url}/oauth/introspect"
    assert said["revocation_endpoint"] == f"{stage.public_url}/oauth/revoke"
    launching, alone = ["authorization_code", "refresh_token"], ["client_credentials", TOKEN_EXCHANGE]
    assert said["grant_types_supported"] == launching + alone
    assert said["code_challenge_methods_supported"] == ["S256"]
    assert said["response_types_supported"] == ["code"]
    assert said["token_endpoint_auth_methods_supported"] == ["client_secret_basic", "private_key_jwt"]
    assert said["token_endpoint_auth_signing_alg_values_supported"] == ["ES384", "RS384"]
    assert (said["issuer"], said["jwks_uri"]) == (stage.public_url, f"{stage.public_url}/oauth/jwks")


async def test_the_capabilities_are_those_that_registrations_apps_and_ehr_make_true(
    http: httpx2.AsyncClient, stage: BrokerStage
) -> None:
    """well_known_capabilities_stu2 (DS-16): online access and encounter choice, which no app has, are not listed."""
    assert (await configuration(http, stage))["capabilities"] == [
        "authorize-post",
        "client-confidential-asymmetric",
        "client-confidential-symmetric",
        "client-public",
        "context-banner",
        "context-ehr-encounter",
        "context-ehr-patient",
        "context-standalone-patient",
        "context-style",
        "launch-ehr",
        "launch-standalone",
        "permission-offline",
        "permission-patient",
        "permission-user",
        "permission-v1",
        "permission-v2",
        "sso-openid-connect",
    ]


@pytest.mark.parametrize("name", SERVER_METADATA)
async def test_the_server_as_a_whole_says_the_same(http: httpx2.AsyncClient, stage: BrokerStage, name: str) -> None:
    """RFC 8414 and OpenID Connect Discovery have one answer; its issuer is where it was asked for (OA-17, ID-02)."""
    answer = await http.get(f"{stage.public_url}/.well-known/{name}")
    said, smart = answer.json(), await configuration(http, stage)

    assert (answer.status_code, answer.headers["cache-control"]) == (200, "public, max-age=300")
    assert said["issuer"] == stage.public_url
    assert said["authorization_response_iss_parameter_supported"] is True
    assert said["subject_types_supported"] == ["pairwise"]
    assert said["id_token_signing_alg_values_supported"] == ["RS256"]
    assert said["response_modes_supported"] == ["query"]
    assert said["request_uri_parameter_supported"] is False
    assert said["token_endpoint_auth_methods_supported"] == ["client_secret_basic", "none", "private_key_jwt"]
    for member in ("token_endpoint", "authorization_endpoint", "jwks_uri", "grant_types_supported", "scopes_supported"):
        assert said[member] == smart[member], member


async def test_every_scope_that_is_listed_can_be_had(
    http: httpx2.AsyncClient, stage: BrokerStage, public: App, keyed: App, limited: App, keys: Keys
) -> None:
    """Each word of `scopes_supported` is granted to the app that may have it (DS-08)."""
    granted: set[str] = set()
    for app in (public, keyed, limited):
        code = await fresh_code(app, scope="launch/patient openid fhirUser profile offline_access patient/*.cruds")
        signed = proof(keys.assertion(app.client_id, f"{stage.public_url}/oauth/token")) if app is keyed else {}
        granted |= set((await app.token(**code_form(app, code), **signed)).json()["scope"].split())

    listed = set((await configuration(http, stage))["scopes_supported"])
    assert granted <= listed
    assert listed - granted == {"launch", "system/Patient.rs", "system/Observation.rs", "user/Practitioner.rs"}


async def test_no_header_of_the_caller_changes_what_the_server_says_of_itself(
    http: httpx2.AsyncClient, stage: BrokerStage
) -> None:
    """OA-25: addresses come from the configuration, never from the request."""
    spoofed = {"X-Forwarded-Host": "attacker.example", "X-Forwarded-Proto": "https", "Host": "attacker.example"}
    for path in ("/fhir/sandbox/.well-known/smart-configuration", "/.well-known/openid-configuration"):
        answer = await http.get(stage.public_url + path, headers=spoofed)
        assert answer.json()["token_endpoint"] == f"{stage.public_url}/oauth/token"
        assert "attacker" not in answer.text


async def test_the_capability_statement_points_at_the_broker(http: httpx2.AsyncClient, stage: BrokerStage) -> None:
    """The kits read the same endpoints in `metadata` (DS-11)."""
    statement = (await http.get(f"{stage.base}/metadata")).json()

    (rest,) = statement["rest"]
    (extension,) = rest["security"]["extension"]
    urls = {part["url"]: part["valueUri"] for part in extension["extension"]}
    assert (urls["authorize"], urls["token"]) == (
        f"{stage.public_url}/oauth/authorize",
        f"{stage.public_url}/oauth/token",
    )
