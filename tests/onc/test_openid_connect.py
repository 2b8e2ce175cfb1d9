"""OpenID Connect: the broker's own id_token, its configuration and its keys."""

import json
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.onc.kit import decoded
from tests.stage import App, BrokerStage

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def published(app: App, stage: BrokerStage) -> httpx2.Response:
    configuration = (await app.http.get(f"{stage.public_url}/.well-known/openid-configuration")).json()
    return await app.http.get(configuration["jwks_uri"])


async def test_the_configuration_is_at_the_issuer_of_the_id_token(public: App) -> None:
    """smart_openid_decode_id_token, smart_openid_retrieve_configuration, smart_openid_required_configuration_fields."""
    _, claims = decoded((await public.standalone())["id_token"])
    said = (await public.http.get(f"{claims['iss']}/.well-known/openid-configuration")).json()

    assert said["issuer"] == claims["iss"]
    assert "RS256" in said["id_token_signing_alg_values_supported"]
    required = {"authorization_endpoint", "token_endpoint", "jwks_uri", "response_types_supported"}
    assert required | {"subject_types_supported", "id_token_signing_alg_values_supported"} <= said.keys()


async def test_the_key_set_has_one_bare_public_key_and_may_be_cached(public: App, stage: BrokerStage) -> None:
    """smart_openid_retrieve_jwks (ID-05, OA-11)."""
    answer = await published(public, stage)

    (key,) = answer.json()["keys"]
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert (key["kty"], key["use"], key["alg"]) == ("RSA", "sig", "RS256")
    assert key.keys() == {"kty", "use", "alg", "kid", "n", "e"}


async def test_the_id_token_is_signed_with_the_published_key(public: App, stage: BrokerStage) -> None:
    """smart_openid_token_header (ID-01, ID-04)."""
    token = (await public.standalone())["id_token"]
    key_set = (await published(public, stage)).json()

    header, _ = decoded(token)
    assert header == {"typ": "JWT", "alg": "RS256", "kid": key_set["keys"][0]["kid"]}
    assert jwt.decode(token, KeySet.import_key_set(key_set), algorithms=["RS256"]).claims["aud"] == "growth-chart"


async def test_the_id_token_is_for_this_app_and_this_request(public: App, stage: BrokerStage) -> None:
    """smart_openid_token_payload: iss, sub, aud, exp, iat, nonce, and nothing that is not so (ID-01, OA-27)."""
    response = await public.exchange(await public.authorize(nonce="n-0S6_WzA2Mj"))
    _, claims = decoded(response["id_token"])

    assert claims.keys() == {"iss", "sub", "aud", "iat", "exp", "nonce", "fhirUser"}
    assert (claims["iss"], claims["aud"], claims["nonce"]) == (stage.public_url, "growth-chart", "n-0S6_WzA2Mj")
    assert claims["exp"] - claims["iat"] == 300
    assert abs(claims["iat"] - stage.clock()) < 10
    assert isinstance(claims["iat"], int)


async def test_without_a_nonce_there_is_none(public: App) -> None:
    _, claims = decoded((await public.standalone())["id_token"])

    assert "nonce" not in claims


async def test_fhir_user_is_a_url_at_the_broker_that_can_be_read(keyed: App, public: App, stage: BrokerStage) -> None:
    """smart_openid_fhir_user_claim (ID-06): the EHR's own address is not in it."""
    response = await public.standalone()
    _, claims = decoded(response["id_token"])

    assert claims["fhirUser"].startswith(f"{stage.base}/")
    assert claims["fhirUser"] == response["fhirUser"]
    assert stage.sandbox.origin not in json.dumps(claims)
    kind = claims["fhirUser"].removeprefix(f"{stage.base}/").partition("/")[0]
    assert kind in {"Patient", "Practitioner", "PractitionerRole", "RelatedPerson", "Person"}


async def test_one_person_has_another_subject_for_each_app_and_the_same_each_time(
    public: App, limited: App, stage: BrokerStage
) -> None:
    """OIDC Core §8.1: what two apps know of a person does not fit together, nor to what the EHR says (ID-09)."""
    scope = "openid patient/Patient.rs"
    first, again = [decoded((await public.standalone(scope=scope))["id_token"])[1]["sub"] for _ in range(2)]
    other = decoded((await limited.standalone(scope=scope))["id_token"])[1]["sub"]

    assert first == again
    assert first != other
    assert len(first) == len(other) == 64


@pytest.mark.parametrize(
    ("scope", "members"),
    [
        ("openid fhirUser patient/*.rs", {"id_token", "fhirUser"}),
        ("openid patient/*.rs", {"id_token"}),
        ("fhirUser patient/*.rs", {"fhirUser"}),
        ("patient/*.rs", set()),
    ],
)
async def test_only_what_was_asked_is_told(public: App, scope: str, members: set[str]) -> None:
    """An id_token for `openid`, the person's resource for `fhirUser`, each for itself (SC-11)."""
    response = await public.standalone(scope=scope)

    assert {"id_token", "fhirUser"} & response.keys() == members
    if "id_token" in members:
        assert ("fhirUser" in decoded(response["id_token"])[1]) == ("fhirUser" in members)


async def test_the_ehrs_id_token_reaches_no_app(public: App, stage: BrokerStage) -> None:
    """ID-09: what the app gets was signed here, and names neither the EHR's issuer nor the broker's client id there."""
    response = await public.standalone()
    _, claims = decoded(response["id_token"])

    assert stage.sandbox.issuer not in json.dumps([response, claims])
    assert "broker-launch" not in json.dumps([response, claims])


async def test_without_an_id_token_of_the_ehr_openid_is_not_granted(public: App, stage: BrokerStage) -> None:
    """Nobody vouches, so nothing is promised: neither the scope nor a token (ID-09)."""
    stage.sandbox.fault("token_members", drop=["id_token"])
    response = await public.standalone()

    assert "openid" not in response["scope"].split()
    assert "id_token" not in response


async def test_a_refresh_shows_nobody_anew(public: App) -> None:
    """OIDC Core §12.2 leaves it out: the id_token was for the moment of the launch."""
    given = await public.standalone()
    answer = await public.token(grant_type="refresh_token", refresh_token=given["refresh_token"])

    assert "id_token" not in answer.json()


async def test_a_nonce_that_is_too_long_is_refused(public: App) -> None:
    landing = await public.authorize(nonce="n" * 1025)

    assert landing.parameters["error"] == "invalid_request"


async def test_a_backend_app_is_nobody(stage: BrokerStage) -> None:
    """Backend Services know no person, so no identity (BS-04)."""
    reports = stage.app("reports")
    answer = await reports.token(grant_type="client_credentials", scope="system/Patient.rs", resource=reports.base)
    await reports.close()

    members: dict[str, Any] = answer.json()
    assert members.keys() == {"access_token", "token_type", "expires_in", "scope"}
