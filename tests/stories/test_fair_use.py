"""Fair use, from end to end: who asks too much is told so, and the EHR hears nothing of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from broker.fair_use.throttled import TOLD_SECONDS
from tests.stage import Sandbox, open_stage
from tests.stage.app import REDIRECT_URI
from tests.stories.held import Held, audit_of, code_of, hold, until
from tests.stories.test_gate import replica, through

LIMITED = f"""
[[app]]
id = "limited"
authentication = "none"
redirect_uris = ["{REDIRECT_URI}"]
requests_per_minute = 6
burst = 3
[[app.access]]
registration = "sandbox-launch"
scopes = "openid fhirUser offline_access launch/patient patient/Patient.rs"
"""


@asynccontextmanager
async def at(
    sandbox: Sandbox, redis: Redis, state: Path, *, client_id: str = "growth-chart", **options: Any
) -> AsyncIterator[Held]:
    async with open_stage(sandbox, redis, state, authentication="client_secret_basic", **options) as stage:
        app = stage.app(client_id)
        try:
            yield await hold(stage, app, 3600)
        finally:
            await app.close()


def reads(sandbox: Sandbox) -> int:
    """How many FHIR requests reached the EHR."""
    return sum(count for kind, count in sandbox.counts().items() if kind.startswith("fhir"))


def require_throttled(answer: httpx2.Response) -> None:
    assert (answer.status_code, code_of(answer)) == (429, "too_many_requests")
    assert answer.json()["issue"][0]["code"] == "throttled"
    assert 1 <= int(answer.headers["retry-after"]) <= 10
    assert "www-authenticate" not in answer.headers


async def test_an_app_over_its_limit_is_told_when_to_come_again_and_sends_nothing(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """(PX-11)"""
    async with at(sandbox, redis, tmp_path, client_id="limited", more=LIMITED) as held:
        assert [(await held.read()).status_code for _ in range(3)] == [200, 200, 200]
        before = reads(sandbox)

        for _ in range(20):
            require_throttled(await held.read())
        assert reads(sandbox) == before

        held.stage.clock.advance(10)
        assert [(await held.read()).status_code for _ in range(2)] == [200, 429]


async def test_a_flood_of_refusals_is_audited_and_does_not_fill_the_disk(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """One record at once, and one a second that counts the others; no other record is written for them."""
    async with at(sandbox, redis, tmp_path, client_id="limited", more=LIMITED) as held:
        for _ in range(3):
            await held.read()
        before = len(held.stage.audit_lines())
        for _ in range(40):
            await held.read()

        await until(lambda: len(audit_of(held.stage, "handle.throttle")) > 1)
        throttled = audit_of(held.stage, "handle.throttle")
        assert len(held.stage.audit_lines()) - before == len(throttled) <= 3 + int(TOLD_SECONDS)
        first = throttled[0]
        assert (first["outcome"], first["app"], first["ehr"]) == ("denied", "limited", "sandbox")
        assert first["grant"] == held.tag
        assert first["reason"] == "too_many_requests: app limited is at its limit of requests"
        counted = [int(record["reason"].split()[1]) for record in throttled[1:]]
        assert 0 < sum(counted) <= 39


async def test_what_is_denied_counts_too(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> None:
    """So nobody finds out what a handle may do faster than it may be used."""
    async with at(sandbox, redis, tmp_path, client_id="limited", more=LIMITED) as held:
        for _ in range(3):
            assert (await held.app.fhir(held.handle, "Observation")).status_code == 403
        require_throttled(await held.read())


async def test_the_limit_of_an_app_is_that_of_all_replicas_and_of_no_other_app(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    async with (
        at(sandbox, redis, tmp_path, client_id="limited", more=LIMITED) as held,
        replica(held.stage, tmp_path) as other,
    ):
        elsewhere = through(other, held)
        answers = [(await one.read()).status_code for one in (held, elsewhere, held, elsewhere, held)]
        assert answers == [200, 200, 200, 429, 429]

        unlimited = held.stage.app()
        theirs = await hold(held.stage, unlimited, 3600)
        assert (await theirs.read()).status_code == 200
        await unlimited.close()
        await elsewhere.app.close()


async def test_an_ehr_is_asked_no_more_than_it_may_be_whoever_asks(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    limit = "fhir_requests_per_minute = 6\nfhir_burst = 3"
    async with at(sandbox, redis, tmp_path, ehr=limit) as held:
        before = reads(sandbox)
        answers = [await held.read() for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert reads(sandbox) == before + 3
        require_throttled(answers[-1])
        (first, *_) = audit_of(held.stage, "handle.throttle")
        assert first["reason"] == "too_many_requests: EHR sandbox is at its limit of requests"
        assert not [one for one in audit_of(held.stage, "handle.answer") if one["outcome"] == "failed"]


async def test_a_throttled_request_takes_no_use_of_a_handle_whose_uses_are_counted(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    """The EHR's limit comes before the use is taken."""
    limit = "fhir_requests_per_minute = 6\nfhir_burst = 1"
    async with at(sandbox, redis, tmp_path, ehr=limit) as held:
        answer = await held.app.token(
            grant_type="urn:ietf:params:oauth:grant-type:token-exchange",
            subject_token=held.handle,
            subject_token_type="urn:ietf:params:oauth:token-type:access_token",
            uses="1",
        )
        once = Held(held.stage, held.app, answer.json()["access_token"], held.path)
        assert (await held.read()).status_code == 200
        require_throttled(await once.read())

        held.stage.clock.advance(10)
        assert (await once.read()).status_code == 200


