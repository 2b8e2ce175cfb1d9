"""Keys are replaced and shredded beside a broker that serves: what an app, and what a look at the store, sees of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from broker.app.vault import VaultWork, open_vault
from broker.errors import NotFound
from broker.vault import Domain, LocalKeyring
from tests.stage.broker import EHR, KEY
from tests.stories.held import Held

SANDBOX = Domain("default", EHR)


@asynccontextmanager
async def operating(held: Held, meanwhile: Callable[[], Awaitable[None]] | None = None) -> AsyncIterator[VaultWork]:
    """Open what an operator's command opens; time passes in twenty seconds while it waits."""

    async def sleep(seconds: float) -> None:
        while seconds > 0:
            held.stage.clock.advance(min(seconds, 20))
            seconds -= 20
            if meanwhile is not None:
                await meanwhile()

    stage = held.stage
    async with open_vault(
        stage.broker.settings,
        redis=stage.redis,
        kek=LocalKeyring([KEY]),
        audit_file=stage.state / "operator.jsonl",
        clock=stage.clock,
        sleep=sleep,
    ) as work:
        yield work


async def renew_handle(held: Held) -> None:
    answer = await held.app.token(grant_type="refresh_token", refresh_token=held.refresh_handle)
    assert answer.status_code == 200, answer.text
    held.handle, held.refresh_handle = answer.json()["access_token"], answer.json()["refresh_token"]


async def test_apps_read_and_grants_are_refreshed_while_all_keys_are_rotated_and_not_one_read_fails(
    held: Held,
) -> None:
    """RF-04, RF-05: eight readers, and a token that is renewed at the EHR every minute and a half."""
    statuses: list[int] = []

    async def meanwhile() -> None:
        await renew_handle(held)
        answers = await asyncio.gather(*(held.read() for _ in range(8)))
        statuses.extend(answer.status_code for answer in answers)

    async with operating(held, meanwhile) as work:
        rotations = await work.rotate(None, lambda _: None)
        verified = await work.verify(lambda *_: None)

    assert set(statuses) == {200}
    assert len(statuses) > 100
    assert held.refreshes() >= 3
    assert {rotated.domain: rotated.is_complete for rotated in rotations} == {Domain("default"): True, SANDBOX: True}
    assert not verified.unreadable
    assert (await held.grant()).generation == held.refreshes() + 1


async def test_after_a_shred_nothing_of_the_ehr_is_there_and_a_launch_begins_anew(held: Held, redis: Redis) -> None:
    tag, patient = held.tag, held.path.partition("/")[2]
    assert (await held.read()).status_code == 200

    async with operating(held) as work:
        await work.shred(EHR, lambda _: None)

    assert (await held.read()).status_code == 401
    refused = await held.app.token(grant_type="refresh_token", refresh_token=held.refresh_handle)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    with pytest.raises(NotFound):
        await held.stage.broker.grants.read(tag)
    again = await held.app.standalone()
    assert again["patient"] == patient
    assert (await held.app.fhir(again["access_token"], held.path)).status_code == 200
    async with operating(held) as work:
        assert not (await work.verify(lambda *_: None)).unreadable


async def test_an_audit_trail_leads_to_nobody_once_the_ehr_is_shredded(held: Held, redis: Redis) -> None:
    """Its lines name a grant by a random tag. Who that was stood in the grant's sealed terms alone."""
    assert (await held.read()).status_code == 200
    context = (await held.grant()).terms.context
    names = [str(context.patient), str(context.fhir_user), str(context.subject)]
    trail = [json.loads(line) for line in held.stage.audit_lines()]
    assert [line for line in trail if line.get("grant") == held.tag]

    async with operating(held) as work:
        await work.shred(EHR, lambda _: None)

    async for name in redis.scan_iter(match=f"*{held.tag}*"):  # marks of what was used up, for minutes
        assert 0 < await redis.pttl(name) <= 600_000
        assert await redis.type(name) == b"hash"
        assert await redis.hkeys(name) == [b"family", b"used"]
    text = "\n".join(held.stage.audit_lines())
    assert [name for name in names if name != "None" and name in text] == []
