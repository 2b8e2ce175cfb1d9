"""CORS: discovery for pages of any origin, everything else for pages of the app itself, refusals included."""

from typing import Any

import httpx2
import pytest

from tests.onc.kit import FROM_APP, FROM_LIMITED, FROM_NOBODY, code_form, fresh_code
from tests.stage import App, BrokerStage
from tests.stage.app import ORIGIN

pytestmark = pytest.mark.asyncio(loop_scope="module")

PUBLIC = (
    "/fhir/sandbox/.well-known/smart-configuration",
    "/fhir/sandbox/metadata",
    "/oauth/jwks",
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
)
FOR_APPS = ("/oauth/token", "/oauth/introspect", "/oauth/revoke", "/fhir/sandbox/Patient/1", "/fhir/unknown/Patient")
NEEDED = {"ETag", "Location", "Content-Location", "WWW-Authenticate", "X-Request-Id", "Retry-After", "Last-Modified"}


def allowed(answer: httpx2.Response) -> str | None:
    """Return the origin that may read the answer; never with credentials."""
    assert "access-control-allow-credentials" not in answer.headers
    return answer.headers.get("access-control-allow-origin")


async def preflight(app: App, url: str, origin: str, method: str) -> httpx2.Response:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization",
    }
    return await app.http.request("OPTIONS", url, headers=asked)


@pytest.mark.parametrize("path", PUBLIC)
@pytest.mark.parametrize("headers", [FROM_APP, FROM_NOBODY, {}])
async def test_public_documents_are_for_any_origin(
    public: App, stage: BrokerStage, path: str, headers: dict[str, str]
) -> None:
    """smart_cors_well_known_endpoint, smart_cors_metadata_request, smart_cors_support_stu2_2 (CO-01)."""
    answer = await public.http.get(stage.public_url + path, headers=headers)

    assert (answer.status_code, allowed(answer)) == (200, "*")
    asked = await preflight(public, stage.public_url + path, "https://nobody.example", "GET")
    assert (asked.status_code, allowed(asked)) == (204, "*")


async def test_a_missing_document_is_for_any_origin_too(public: App, stage: BrokerStage) -> None:
    """CO-02: a 404 that a page cannot read looks like a network failure."""
    url = f"{stage.public_url}/fhir/unknown/.well-known/smart-configuration"
    answer = await public.http.get(url, headers=FROM_NOBODY)

    assert (answer.status_code, allowed(answer)) == (404, "*")


async def test_the_token_exchange_answers_the_apps_own_origin(public: App) -> None:
    """smart_cors_token_exchange (CO-01): exactly that origin, and caches are told."""
    form = code_form(public, await fresh_code(public), client_id=public.client_id)
    endpoint = public.base.rpartition("/fhir/")[0] + "/oauth/token"
    answer = await public.http.post(endpoint, data=form, headers=FROM_APP)

    assert (answer.status_code, allowed(answer)) == (200, ORIGIN)
    assert "Origin" in answer.headers["vary"]
    assert set(answer.headers["access-control-expose-headers"].split(", ")) >= NEEDED


async def test_fhir_answers_the_apps_own_origin(public: App) -> None:
    """smart_cors_openid_fhir_user_claim, and any other read (CO-01)."""
    given = await public.standalone()
    answer = await public.fhir(given["access_token"], f"Patient/{given['patient']}", headers=FROM_APP)

    assert (answer.status_code, allowed(answer)) == (200, ORIGIN)
    assert "Origin" in answer.headers["vary"]
    assert set(answer.headers["access-control-expose-headers"].split(", ")) >= NEEDED


@pytest.mark.parametrize("headers", [FROM_LIMITED, FROM_NOBODY, {"Origin": "null"}, {}])
async def test_no_page_of_anybody_else_reads_what_a_handle_opens(public: App, headers: dict[str, str]) -> None:
    """CO-01: an origin of another app, of nobody, `null`, or none at all."""
    given = await public.standalone()
    path = f"Patient/{given['patient']}"

    answer = await public.fhir(given["access_token"], path, headers=headers)
    assert (answer.status_code, allowed(answer)) == (200, None)
    denied = await public.fhir(given["access_token"], "Patient/somebody-else", headers=headers)
    assert (denied.status_code, allowed(denied)) == (403, None)


@pytest.mark.parametrize("headers", [FROM_LIMITED, FROM_NOBODY])
async def test_no_page_of_anybody_else_reads_a_token_response(public: App, headers: dict[str, str]) -> None:
    """CO-01: the app proved itself, from a page that is not its own."""
    given = await public.standalone()
    form = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"], "client_id": public.client_id}
    answer = await public.http.post(f"{public.base.rpartition('/fhir/')[0]}/oauth/token", data=form, headers=headers)

    assert (answer.status_code, allowed(answer)) == (200, None)


