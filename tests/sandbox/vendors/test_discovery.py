"""Everything that goes wrong while a client finds out where things are."""

from typing import Any
from urllib.parse import urljoin

import pytest

from sandbox.faults.discovery import DISCOVERY_FAULTS
from tests.sandbox.oauth.driver import FHIR_BASE, ORIGIN, Driver

SMART = "/api/FHIR/R4/.well-known/smart-configuration"
OPENID = "/oauth2/.well-known/openid-configuration"
METADATA = "/api/FHIR/R4/metadata"


async def smart(ehr: Driver, **headers: str) -> dict[str, Any]:
    return dict((await ehr.http.get(SMART, headers=headers)).json())


async def uris(ehr: Driver, **headers: str) -> dict[str, str]:
    """Return the endpoints of the CapabilityStatement."""
    accept = {"Accept": "application/fhir+json"}
    security = (await ehr.http.get(METADATA, headers=accept | headers)).json()["rest"][0]["security"]
    extensions = security.get("extension", [{"extension": []}])
    return {part["url"]: part["valueUri"] for part in extensions[0]["extension"]}


@pytest.mark.parametrize(
    "member",
    [
        "token_endpoint", "capabilities", "grant_types_supported", "authorization_endpoint", "issuer", "jwks_uri",
        "code_challenge_methods_supported",
    ],
)  # fmt: skip
async def test_a_member_can_be_missing(ehr: Driver, member: str) -> None:
    """(DS-03, DS-04, DS-05, DS-06)"""
    whole = await smart(ehr)
    await ehr.arm(f"discovery_no_{member}")
    assert whole.keys() - (await smart(ehr)).keys() == {member}
    assert (await smart(ehr)) == whole


@pytest.mark.parametrize(
    ("fault", "methods"), [("discovery_pkce_plain", ["plain"]), ("discovery_pkce_both", ["plain", "S256"])]
)
async def test_plain_can_be_a_pkce_method(ehr: Driver, fault: str, methods: list[str]) -> None:
    """(DS-06)"""
    await ehr.arm(fault)
    assert (await smart(ehr))["code_challenge_methods_supported"] == methods


@pytest.mark.parametrize("prefix", ["/", "../../../"])
async def test_relative_endpoints_lead_to_the_same_place(ehr: Driver, prefix: str) -> None:
    """(DS-07)"""
    whole = await smart(ehr)
    await ehr.arm("discovery_relative", prefix=prefix)
    relative = await smart(ehr)
    assert relative["token_endpoint"] == f"{prefix}oauth2/token"
    for name in ("token_endpoint", "authorization_endpoint", "introspection_endpoint"):
        assert urljoin(f"{FHIR_BASE}/", relative[name]) == whole[name]


async def test_the_document_can_be_a_list(ehr: Driver) -> None:
    """(DS-14)"""
    await ehr.arm("discovery_list")
    assert (await ehr.http.get(SMART)).json() == ["not an object"]


@pytest.mark.parametrize(
    ("fault", "parameters", "endpoint"),
    [
        ("discovery_token_endpoint_moved", {}, "http://10.0.0.5/oauth2/token"),
        ("discovery_token_endpoint_moved", {"set": {"token_endpoint": "https://a.example/t"}}, "https://a.example/t"),
        ("discovery_internal_host", {}, "https://ehr.internal/oauth2/token"),
        ("discovery_internal_host", {"origin": "http://localhost:1"}, "http://localhost:1/oauth2/token"),
        ("discovery_smart_v1", {}, f"{ORIGIN}/oauth2/smart-v1/token"),
    ],
)
async def test_the_token_endpoint_can_be_elsewhere(
    ehr: Driver, fault: str, parameters: dict[str, Any], endpoint: str
) -> None:
    """(DS-15, OT-01, OR-02)"""
    await ehr.arm(fault, **parameters)
    assert (await smart(ehr))["token_endpoint"] == endpoint


async def test_smart_v1_does_not_know_the_tenant(ehr: Driver) -> None:
    """(OR-02, OR-03)"""
    answer = await ehr.http.post("/oauth2/smart-v1/token", data={"grant_type": "client_credentials"})
    assert answer.status_code == 400
    assert answer.json().keys() == {"error", "error_uri"}
    assert "unknown-tenant" in answer.json()["error_uri"]


@pytest.mark.parametrize(("client", "known"), [(None, False), ("stranger", False), ("app", True)])
async def test_endpoints_can_depend_on_the_client_that_asks(ehr: Driver, client: str | None, *, known: bool) -> None:
    """(EP-08)"""
    await ehr.arm("discovery_per_client")
    headers = {"Epic-Client-ID": client} if client else {}
    endpoint = f"{ORIGIN}/oauth2/token" if known else f"{ORIGIN}/oauth2/default/token"
    assert (await smart(ehr, **headers))["token_endpoint"] == endpoint
    assert (await uris(ehr, **headers))["token"] == endpoint
    assert (await ehr.http.post(endpoint)).status_code == (400 if known else 404)


async def test_a_fault_of_discovery_can_strike_one_client_only(ehr: Driver) -> None:
    """(EP-08)"""
    await ehr.arm("discovery_no_issuer", client_id="app")
    assert "issuer" in await smart(ehr)
    assert "issuer" not in await smart(ehr, **{"Epic-Client-ID": "app"})


@pytest.mark.parametrize("path", [SMART, OPENID, "/.well-known/anything", "/api/FHIR/R4/.well-known/udap"])
async def test_a_web_page_can_be_at_every_well_known_path(ehr: Driver, path: str) -> None:
    """(DS-14)"""
    await ehr.arm("well_known_html")
    answer = await ehr.http.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")


async def test_the_capability_statement_can_be_all_there_is(ehr: Driver) -> None:
    """(DS-11)"""
    await ehr.arm("well_known_404")
    assert [(await ehr.http.get(path)).status_code for path in (SMART, OPENID)] == [404, 404]
    assert (await uris(ehr))["token"] == f"{ORIGIN}/oauth2/token"


async def test_the_capability_statement_can_name_no_endpoints(ehr: Driver) -> None:
    """(DS-11)"""
    await ehr.arm("metadata_no_oauth_uris")
    assert await uris(ehr) == {}


async def test_the_capability_statement_can_be_xml_for_everybody(ehr: Driver) -> None:
    """(EP-09)"""
    await ehr.arm("metadata_xml")
    answer = await ehr.http.get(METADATA, headers={"Accept": "application/fhir+json"})
    assert answer.headers["content-type"].startswith("application/fhir+xml")


async def test_the_openid_configuration_can_lie_where_rfc_8414_puts_it(ehr: Driver) -> None:
    """(Q6)"""
    inserted = "/.well-known/openid-configuration/oauth2"
    assert [(await ehr.http.get(path)).status_code for path in (OPENID, inserted)] == [200, 404]
    await ehr.arm("openid_inserted")
    assert [(await ehr.http.get(path)).status_code for path in (OPENID, inserted)] == [404, 200]
    assert (await ehr.http.get("/.well-known/oauth-authorization-server/oauth2")).json()["issuer"] == f"{ORIGIN}/oauth2"


async def test_the_openid_configuration_can_be_of_another_issuer(ehr: Driver) -> None:
    """(OA-17)"""
    await ehr.arm("openid_wrong_issuer")
    assert (await ehr.http.get(OPENID)).json()["issuer"] == "https://issuer.invalid"


@pytest.mark.parametrize(("fault", "path"), [("openid_delay", OPENID), ("metadata_delay", METADATA)])
async def test_a_slow_document_is_a_good_one(ehr: Driver, fault: str, path: str) -> None:
    whole = (await ehr.http.get(path)).content
    await ehr.arm(fault, seconds=0.01)
    assert (await ehr.http.get(path)).content == whole
    assert (await ehr.http.get("/__faults")).json() == []


async def test_the_openid_configuration_can_be_missing_or_changed(ehr: Driver) -> None:
    await ehr.arm("openid_404")
    await ehr.arm("openid_members", drop=["jwks_uri"])
    assert (await ehr.http.get(OPENID)).status_code == 404
    assert "jwks_uri" not in (await ehr.http.get(OPENID)).json()


def test_every_fault_of_discovery_names_what_it_is_of() -> None:
    kinds = ("discovery_", "metadata_", "openid_", "well_known_", "brands_", "endpoints_")
    assert all(fault.name.startswith(kinds) for fault in DISCOVERY_FAULTS)


async def test_an_unknown_well_known_document_is_not_found(ehr: Driver) -> None:
    assert (await ehr.http.get("/api/FHIR/R4/.well-known/udap")).status_code == 404
