"""What every refusal has in common: its dialect, no store, nothing repeated, nothing sent, its cause in the audit."""

import asyncio
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
from structlog.testing import capture_logs

from tests.stage import BrokerStage, Sandbox
from tests.stage.app import REDIRECT_URI

OUTCOME_SYSTEM = "urn:smart-token-broker:error"


async def forget_endpoints(stage: BrokerStage) -> None:
    """Let the EHR be one that was never discovered: there is nothing to bridge a failure with (DS-13)."""
    async for key in stage.redis.scan_iter("sb:pin:*"):
        await stage.redis.delete(key)


def assert_oauth_error(answer: httpx2.Response, status: int, error: str, *, hides: Iterable[str] = ()) -> None:
    """RFC 6749 §5.2: JSON with `error` and one public sentence, never stored (OA-03)."""
    assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error", "error_description"}
    assert ("www-authenticate" in answer.headers) == (status == 401)
    _assert_discreet(answer, hides)


def assert_page(answer: httpx2.Response, status: int, code: str, *, hides: Iterable[str] = ()) -> None:
    """A page for a person: static text, nothing from outside, not to be framed (CB-05, CB-09, CB-11, OA-06)."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8"), answer.text
    assert f"<code>{code}</code>" in answer.text
    assert "location" not in answer.headers
    policy = answer.headers["content-security-policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    assert not any(word in answer.text for word in ("<script", "src=", "href="))
    _assert_discreet(answer, hides)


def assert_outcome(
    answer: httpx2.Response, status: int, code: str, *, challenge: str | None = None, hides: Iterable[str] = ()
) -> None:
    """An OperationOutcome with the broker's own code; `challenge` is the whole of WWW-Authenticate (RFC 6750 §3)."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/fhir+json"
    (issue,) = answer.json()["issue"]
    assert (issue["severity"], issue["details"]["coding"]) == ("error", [{"system": OUTCOME_SYSTEM, "code": code}])
    assert answer.headers.get("www-authenticate") == challenge
    _assert_discreet(answer, hides)


def assert_app_is_told(
    answer: httpx2.Response, error: str, *, state: str | None = "app-state", hides: Iterable[str] = ()
) -> None:
    """A redirect to the app's own URI with the OAuth code, the public text, its state, and who says so: no more.

    RFC 6749 §4.1.2.1, RFC 9207 §2.
    """
    assert answer.status_code == 303, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["location"].partition("?")[0] == REDIRECT_URI
    told = query_of(answer.headers["location"])
    assert set(told) == {"error", "error_description", "iss"} | ({"state"} if state else set())
    assert told["iss"].startswith("http://127.0.0.1:")
    assert (told["error"], told.get("state")) == (error, state)
    assert not [value for value in hides if value and value in answer.text + str(answer.headers)]


def query_of(url: str) -> dict[str, str]:
    """Return the parameters of a URL."""
    return dict(parse_qsl(urlsplit(url).query))


def _assert_discreet(answer: httpx2.Response, hides: Iterable[str]) -> None:
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    said = answer.text + str(answer.headers)
    assert not [value for value in hides if value and value in said]


@contextmanager
def nothing_sent(sandbox: Sandbox) -> Iterator[None]:
    """The EHR hears nothing while this lasts, whatever the path."""
    before = sandbox.counts()
    yield
    assert sandbox.counts() == before


@contextmanager
def audited(stage: BrokerStage, event: str, outcome: str, cause: str, *, hides: Iterable[str] = ()) -> Iterator[None]:
    """One audit line of this event and outcome is written meanwhile; its reason names the cause and repeats nothing."""
    before = len(stage.audit_lines())
    yield
    written = stage.audit_lines()[before:]
    records: list[dict[str, Any]] = [json.loads(line) for line in written]
    fitting = [record for record in records if (record["event"], record["outcome"]) == (event, outcome)]
    assert [record["reason"] for record in fitting if cause in record["reason"]], records
    assert all(record["request_id"] for record in fitting)
    assert not [value for value in hides if value and value in "".join(written)]


@contextmanager
def logged(cause: str, *, hides: Iterable[str] = ()) -> Iterator[None]:
    """What cannot be read names nobody, so it has no audit record: its cause is in the log, and none of its words."""
    with capture_logs() as lines:
        yield
    refused = [line["detail"] for line in lines if line["event"] in {"refused", "handle_refused"}]
    assert [detail for detail in refused if cause in detail], lines
    assert not [value for value in hides if value and value in str(lines)]


async def raw_request(stage: BrokerStage, request: bytes) -> bytes:
    """Send what no client library would, and return all that comes back before the connection closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(stage.public_url).port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer
