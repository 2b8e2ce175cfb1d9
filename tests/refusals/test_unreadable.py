"""Requests that no journey can begin with: refused, and written down all the same."""

import pytest

from tests.refusals.refusal import audited, nothing_sent
from tests.stage import App, BrokerStage

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "cause"),
    [
        ("POST", "/oauth/token", JSON, b"{}", 400, "not a form"),
        ("POST", "/oauth/token", FORM, b"grant_type=a&grant_type=b", 400, "a parameter is repeated"),
        ("POST", "/oauth/token", FORM, b"code=%ff", 400, "the parameters cannot be read"),
        ("POST", "/oauth/token", FORM, b"code=" + b"x" * (64 << 10), 413, "the form is too long"),
        ("POST", "/oauth/introspect", FORM, b"client_id=growth-chart", 400, "token is missing"),
        ("POST", "/oauth/revoke", FORM, b"client_id=growth-chart", 400, "token is missing"),
        ("POST", "/oauth/authorize", JSON, b"{}", 400, "not a form"),
        ("GET", "/oauth/authorize?state=a&state=b", {}, b"", 400, "a parameter is repeated"),
        ("GET", "/launch/sandbox-launch?iss=a&iss=b", {}, b"", 400, "a parameter is repeated"),
        ("GET", "/callback/sandbox-launch?code=a&code=b", {}, b"", 400, "a parameter is repeated"),
        (
            "POST",
            "/callback/sandbox-launch",
            FORM,
            b"code=a",
            400,
            "a callback was posted, and not by the broker's page",
        ),
    ],
)
async def test_a_request_that_cannot_be_read_is_refused_and_audited(
    stage: BrokerStage, app: App, method: str, path: str, headers: dict[str, str], body: bytes, status: int, cause: str
) -> None:
    """(OA-01, OA-03)"""
    with nothing_sent(stage.sandbox), audited(stage, "request.unreadable", "denied", cause):
        answer = await app.http.request(method, stage.public_url + path, headers=headers, content=body)

    assert answer.status_code == status


async def test_two_authorization_headers_are_refused_and_audited(stage: BrokerStage, app: App) -> None:
    """(TK-06)"""
    two = [("authorization", "Basic YTpi"), ("authorization", "Basic YTpi"), *FORM.items()]
    with nothing_sent(stage.sandbox), audited(stage, "request.unreadable", "denied", "two Authorization headers"):
        answer = await app.http.post(f"{stage.public_url}/oauth/token", headers=two, content=b"grant_type=x")

    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
