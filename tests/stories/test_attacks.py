"""What reviewers tried, and what came of it: each of these once worked."""

import asyncio
import json
import socket
from contextlib import closing, suppress

from broker.audit import AuditRecord, AuditTrail
from broker.clock import system_clock
from tests.stage import App, BrokerStage

HANDLE_TAG = slice(4, 16)


def sent_to(stage: BrokerStage, request: bytes, *, seconds: float = 15) -> bytes:
    """Send raw bytes, and read until the broker closes or falls silent."""
    port = int(stage.public_url.rpartition(":")[2])
    with closing(socket.create_connection(("127.0.0.1", port), timeout=seconds)) as connection:
        connection.sendall(request)
        answer = b""
        with suppress(ConnectionResetError):  # closed with our bytes unread: cut off all the same
            while chunk := connection.recv(65536):
                answer += chunk
        return answer


async def test_a_success_that_cannot_be_read_is_not_asked_for_again(app: App, stage: BrokerStage) -> None:
    """RF-05, RF-15: the EHR had replaced the refresh token."""
    stage.sandbox.fault("token_lifetime", seconds=20)
    response = await app.standalone()
    stage.sandbox.fault("token_members", drop=["access_token"], times=2)
    stage.clock.advance(25)

    first = await app.fhir(response["access_token"], f"Patient/{response['patient']}")
    renewed = await app.token(grant_type="refresh_token", refresh_token=response["refresh_token"])

    assert first.status_code == 401
    assert renewed.status_code == 400
    counts = stage.sandbox.counts()
    assert (counts["token.refresh_token"], counts["reuse_alarms"]) == (1, 0)
    grant = await stage.broker.grants.read(response["access_token"][HANDLE_TAG])
    assert grant.state == "uncertain"


async def test_an_app_cannot_have_its_own_link_made_a_page_link(app: App, stage: BrokerStage) -> None:
    """PX-07: only links before the first entry of a search are the server's own."""
    response = await app.standalone(scope="launch/patient patient/Observation.cruds")
    handle, patient = response["access_token"], response["patient"]
    planted = [{"relation": "next", "url": f"{stage.sandbox.fhir_base}?_getpages=session-of-somebody-else"}]
    observation = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "planted"},
        "subject": {"reference": f"Patient/{patient}"},
        "contained": [{"resourceType": "Bundle", "id": "b", "type": "searchset", "link": planted}],
    }
    headers = {"Content-Type": "application/fhir+json", "Prefer": "return=representation"}
    created = await app.fhir(handle, "Observation", method="POST", content=json.dumps(observation), headers=headers)
    found = await app.fhir(handle, f"Observation?patient={patient}&_count=100")

    assert created.status_code == 201
    assert "session-of-somebody-else" in created.text
    assert "_sbpage" not in created.text
    assert "session-of-somebody-else" in found.text
    assert found.text.count("_sbpage") <= sum(link["relation"] != "self" for link in found.json()["link"])
    assert "_sbpage" not in json.dumps(found.json()["entry"])


async def test_a_401_right_after_a_renewal_is_not_another_renewal(app: App, stage: BrokerStage) -> None:
    """RF-06, OR-04."""
    response = await app.standalone()
    stage.sandbox.fault("fhir_401_all")

    for _ in range(5):
        answer = await app.fhir(response["access_token"], f"Patient/{response['patient']}")
        assert (answer.status_code, answer.json()["resourceType"]) == (401, "OperationOutcome")
    assert stage.sandbox.counts()["token.refresh_token"] == 1


async def test_revoking_during_a_refresh_ends_what_the_refresh_brought(app: App, stage: BrokerStage) -> None:
    """HB-08, IN-06."""
    stage.sandbox.fault("token_lifetime", seconds=20)
    response = await app.standalone()
    tag = response["access_token"][HANDLE_TAG]
    stage.sandbox.fault("token_hold", seconds=1)
    stage.clock.advance(25)
    reading = asyncio.create_task(app.fhir(response["access_token"], f"Patient/{response['patient']}"))
    while stage.sandbox.counts()["token.refresh_token"] == 0:  # noqa: ASYNC110  # the sandbox is another process
        await asyncio.sleep(0.02)

    await stage.broker.revoke_grant(tag, cause="test")
    answer = await reading

    assert answer.status_code == 401
    assert stage.sandbox.counts()["revoke"] == 2  # the token that was known, and the one that came


async def test_a_trailing_slash_is_not_redirected_to_a_host_of_the_callers_choice(app: App, stage: BrokerStage) -> None:
    """AL-20."""
    answer = await app.http.post(f"{stage.public_url}/oauth/token/", headers={"Host": "evil.example"})

    assert answer.status_code == 404
    assert "location" not in answer.headers


async def test_a_head_without_end_is_cut_off(stage: BrokerStage) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: b\r\n" + b"X-Long: " + b"a" * 300_000

    answer = await asyncio.to_thread(sent_to, stage, request)

    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


async def test_a_bad_handle_is_refused_before_its_body_is_read(app: App, stage: BrokerStage) -> None:
    handle = (await app.standalone())["access_token"]
    wrong = handle[:-1] + ("0" if handle[-1] != "0" else "1")
    head = (
        f"POST /fhir/sandbox/Observation/_search HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {wrong}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 4000000\r\nConnection: close\r\n\r\na="
    )
    answer = await asyncio.to_thread(sent_to, stage, head.encode())

    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_metadata_is_asked_for_once_however_many_want_it(app: App, stage: BrokerStage) -> None:
    """DS-13."""
    before = stage.sandbox.counts()["metadata"]

    answers = await asyncio.gather(*(app.http.get(f"{app.base}/metadata") for _ in range(40)))

    assert {answer.status_code for answer in answers} == {200}
    assert stage.sandbox.counts()["metadata"] - before == 1


async def test_an_expired_handle_that_was_put_back_stays_expired(app: App, stage: BrokerStage) -> None:
    """The end stands under the seal; what the store says of it can be changed by whoever can write there."""
    response = await app.standalone()
    keys = [key async for key in stage.redis.scan_iter("sb:*:refresh:*")]
    for key in keys:
        await stage.redis.persist(key)
    stage.clock.advance(30 * 86_400)

    answer = await app.token(grant_type="refresh_token", refresh_token=response["refresh_token"])

    assert keys
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


async def test_the_audit_trail_goes_on_after_an_error_nobody_foresaw(tmp_path: object) -> None:
    shipped: list[str] = []
    failures = [RuntimeError("transport closed")]

    async def ship(lines: object) -> None:
        if failures:
            raise failures.pop()
        shipped.extend(lines)  # type: ignore[arg-type]  # a sequence of lines

    trail = AuditTrail(file=None, ship=ship, clock=system_clock)
    await trail.open()
    trail.record(AuditRecord(event="grant.revoke", outcome="allowed"))
    await asyncio.sleep(0.4)
    await trail.close()

    assert len(shipped) == 1