@pytest.mark.parametrize("status", [429, 503])
async def test_an_ehr_that_asks_for_a_pause_is_left_alone_by_all_replicas(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, status: int
) -> None:
    """(PX-11): what it said is passed on, then nobody asks it until the pause is over."""
    async with at(sandbox, redis, tmp_path) as held, replica(held.stage, tmp_path) as other:
        elsewhere = through(other, held)
        assert (await elsewhere.read()).status_code == 200
        sandbox.fault("fhir_429", status=status, retry_after=20, times=1)
        said = await held.read()
        assert (said.status_code, said.headers["retry-after"]) == (status, "20")
        before = reads(sandbox)

        for _ in range(3):
            refused = await held.read()
            assert (refused.status_code, code_of(refused)) == (503, "ehr_held_back")
            assert 18 <= int(refused.headers["retry-after"]) <= 20
        assert reads(sandbox) == before

        held.stage.clock.advance(1)
        await elsewhere.read()  # asks for the news beside itself

        async def told() -> bool:
            return (await elsewhere.read()).status_code == 503

        await until(told)

        held.stage.clock.advance(20)
        assert (await held.read()).status_code == 200
        assert (await elsewhere.read()).status_code == 200
        await elsewhere.app.close()


@pytest.mark.parametrize(
    ("longest", "said", "left_alone"),
    [(60, 86_400, True), (0, 20, False), (60, -5, False), (60, 0, False)],
)
async def test_no_odd_value_of_an_ehr_keeps_it_from_everybody_for_long(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, longest: int, said: int, *, left_alone: bool
) -> None:
    async with at(sandbox, redis, tmp_path, ehr=f"fhir_longest_pause = {longest}") as held:
        sandbox.fault("fhir_429", retry_after=said, times=1)
        assert (await held.read()).headers["retry-after"] == str(said)
        assert (await held.read()).status_code == (503 if left_alone else 200)

        held.stage.clock.advance(longest)
        assert (await held.read()).status_code == 200


async def test_what_is_no_request_for_a_pause_is_none(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> None:
    async with at(sandbox, redis, tmp_path) as held:
        for status in (500, 502, 404):
            sandbox.fault("fhir_429", status=status, retry_after=20, times=1)
            assert (await held.read()).status_code == status
        assert (await held.read()).status_code == 200


async def test_nothing_of_who_was_throttled_is_in_the_store_beyond_its_id(
    sandbox: Sandbox, redis: Redis, tmp_path: Path
) -> None:
    async with at(sandbox, redis, tmp_path, client_id="limited", more=LIMITED) as held:
        for _ in range(5):
            await held.read()
        sandbox.fault("fhir_429", times=1)
        held.stage.clock.advance(10)
        await held.read()

        async def written() -> bool:
            return await redis.hexists("sb:pace:ehr:{sandbox}", "held")

        await until(written)
        found = sorted([key.decode() async for key in redis.scan_iter("sb:pace:*")])
        assert found == ["sb:pace:app:{limited}", "sb:pace:ehr:{sandbox}"]
        assert set(await redis.hgetall(found[0])) == {b"spent"}
