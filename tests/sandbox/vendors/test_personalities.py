"""Each personality shows what its vendor shows, and a launch works with every one of them."""

import json
from dataclasses import fields
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from sandbox.__main__ import main
from sandbox.options import parse, settings_of
from sandbox.personalities import PERSONALITIES, wear
from sandbox.settings import Settings
from tests.sandbox.oauth.conftest import Start
from tests.sandbox.oauth.driver import CALLBACK, FHIR_BASE, ORIGIN, VERIFIER, Driver, redirected

SMART = "/api/FHIR/R4/.well-known/smart-configuration"

BACKEND = {"grant_types": ["client_credentials"], "scopes": "system/*.read", "redirect_uris": []}


async def play(ehr: Driver, name: str) -> dict[str, Any]:
    """Wear a personality; returns the smart-configuration."""
    answer = await ehr.http.post("/__personality", json={"name": name})
    assert answer.json() == {"name": name}
    return dict((await ehr.http.get(SMART)).json())


@pytest.mark.parametrize("name", PERSONALITIES)
def test_a_personality_is_made_of_settings_there_are(name: str) -> None:
    known = {field.name for field in fields(Settings)}
    assert PERSONALITIES[name].settings.keys() <= known
    assert wear(Settings(public_url=ORIGIN), name).personality == name


@pytest.mark.parametrize("name", PERSONALITIES)
async def test_a_launch_works_by_what_each_personality_advertises(ehr: Driver, name: str) -> None:
    document = await play(ehr, name)
    scope = "launch/patient openid fhirUser offline_access patient/Patient.read"
    await ehr.register(scopes=scope)
    begun = await ehr.http.get(document["authorization_endpoint"], params=ehr.request(scope=scope))
    form = {"grant_type": "authorization_code", "code": redirected(begun)["code"], "redirect_uri": CALLBACK}
    answer = await ehr.http.post(
        document["token_endpoint"], data=form | {"code_verifier": VERIFIER}, auth=(ehr.client_id, ehr.secret)
    )
    tokens = answer.json()
    assert answer.status_code == 200
    assert tokens["expires_in"] == (570 if name == "oracle" else 3600)
    assert (await ehr.fhir(tokens["access_token"], f"Patient/{tokens['patient']}")).status_code == 200


@pytest.mark.parametrize("name", PERSONALITIES)
async def test_the_openid_configuration_lies_below_the_issuer_and_names_it(ehr: Driver, name: str) -> None:
    await play(ehr, name)
    issuer = wear(Settings(public_url=ORIGIN), name).issuer
    answer = await ehr.http.get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    assert answer.json()["issuer"] == issuer
    assert (await ehr.http.get(answer.json()["jwks_uri"])).json().keys() == {"keys"}


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        (
            "epic",
            {"introspection_endpoint", "revocation_endpoint", "registration_endpoint",
             "token_endpoint_auth_signing_alg_values_supported"},
        ),
        ("athena", {"scopes_supported", "token_endpoint_auth_signing_alg_values_supported"}),
        ("smart-launcher", {"revocation_endpoint", "registration_endpoint"}),
        ("inferno", {"issuer", "jwks_uri", "introspection_endpoint", "revocation_endpoint"}),
    ],
)  # fmt: skip
async def test_what_a_vendor_does_not_list_is_absent(ehr: Driver, name: str, absent: set[str]) -> None:
    """(EP-01, OT-01)"""
    assert (await play(ehr, name)).keys() & absent == set()


async def test_epic_lists_five_scopes_and_no_clinical_one(ehr: Driver) -> None:
    """(DS-08)"""
    scopes = (await play(ehr, "epic"))["scopes_supported"]
    assert scopes == ["epic.scanning.dmsusername", "fhirUser", "launch", "openid", "profile"]


