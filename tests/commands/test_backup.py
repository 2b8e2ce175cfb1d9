"""`broker backup`: the drill. What was granted is back, nothing of it is used unasked, nothing lies in the clear."""

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from broker.app import open_broker
from broker.store import keys
from broker.vault import DomainRecords, LocalKeyring
from sandbox.marks import MARK
from tests.commands.program import Operator
from tests.stage import App, BrokerStage
from tests.stage.broker import KEY
from tests.stories.held import Held, hold

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def held(stage: BrokerStage, app: App) -> Held:
    return await hold(stage, app)


async def restored(operator: Operator, redis: Redis, name: str = "backup") -> dict[str, Any]:
    """Back up, lose everything, put it back."""
    assert (await operator.run("backup", "create", name)).status == 0
    await redis.flushall()
    said = await operator.run("backup", "restore", name, "--yes", "--json")
    assert said.status == 0, said.err
    return dict(said.json()[0])


async def refreshed(held: Held) -> httpx2.Response:
    return await held.app.token(grant_type="refresh_token", refresh_token=held.refresh_handle)


async def test_a_restored_grant_is_there_and_its_refresh_token_is_not_sent_unasked(
    at_stage: Operator, held: Held, redis: Redis
) -> None:
    """RF-15, HB-08."""
    assert (await held.read()).status_code == 200
    sent = held.stage.sandbox.counts()

    counted = await restored(at_stage, redis)

    assert counted["hash"] >= 2
    grant = (await at_stage.run("grants", "show", held.tag, "--json")).json()[0]
    assert grant["state"] == "uncertain"
    assert grant["cause"].startswith("restored from a backup of ")
    assert (await held.read()).status_code == 401
    renewed = await refreshed(held)
    if renewed.status_code == 200:
        answer = await held.app.fhir(renewed.json()["access_token"], held.path)
        assert answer.status_code == 401
    assert held.stage.sandbox.counts() == sent


async def test_handles_do_not_come_back_and_refresh_handles_do(at_stage: Operator, held: Held, redis: Redis) -> None:
    await restored(at_stage, redis)

    names = [name.decode() async for name in redis.scan_iter(match="sb:*")]
    assert [name for name in names if ":handle:" in name or ":lease" in name] == []
    assert len([name for name in names if ":refresh:" in name]) == 1
    lives = await redis.pttl(next(name for name in names if ":refresh:" in name))
    assert 0 < lives <= 8 * 3600 * 1000


async def test_a_backup_holds_nothing_in_the_clear(at_stage: Operator, held: Held) -> None:
    await at_stage.run("backup", "create", "backup")

    file = at_stage.home / "backup"
    text = file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    for secret in (MARK.encode(), held.handle.encode(), held.tag.encode(), held.path.partition("/")[2].encode()):
        assert secret not in text


async def test_a_whole_backup_verifies_and_a_damaged_one_changes_nothing(
    at_stage: Operator, held: Held, redis: Redis
) -> None:
    await at_stage.run("backup", "create", "backup")
    file = at_stage.home / "backup"
    assert "whole and unchanged" in (await at_stage.run("backup", "verify", "backup")).out
    file.write_bytes(file.read_bytes()[:-1])
    await redis.flushall()

    verified = await at_stage.run("backup", "verify", "backup")
    said = await at_stage.run("backup", "restore", "backup", "--yes")

    assert (verified.status, said.status) == (1, 1)
    assert "backup_unreadable: it ends before its last frame" in said.err
    assert [name async for name in redis.scan_iter(match="sb:*grant*")] == []


async def test_a_backup_is_put_into_an_empty_store_alone(at_stage: Operator, held: Held, redis: Redis) -> None:
    await at_stage.run("backup", "create", "backup")
    before = await redis.hgetall(keys.grant(held.tag))

    said = await at_stage.run("backup", "restore", "backup", "--yes")

    assert (said.status, "the store holds grants" in said.err) == (1, True)
    assert await redis.hgetall(keys.grant(held.tag)) == before


async def test_a_restore_that_was_cut_off_can_be_done_again(at_stage: Operator, held: Held, redis: Redis) -> None:
    await restored(at_stage, redis)
    head = (at_stage.home / "backup").read_bytes()[:400].decode(errors="replace")
    backup_id = head.partition('"id": "')[2][:16]
    await redis.set(keys.RESTORING, backup_id)

    said = await at_stage.run("backup", "restore", "backup", "--yes")

    assert said.status == 0
    assert await redis.exists(keys.RESTORING) == 0


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (("create", "broker.toml"), "is there already"),
        (("create", "nowhere/backup"), "cannot be written"),
        (("verify", "nothing"), "cannot be read"),
        (("restore", "nothing", "--yes"), "cannot be read"),
        (("restore", "nothing"), "--yes"),
        (("restored",), "--yes"),
    ],
)
async def test_what_cannot_be_done_is_said_with_its_fix(
    at_stage: Operator, arguments: tuple[str, ...], fix: str
) -> None:
    said = await at_stage.run("backup", *arguments)

    assert said.status == 78
    assert fix in said.err


async def test_another_tenants_backup_is_refused(at_stage: Operator, held: Held, redis: Redis) -> None:
    await at_stage.run("backup", "create", "backup")
    await redis.flushall()
    config = at_stage.home / "broker.toml"
    config.write_text('tenant = "other"\n' + config.read_text())

    said = await at_stage.run("backup", "restore", "backup", "--yes")

    assert (said.status, "it is of tenant 'default'" in said.err) == (1, True)


async def test_a_restored_store_is_served_by_a_new_broker(
    at_stage: Operator, held: Held, redis: Redis, tmp_path: Path
) -> None:
    await restored(at_stage, redis)

    async with open_broker(
        held.stage.broker.settings,
        redis=redis,
        kek=LocalKeyring([KEY]),
        audit_file=tmp_path / "new.jsonl",
        witness_file=tmp_path / "witness.json",
    ) as broker:
        grant = await broker.grants.read(held.tag)

    assert grant.terms.context.patient is not None
    assert (grant.state, grant.expires_at) == ("uncertain", 0.0)


async def test_a_domain_key_that_was_shredded_since_stays_so(at_stage: Operator, held: Held, redis: Redis) -> None:
    """Neither it nor what is sealed under it comes back; the rest does."""
    assert (await at_stage.run("backup", "create", "backup")).status == 0
    (key,) = [key async for key, _ in DomainRecords(redis).all("default") if key.domain.ehr]
    gone = key.ended(1.0, "shred")
    await redis.flushall()
    await redis.hset(keys.domain(key.slot.hex()), f"key:{key.id.hex()}", gone.encode())

    said = await at_stage.run("backup", "restore", "backup", "--yes")

    assert said.status == 0
    assert re.search(r"^[3-9] records are not: their keys were shredded$", said.out, re.MULTILINE)
    found = [one async for one, _ in DomainRecords(redis).all("default")]
    assert [one for one in found if one.domain.ehr] == [gone]
    assert len(found) == 2
    assert [name async for name in redis.scan_iter(match=keys.ANY_GRANT)] == []