@pytest.mark.parametrize("path", FOR_APPS)
async def test_a_preflight_is_answered_without_authentication_for_origins_of_apps(
    public: App, stage: BrokerStage, path: str
) -> None:
    """CO-01: browsers send it bare, so it is answered for the origins of any app, and for no others."""
    method = "PATCH" if path.startswith("/fhir/") else "POST"
    for origin in (ORIGIN, "https://limited.example"):
        answer = await preflight(public, stage.public_url + path, origin, method)
        assert (answer.status_code, allowed(answer), answer.content) == (204, origin, b"")
        assert method in answer.headers["access-control-allow-methods"].split(", ")
        wanted = {"Authorization", "Content-Type", "If-Match", "Prefer"}
        assert wanted <= set(answer.headers["access-control-allow-headers"].split(", "))
        assert answer.headers["vary"] == "Origin"

    refused = await preflight(public, stage.public_url + path, "https://nobody.example", method)
    assert (refused.status_code, allowed(refused)) == (204, None)
    assert "access-control-allow-methods" not in refused.headers


@pytest.mark.parametrize("origin", [f"{ORIGIN}/", ORIGIN.upper(), f"{ORIGIN}0", "http://127.0.0.1", "null", "*", ""])
async def test_an_origin_is_compared_exactly(public: App, stage: BrokerStage, origin: str) -> None:
    """CO-01: as browsers write it, and nothing like it."""
    assert allowed(await preflight(public, f"{stage.base}/Patient/1", origin, "GET")) is None


REFUSALS: list[tuple[str, str, dict[str, Any], int]] = [
    ("GET", "/fhir/sandbox/Patient/1", {}, 401),
    ("GET", "/fhir/sandbox/Patient/1", {"headers": {"Authorization": "Bearer sbh_expired"}}, 401),
    ("GET", "/fhir/unknown/Patient/1", {"headers": {"Authorization": "Bearer sbh_expired"}}, 404),
    ("POST", "/oauth/token", {"data": {"client_id": "nobody", "grant_type": "authorization_code"}}, 401),
    ("POST", "/oauth/token", {"json": {}}, 400),
    ("POST", "/oauth/token", {"data": {"client_id": "growth-chart", "grant_type": "password"}}, 400),
    ("POST", "/oauth/introspect", {"data": {"client_id": "growth-chart"}}, 400),
    ("GET", "/oauth/token", {}, 405),
]


@pytest.mark.parametrize(("method", "path", "request_", "status"), REFUSALS)
async def test_a_refusal_can_be_read_by_the_apps_page(
    public: App, stage: BrokerStage, method: str, path: str, request_: dict[str, Any], status: int
) -> None:
    """CO-02: without these headers a browser hides even the status; nobody else's page gets them."""
    given = dict(request_)
    own = given.pop("headers", {})
    mine = await public.http.request(method, stage.public_url + path, headers={**own, **FROM_APP}, **given)
    foreign = await public.http.request(method, stage.public_url + path, headers={**own, **FROM_NOBODY}, **given)

    assert (mine.status_code, allowed(mine)) == (status, ORIGIN)
    assert (foreign.status_code, allowed(foreign)) == (status, None)


async def test_an_ehr_that_fails_is_readable_too(public: App, stage: BrokerStage) -> None:
    """CO-02: 5xx of the EHR, and what the broker says in its place."""
    given = await public.standalone()
    for fault, status in (("fhir_500", 500), ("fhir_drop", 504), ("fhir_html", 502)):
        stage.sandbox.fault(fault, times=2)  # a read that a connection did not take goes out once more
        answer = await public.fhir(given["access_token"], f"Patient/{given['patient']}", headers=FROM_APP)
        assert (answer.status_code, allowed(answer)) == (status, ORIGIN), fault
        stage.sandbox.clear_faults()


@pytest.mark.parametrize("path", ["/oauth/authorize", "/livez", "/jwks/sandbox-launch", "/launch/sandbox-launch"])
async def test_what_no_page_calls_has_no_cors(public: App, stage: BrokerStage, path: str) -> None:
    """Browsers navigate there, or EHRs and probes call it."""
    answer = await public.http.get(stage.public_url + path, headers=FROM_APP)
    asked = await preflight(public, stage.public_url + path, ORIGIN, "GET")

    assert allowed(answer) is None
    assert (asked.status_code, allowed(asked)) == (405, None)
