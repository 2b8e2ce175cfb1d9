"""Which web pages may read what, as Inferno's `smart_cors_*` tests ask a server (CO-01, CO-02)."""

import httpx2
import pytest

from tests.sandbox.oauth.driver import Driver

ALLOWED = "access-control-allow-origin"
APP = "http://app.example"
STRANGER = "https://stranger.example"
OPEN = (
    "/api/FHIR/R4/.well-known/smart-configuration",
    "/api/FHIR/R4/metadata",
    "/oauth2/.well-known/openid-configuration",
    "/oauth2/jwks",
    "/brands.json",
    "/endpoints.json",
)


async def preflight(ehr: Driver, path: str, origin: str, method: str = "GET") -> httpx2.Response:
    headers = {"Origin": origin, "Access-Control-Request-Method": method}
    return await ehr.http.options(path, headers=headers | {"Access-Control-Request-Headers": "authorization"})


@pytest.mark.parametrize("path", OPEN)
async def test_any_page_may_discover(ehr: Driver, path: str) -> None:
    """(CO-01)"""
    assert (await ehr.http.get(path, headers={"Origin": STRANGER})).headers[ALLOWED] == "*"
    answer = await preflight(ehr, path, STRANGER)
    assert (answer.status_code, answer.headers[ALLOWED]) == (204, "*")


@pytest.mark.parametrize(("path", "method"), [("/oauth2/token", "POST"), ("/api/FHIR/R4/Patient", "GET")])
async def test_the_page_of_a_registered_client_may_ask_for_tokens_and_data(ehr: Driver, path: str, method: str) -> None:
    """(CO-01)"""
    allowed = await preflight(ehr, path, APP, method)
    assert (allowed.status_code, allowed.headers[ALLOWED], allowed.headers["vary"]) == (204, APP, "Origin")
    assert "Authorization" in allowed.headers["access-control-allow-headers"]
    assert method in allowed.headers["access-control-allow-methods"]
    assert (await ehr.http.request(method, path, headers={"Origin": APP})).headers[ALLOWED] == APP


@pytest.mark.parametrize("path", ["/oauth2/token", "/api/FHIR/R4/Patient", "/api/FHIR/R4"])
@pytest.mark.parametrize("origin", [STRANGER, "null", "http://app.example.stranger.example", "https://app.example"])
async def test_another_page_may_not(ehr: Driver, path: str, origin: str) -> None:
    """(CO-01)"""
    refused = await preflight(ehr, path, origin)
    assert (refused.status_code, ALLOWED in refused.headers) == (403, False)
    answer = await ehr.http.get(path, headers={"Origin": origin})
    assert ALLOWED not in answer.headers
    assert answer.headers["vary"] == "Origin"


async def test_no_page_may_use_the_control_paths_or_read_the_chart(ehr: Driver) -> None:
    for path in ("/__clients", "/", "/oauth2/authorize", "/oauth2/introspect"):
        answer = await ehr.http.get(path, headers={"Origin": APP})
        assert ALLOWED not in answer.headers


async def test_an_error_can_be_read_as_well(ehr: Driver) -> None:
    """(CO-02)"""
    await ehr.arm("fhir_500")
    answers = [await ehr.http.get("/api/FHIR/R4/Patient", headers={"Origin": APP}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [500, 401]
    assert [answer.headers[ALLOWED] for answer in answers] == [APP, APP]
    assert "WWW-Authenticate" in answers[1].headers["access-control-expose-headers"]


async def test_a_401_can_lack_the_headers(ehr: Driver) -> None:
    """(CO-02)"""
    await ehr.arm("fhir_401_no_cors")
    answer = await ehr.http.get("/api/FHIR/R4/Patient", headers={"Origin": APP})
    assert (answer.status_code, ALLOWED in answer.headers) == (401, False)


async def test_preflights_leave_no_trace_in_the_numbers(ehr: Driver) -> None:
    await preflight(ehr, "/oauth2/token", APP, "POST")
    assert (await ehr.counts())["token"] == 0


async def test_the_token_endpoint_a_vendor_advertises_is_shared_alike(ehr: Driver) -> None:
    await ehr.http.post("/__personality", json={"name": "oracle"})
    path = "/tenants/lakeside/protocols/oauth2/profiles/smart-v1/token"
    assert (await preflight(ehr, path, APP, "POST")).headers[ALLOWED] == APP