async def test_oracle_advertises_smart_v1_of_a_tenant_and_another_issuer_in_id_tokens(ehr: Driver) -> None:
    """(OR-02, OR-07)"""
    document = await play(ehr, "oracle")
    assert document["token_endpoint"] == f"{ORIGIN}/tenants/lakeside/protocols/oauth2/profiles/smart-v1/token"
    assert document["token_endpoint_auth_methods_supported"] == ["client_secret_basic", "private_key_jwt"]
    assert document["issuer"] == f"{ORIGIN}/tenants/lakeside"
    assert wear(Settings(public_url=ORIGIN), "oracle").issuer == f"{ORIGIN}/tenants/lakeside/oidc/idsps/lakeside/"


@pytest.mark.parametrize("scope", ["patient/*.rs", "patient/*.read", "patient/Observation.*"])
async def test_oracle_grants_no_wildcard(ehr: Driver, scope: str) -> None:
    """(OR-06)"""
    await play(ehr, "oracle")
    await ehr.register(scopes="patient/*.cruds launch/patient")
    assert redirected(await ehr.authorize(scope=scope))["error"] == "invalid_scope"


async def test_oracle_grants_scopes_of_v1_only_whatever_it_advertises(ehr: Driver) -> None:
    """(Q9)"""
    assert "permission-v2" in (await play(ehr, "oracle"))["capabilities"]
    tokens = await ehr.tokens(scope="launch/patient patient/Observation.rs patient/Patient.read")
    assert tokens["scope"] == "launch/patient patient/Patient.read"


@pytest.mark.parametrize(
    ("name", "encoded"), [("generic", True), ("epic", True), ("oracle", False), ("inferno", False)]
)
async def test_vendors_differ_in_what_basic_credentials_are(ehr: Driver, name: str, *, encoded: bool) -> None:
    """(Q1, EP-13)"""
    await play(ehr, name)
    await ehr.register("backend", client_secret="a+b/c", **BACKEND)
    ehr.secret = "a%2Bb%2Fc" if encoded else "a+b/c"
    answer = await ehr.token(grant_type="client_credentials", scope="system/Patient.read")
    assert answer.status_code == 200, answer.text


async def test_inferno_sends_the_refresh_token_again(ehr: Driver) -> None:
    await play(ehr, "inferno")
    refresh_token = (await ehr.tokens())["refresh_token"]
    for _ in range(2):
        assert (await ehr.refresh(refresh_token)).json()["refresh_token"] == refresh_token


async def test_oracle_gives_no_refresh_token_again_and_throttles(ehr: Driver) -> None:
    """(OR-03, OR-04)"""
    await play(ehr, "oracle")
    tokens = await ehr.tokens(scope="launch/patient offline_access patient/Observation.read")
    first = await ehr.refresh(tokens["refresh_token"])
    assert (first.status_code, "refresh_token" in first.json()) == (200, False)
    assert (await ehr.refresh(tokens["refresh_token"])).status_code == 429
    refused = (await ehr.refresh("unknown")).json()
    assert refused.keys() == {"error", "error_uri"}


async def test_athena_has_its_issuer_on_another_host_and_an_odd_member(ehr: Driver) -> None:
    """(OT-01)"""
    document = await play(ehr, "athena")
    assert urlsplit(document["issuer"]).hostname == "localhost"
    assert document["token_endpoint_auth_methods"] == document["token_endpoint_auth_methods_supported"]
    assert "refresh_token" not in document["grant_types_supported"]
    assert "permission-offline" in document["capabilities"]


