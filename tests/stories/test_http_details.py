"""What HTTP offers beside a body goes both ways as if the broker were not there (PX-11)."""

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.stage import App, BrokerStage
from tests.stories.held import upstream

SCOPE = "launch/patient patient/Patient.rs patient/Observation.cruds"


@pytest.fixture
async def given(app: App) -> dict[str, Any]:
    return await app.standalone(scope=SCOPE)


def observation(given: dict[str, Any]) -> dict[str, Any]:
    code = {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}
    subject = {"reference": f"Patient/{given['patient']}"}
    return {"resourceType": "Observation", "status": "final", "code": code, "subject": subject}


async def test_what_is_unchanged_is_not_sent_again(app: App, given: dict[str, Any]) -> None:
    handle, path = given["access_token"], f"Patient/{given['patient']}"
    first = await app.fhir(handle, path)

    again = await app.fhir(handle, path, headers={"If-None-Match": first.headers["etag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert first.headers["last-modified"]


async def test_a_head_has_the_headers_and_no_body(app: App, given: dict[str, Any]) -> None:
    handle, path = given["access_token"], f"Patient/{given['patient']}"
    read = await app.fhir(handle, path)

    head = await app.fhir(handle, path, method="HEAD")

    assert (head.status_code, head.content) == (200, b"")
    assert [head.headers[name] for name in ("etag", "content-type")] == [
        read.headers[name] for name in ("etag", "content-type")
    ]


async def test_a_write_is_conditional_asks_for_little_and_may_answer_nothing(app: App, given: dict[str, Any]) -> None:
    handle = given["access_token"]
    created = await app.fhir(
        handle, "Observation", method="POST", json=observation(given), headers={"Prefer": "return=minimal"}
    )
    assert (created.status_code, created.content) == (201, b"")
    path = created.headers["location"].removeprefix(f"{app.base}/").partition("/_history")[0]
    resource = observation(given) | {"id": path.partition("/")[2]}

    stale = await app.fhir(handle, path, method="PUT", json=resource, headers={"If-Match": 'W/"99"'})
    updated = await app.fhir(handle, path, method="PUT", json=resource, headers={"If-Match": created.headers["etag"]})
    deleted = await app.fhir(handle, path, method="DELETE")

    assert (stale.status_code, stale.json()["resourceType"]) == (412, "OperationOutcome")
    assert updated.status_code == 200
    assert (deleted.status_code, deleted.content) == (204, b"")


async def answered(stage: BrokerStage, target: str, **headers: str) -> tuple[list[bytes], bytes]:
    """Ask over HTTP/1.0, and return the head's lines, but for those that differ each time, and the body."""
    place = urlsplit(stage.base)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    lines = [f"GET {target} HTTP/1.0", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        async with asyncio.timeout(5):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    return [line for line in head.split(b"\r\n") if not line.startswith((b"date:", b"x-request-id:"))], body


async def test_http_1_0_has_no_fhir_since_it_knows_no_chunks(stage: BrokerStage, given: dict[str, Any]) -> None:
    """RFC 9112 §6.1; without chunks an answer that is cut would look whole."""
    before = upstream(stage.sandbox)
    handle, path = f"Bearer {given['access_token']}", urlsplit(stage.base).path
    for target in (f"{path}/Observation", f"{path}/Patient/$export"):
        head, body = await answered(stage, target, Authorization=handle)
        assert head == [
            b"HTTP/1.1 505 HTTP Version Not Supported",
            b"cache-control: no-store",
            b"content-length: %d" % len(body),
            b"content-type: application/fhir+json",
            b"x-content-type-options: nosniff",
            b"referrer-policy: no-referrer",
            b"vary: Origin",
            b"connection: close",
        ]
        assert json.loads(body)["issue"][0]["details"]["coding"][0]["code"] == "http_version_not_supported"
    assert upstream(stage.sandbox) == before


async def test_load_balancers_may_ask_for_health_over_http_1_0(stage: BrokerStage) -> None:
    """Many do unless told otherwise."""
    for probe in ("/livez", "/readyz"):
        assert await answered(stage, probe) == (
            [
                b"HTTP/1.1 200 OK",
                b"cache-control: no-store",
                b"content-length: 15",
                b"content-type: application/json",
                b"x-content-type-options: nosniff",
                b"referrer-policy: no-referrer",
                b"connection: close",
            ],
            b'{"status":"ok"}',
        )


async def asked_first(stage: BrokerStage, handle: str) -> bytes:
    """Ask whether a body may come, and return what is said first."""
    place = urlsplit(stage.base)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    lines = [
        f"POST {place.path}/Observation HTTP/1.1",
        f"Host: {place.netloc}",
        f"Authorization: Bearer {handle}",
        "Content-Type: application/fhir+json",
        "Content-Length: 1000",
        "Expect: 100-continue",
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        async with asyncio.timeout(5):
            return (await reader.readline()).strip()
    finally:
        writer.close()


async def test_a_body_is_asked_for_only_with_a_good_handle(stage: BrokerStage, given: dict[str, Any]) -> None:
    """RFC 9110 §10.1.1."""
    before = upstream(stage.sandbox)
    assert await asked_first(stage, f"{given['access_token'][:-1]}!") == b"HTTP/1.1 401 Unauthorized"
    assert upstream(stage.sandbox) == before

    assert await asked_first(stage, given["access_token"]) == b"HTTP/1.1 100 Continue"
