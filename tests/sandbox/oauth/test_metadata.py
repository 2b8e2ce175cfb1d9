"""Discovery: what the documents promise, and that they promise the same."""

from sandbox.oauth.metadata import CAPABILITIES
from tests.sandbox.oauth.driver import FHIR_BASE, ORIGIN, Driver

ISSUER = f"{ORIGIN}/oauth2"


async def test_the_smart_configuration_names_every_endpoint(ehr: Driver) -> None:
    """DS-03, DS-05, DS-06."""
    answer = await ehr.http.get("/api/FHIR/R4/.well-known/smart-configuration", headers={"Accept": "text/html"})
    document = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert {name: value for name, value in document.items() if isinstance(value, str)} == {
        "issuer": ISSUER,
        "jwks_uri": f"{ISSUER}/jwks",
        "authorization_endpoint": f"{ISSUER}/authorize",
        "token_endpoint": f"{ISSUER}/token",
        "introspection_endpoint": f"{ISSUER}/introspect",
        "revocation_endpoint": f"{ISSUER}/revoke",
        "user_access_brand_bundle": f"{ORIGIN}/brands.json",
    }
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["token_endpoint_auth_signing_alg_values_supported"] == ["RS384", "ES384"]
    assert document["grant_types_supported"] == ["authorization_code", "refresh_token", "client_credentials"]
    assert document["capabilities"] == CAPABILITIES
    assert "authorization_response_iss_parameter_supported" not in document


async def test_openid_discovery_agrees_with_it(ehr: Driver) -> None:
    smart = (await ehr.http.get("/api/FHIR/R4/.well-known/smart-configuration")).json()
    openid = (await ehr.http.get("/oauth2/.well-known/openid-configuration")).json()
    shared = smart.keys() & openid.keys()
    assert smart.keys() - openid.keys() == {
        "capabilities",
        "user_access_brand_bundle",
        "user_access_brand_identifier",
    }
    assert {name: smart[name] for name in shared} == {name: openid[name] for name in shared}
    assert openid["id_token_signing_alg_values_supported"] == ["RS256"]


async def test_the_capability_statement_names_the_same_endpoints(ehr: Driver) -> None:
    """DS-11."""
    answer = await ehr.http.get("/api/FHIR/R4/metadata", headers={"Accept": "application/fhir+json"})
    (extension,) = answer.json()["rest"][0]["security"]["extension"]
    assert {part["url"]: part["valueUri"] for part in extension["extension"]} == {
        "authorize": f"{ISSUER}/authorize",
        "token": f"{ISSUER}/token",
        "introspect": f"{ISSUER}/introspect",
        "revoke": f"{ISSUER}/revoke",
    }


async def test_the_key_set_holds_one_bare_public_rsa_key(ehr: Driver) -> None:
    """ID-05."""
    (key,) = (await ehr.http.get("/oauth2/jwks")).json()["keys"]
    assert key.keys() == {"kty", "n", "e", "kid", "use", "alg"}
    assert (key["kty"], key["use"], key["alg"]) == ("RSA", "sig", "RS256")


async def test_the_issuer_is_not_the_fhir_base(ehr: Driver) -> None:
    """EP-01."""
    document = (await ehr.http.get("/api/FHIR/R4/.well-known/smart-configuration")).json()
    assert document["issuer"] != FHIR_BASE


async def test_another_host_name_is_refused(ehr: Driver) -> None:
    answer = await ehr.http.get("/__clients", headers={"Host": "rebound.example"})
    assert answer.status_code == 400