async def test_athena_refreshes_only_while_the_access_token_lives(ehr: Driver) -> None:
    """(RF-07)"""
    await play(ehr, "athena")
    tokens = await ehr.tokens()
    ehr.now.seconds += 3601
    assert (await ehr.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_inferno_has_no_sign_in_and_three_scopes(ehr: Driver) -> None:
    document = await play(ehr, "inferno")
    assert len(document["scopes_supported"]) == 3
    assert "sso-openid-connect" not in document["capabilities"]


async def test_the_fhir_base_is_the_issuer_of_the_launcher(ehr: Driver) -> None:
    assert (await play(ehr, "smart-launcher"))["issuer"] == FHIR_BASE


async def test_a_reset_ends_the_play(ehr: Driver) -> None:
    await play(ehr, "epic")
    assert (await ehr.http.get("/__personality")).json() == {"name": "epic", "known": list(PERSONALITIES)}
    await ehr.http.post("/__reset")
    assert (await ehr.http.get("/__personality")).json()["name"] == "generic"
    assert "introspection_endpoint" in (await ehr.http.get(SMART)).json()


@pytest.mark.parametrize("body", [{"name": "nobody"}, {"name": None}, {"vendor": "epic"}, []])
async def test_an_unknown_personality_is_refused(ehr: Driver, body: Any) -> None:
    assert (await ehr.http.post("/__personality", json=body)).status_code == 400


def test_an_option_wins_over_the_personality() -> None:
    settings = settings_of(parse(["--personality", "oracle", "--refresh-interval", "5"]), 9400)
    assert (settings.personality, settings.access_token_lifetime, settings.refresh_interval) == ("oracle", 570, 5)


def test_the_settings_of_the_command_line_are_those_of_a_sandbox_in_a_test() -> None:
    assert settings_of(parse([]), 9400) == Settings(public_url=ORIGIN)


def test_faults_can_be_given_on_the_command_line() -> None:
    fault = {"name": "fhir_429", "times": 2}
    assert parse(["--fault", "token_503", "--fault", json.dumps(fault)]).fault == [{"name": "token_503"}, fault]


@pytest.mark.parametrize("fault", ["nothing", '{"name": "fhir_429", "times": 0}'])
def test_a_fault_of_the_command_line_that_cannot_be_armed_is_named(fault: str) -> None:
    with pytest.raises(SystemExit, match="sandbox: --fault"):
        main(["--port", "0", "--patients", "3", "--fault", fault])


def test_a_fault_of_the_command_line_is_a_name_or_json() -> None:
    with pytest.raises(SystemExit):
        parse(["--fault", "{"])


@pytest.mark.parametrize(
    ("style", "begins"),
    [
        ("opaque", "?_getpages="),
        ("session-id", "/Observation?sessionID="),
        ("page-context", "/Observation?-pageContext="),
    ],
)
async def test_the_search_pages_of_a_vendor_may_name_the_type(start: Start, style: str, begins: str) -> None:
    """(PX-07)"""
    async with start(page_links=style) as ehr:
        await ehr.register()
        tokens = await ehr.tokens()
        first = (await ehr.fhir(tokens["access_token"], "Observation?_count=1")).json()
        url = next_link(first)
        assert url.startswith(f"{FHIR_BASE}{begins}")
        pages = [first]
        for _ in range(3):
            headers = {"Authorization": f"Bearer {tokens['access_token']}"}
            pages.append((await ehr.http.get(next_link(pages[-1]), headers=headers)).json())
        assert len({page["entry"][0]["resource"]["id"] for page in pages}) == 4


@pytest.mark.parametrize(
    ("settings", "accept", "media_type"),
    [
        ("xml", "*/*", "application/fhir+xml"),
        ("json", "*/*", "application/fhir+json"),
        ("json", "application/fhir+xml", "application/fhir+xml"),
    ],
)
async def test_the_capability_statement_is_what_the_vendor_sends(
    start: Start, settings: str, accept: str, media_type: str
) -> None:
    """(EP-09)"""
    async with start(metadata_format=settings) as ehr:
        answer = await ehr.http.get("/api/FHIR/R4/metadata", headers={"Accept": accept})
        assert answer.headers["content-type"].partition(";")[0] == media_type


def next_link(bundle: dict[str, Any]) -> str:
    return next(str(link["url"]) for link in bundle["link"] if link["relation"] == "next")


async def test_the_endpoints_also_work_where_the_generic_sandbox_has_them(ehr: Driver) -> None:
    await play(ehr, "oracle")
    answer: httpx2.Response = await ehr.http.post("/oauth2/token", data={"grant_type": "refresh_token"})
    assert answer.json()["error"] == "invalid_client"
