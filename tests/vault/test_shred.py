"""What is sealed for an EHR or a tenant becomes unreadable for good, also in a backup, and a certificate says so."""

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from joserfc.jws import extract_compact
from redis.asyncio import Redis

from broker.app.backups import Backups, open_backups
from broker.audit import AuditTrail
from broker.clock import system_clock
from broker.errors import KeyUnavailable, NotFound
from broker.flows.rotate_domain_keys import WRITERS_SECONDS
from broker.flows.shred import Shredded
from broker.keys.identity import IdentityKey
from broker.kms.transit import TransitKeys
from broker.store import keys
from broker.store.connection import connect
from broker.vault import Domain, DomainRecords, KeyEncryptionKeys, LocalKeyring
from broker.vault.keyring import kek_name
from tests.kms.openbao import OpenBao
from tests.stage.vault import KEY, UnsteadyKek, a_vault
from tests.topology import Cluster
from tests.topology.conftest import cluster, cluster_of_module  # noqa: F401  # fixtures
from tests.vault.stock import SETTINGS, TEXT, Stock
from tests.vault.test_kek_rotation import NEWER
from tests.vault.test_rotation import KilledError, all_is_readable, dies_at

EPIC = Domain("t", "epic")
KINDS = ("grant", "handle", "refresh", "code", "pin", "key")


@pytest.fixture
async def stock(redis: Redis, tmp_path: Path) -> Stock:
    return Stock(redis, tmp_path)


async def fill(stock: Stock) -> tuple[list[str], list[str]]:
    """Write records of Epic's, and of others."""
    epics = await stock.fill("epic", range(3))
    return epics, [*await stock.fill("oracle", [7]), *await stock.fill("", [8])]


async def shred(stock: Stock, ehr: str = "epic") -> tuple[Shredded, dict[str, Any]]:
    """Return what was done, and what the certificate says once its signature is checked."""
    async with stock.work() as work:
        done, certificate = await work.shred(ehr, stock.told.append)
    header = extract_compact(certificate.encode()).headers()
    assert (header["typ"], header["alg"]) == ("shred-certificate+jwt", "RS256")
    unverified = json.loads(extract_compact(certificate.encode()).payload or b"")
    key = RSAKey.import_key(unverified["signed_by"])
    assert (key.is_private, key.thumbprint()) == (False, header["kid"])
    return done, dict(jwt.decode(certificate, key, algorithms=["RS256"]).claims)


async def public_key(stock: Stock) -> Any:
    identity = IdentityKey(stock.redis, a_vault(stock.redis, stock.kek, clock=stock.clock), tenant="t")
    return (await identity.public_jwks())["keys"][0]


@asynccontextmanager
async def backups_of(stock: Stock) -> AsyncIterator[Backups]:
    async with open_backups(
        SETTINGS, redis=stock.redis, kek=stock.kek, audit_file=stock.folder / "b.jsonl", clock=stock.clock
    ) as backups:
        yield backups


async def unreadable(stock: Stock) -> int:
    async with stock.work() as work:
        return (await work.verify(lambda *_: None)).unreadable.total()


async def test_an_ehrs_records_are_gone_and_no_others(stock: Stock) -> None:
    epics, others = await fill(stock)
    index = keys.handles("tag000000001")
    await stock.redis.zadd(index, {"f:handle:h": 1})

    done, _ = await shred(stock)

    assert await stock.redis.exists(*epics, index) == 0
    await all_is_readable(stock, others)
    assert await stock.states() == {"t/epic gone": 1, "t/oracle active": 1, "t/ active": 1}
    assert done.deleted == {**dict.fromkeys(KINDS, 3), "launch": 6}
    assert stock.slept == [pytest.approx(WRITERS_SECONDS, abs=5)]


async def test_the_certificate_says_what_was_done_and_is_signed_by_the_brokers_published_key(stock: Stock) -> None:
    await fill(stock)
    key = await DomainRecords(stock.redis).active(EPIC)
    assert key is not None
    published = await public_key(stock)
    began = stock.clock()

    async with stock.work() as work:
        _, certificate = await work.shred("epic", stock.told.append)

    claims = jwt.decode(certificate, RSAKey.import_key(published), algorithms=["RS256"]).claims
    assert began + 290 < claims.pop("iat") <= stock.clock()
    assert [began, began] == [
        pytest.approx(claims.pop("began_at"), abs=2),
        pytest.approx(claims["keys"][0]["gone"], abs=2),
    ]
    assert claims == {
        "iss": "https://broker.example",
        "tenant": "t",
        "ehr": "epic",
        "keys": [{"key": key.id.hex(), "ehr": "epic", "made": int(key.created_at), "gone": claims["keys"][0]["gone"]}],
        "keks_destroyed": [],
        "keks_left": [kek_name(KEY)],
        "records_deleted": {**dict.fromkeys(KINDS, 3), "launch": 6},
        "records_left": 0,
        "signed_by": published,
    }


async def test_a_tenant_is_shredded_with_its_signing_key_and_the_certificate_still_verifies(stock: Stock) -> None:
    epics, others = await fill(stock)
    published = await public_key(stock)

    done, claims = await shred(stock, "")

    assert (claims["ehr"], len(claims["keys"])) == (None, 3)
    assert await stock.redis.exists(*epics, *others, keys.sealed_key("id_token")) == 0
    assert {key.state for key in await stock.keys()} == {"gone"}
    assert done.deleted["key"] == 6
    assert published["kty"] == "RSA"


async def test_it_is_in_the_audit_trail_before_it_happens(stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    epics, _ = await fill(stock)
    record = AuditTrail.record

    def refuse(self: AuditTrail, what: Any) -> None:
        if what.event == "domain_key.shredded":
            raise KeyUnavailable("no audit")
        record(self, what)

    with monkeypatch.context() as patch:
        patch.setattr(AuditTrail, "record", refuse)
        with pytest.raises(KeyUnavailable):
            await shred(stock)
    await all_is_readable(stock, epics)

    await shred(stock)
    lines = [json.loads(line) for line in (stock.folder / "audit.jsonl").read_text().splitlines()]
    assert [(line["event"], line["ehr"]) for line in lines] == [("domain_key.shredded", "epic")]


async def test_nothing_is_shredded_without_a_key_to_sign_with(redis: Redis, tmp_path: Path) -> None:
    stock = Stock(redis, tmp_path, kek=(kek := UnsteadyKek()))
    epics, _ = await fill(stock)
    kek.down()

    with pytest.raises(KeyUnavailable):
        await shred(stock)

    kek.recover()
    await all_is_readable(stock, epics)


async def test_an_ehr_of_which_nothing_is_sealed_is_not_shredded(stock: Stock) -> None:
    await fill(stock)

    with pytest.raises(NotFound, match="t/elsewhere"):
        await shred(stock, "elsewhere")


async def test_running_replicas_have_the_key_no_longer_than_three_minutes(stock: Stock) -> None:
    """What they write meanwhile is deleted, too."""
    await fill(stock)
    replica, late = stock.replica(), keys.pin("late")
    await stock.put(replica, late, "epic")
    sealed = await stock.redis.get(late)

    async def write_what_was_sealed_before() -> None:
        if stock.clock() < began + 240:
            assert isinstance(sealed, bytes)
            await stock.redis.set(late, sealed)

    began, stock.meanwhile = stock.clock(), write_what_was_sealed_before
    await shred(stock)

    assert await stock.redis.exists(late) == 0
    assert isinstance(sealed, bytes)
    await stock.redis.set(late, sealed)
    with pytest.raises(KeyUnavailable, match="is gone"):
        await stock.read(replica, late)


async def test_an_ehr_that_is_used_on_begins_anew_under_a_new_key(stock: Stock) -> None:
    await fill(stock)
    await shred(stock)

    names = await stock.fill("epic", [50])

    await all_is_readable(stock, names)
    assert (await stock.states())["t/epic active"] == 1


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("ehr", ["epic", ""])
async def test_a_shred_that_is_killed_at_any_step_goes_on_when_it_is_run_again(
    stock: Stock, ehr: str, *, done: bool
) -> None:
    step, was_killed = 0, True
    while was_killed:
        step += 1
        await stock.redis.flushall()
        names = [keys.pin("one"), keys.grant("tag")]
        for name in names:
            await stock.put(stock.replica(), name, "epic")
        await public_key(stock)
        with pytest.MonkeyPatch.context() as patch:
            taken = dies_at(step, patch, done=done)
            with suppress(KilledError):
                await shred(stock, ehr)
            was_killed = taken() >= step

        _, claims = await shred(stock, ehr)

        assert claims["records_left"] == 0
        assert await stock.redis.exists(*names) == 0
        assert (await stock.states())["t/epic active"] == 0
        assert claims["ehr"] == (ehr or None)
    assert step > 4


async def test_a_backup_from_before_does_not_bring_it_back(stock: Stock) -> None:
    epics, others = await fill(stock)
    file = io.BytesIO()
    async with backups_of(stock) as backups:
        await backups.back_up(file)
        await shred(stock)
        await _delete_grants(stock)

        file.seek(0)
        counted = await backups.restore(file)

    assert counted["shredded"] == 12  # three grants, three refresh handles, three pins, three keys
    assert await stock.redis.exists(*epics) == 0
    kept = [name for name in others if name.endswith(":grant")]
    assert [name for name in kept if await stock.redis.exists(name)] == kept
    assert await unreadable(stock) == 0


async def test_a_backup_from_before_a_rotation_does_not_bring_it_back_either(stock: Stock) -> None:
    """The backup has a key that was rotated away, and then shredded with the others."""
    await fill(stock)
    file = io.BytesIO()
    async with backups_of(stock) as backups:
        await backups.back_up(file)
        async with stock.work() as work:
            await work.rotate([EPIC], stock.told.append)
        await shred(stock)
        await _delete_grants(stock)

        file.seek(0)
        counted = await backups.restore(file)

    assert counted["shredded"] == 12
    assert await stock.states() == {"t/epic gone": 2, "t/oracle active": 1, "t/ active": 1}


async def test_a_backup_from_before_a_rotation_alone_is_readable(stock: Stock) -> None:
    epics, _ = await fill(stock)
    file = io.BytesIO()
    async with backups_of(stock) as backups:
        await backups.back_up(file)
        async with stock.work() as work:
            await work.rotate(None, stock.told.append)
        await _delete_grants(stock)

        file.seek(0)
        await backups.restore(file)

    pins = [name for name in epics if ":pin:" in name]
    await all_is_readable(stock, pins)
    assert await unreadable(stock) == 0
    async with stock.work() as work:
        (rotated,) = await work.rotate([EPIC], stock.told.append)
    assert (rotated.is_complete, rotated.moved > 0) == (True, True)
    await all_is_readable(stock, pins)


@pytest.mark.parametrize("moment", ["first", "last"])
async def test_a_backup_that_is_taken_while_keys_are_rotated_is_readable(stock: Stock, moment: str) -> None:
    """Its records are under the one key or the other, whatever is read when."""
    await fill(stock)
    file = io.BytesIO()
    taken: list[bool] = []

    async def back_up() -> None:
        if not taken:
            taken.append(True)
            async with backups_of(stock) as backups:
                await backups.back_up(file)

    async with stock.work() as work:
        if moment == "first":
            stock.meanwhile = back_up
        else:
            await work.rotate([EPIC], stock.told.append)
            await back_up()
        await work.rotate([EPIC], stock.told.append)
    await stock.redis.flushall()
    stock.meanwhile = None

    async with backups_of(stock) as backups:
        file.seek(0)
        await backups.restore(file)
    assert await unreadable(stock) == 0


async def _delete_grants(stock: Stock) -> None:
    """As a lost store is: nothing of a grant, but the domain keys are there."""
    async for name in stock.redis.scan_iter(match="sb:*"):
        if not name.startswith(b"sb:domain:"):
            await stock.redis.delete(name)


async def test_a_copy_of_the_store_with_the_keyring_of_then_is_what_a_shred_cannot_reach(stock: Stock) -> None:
    """So the lines that have to leave are named; once they have left, the copy does not open."""
    epics, _ = await fill(stock)
    copy = {name: await _dumped(stock.redis, name) async for name in stock.redis.scan_iter(match="sb:*")}
    done, claims = await shred(replace(stock, kek=LocalKeyring([NEWER, KEY])))
    assert (done.keks_left, claims["keks_left"], done.others) == ([kek_name(KEY)],) * 2 + (2,)
    async with replace(stock, kek=LocalKeyring([NEWER, KEY])).work() as work:
        await work.rotate_kek(stock.told.append)

    await stock.redis.flushall()
    for name, value in copy.items():
        await (stock.redis.set(name, value) if isinstance(value, bytes) else stock.redis.hset(name, mapping=value))

    await all_is_readable(stock, epics)
    with pytest.raises(KeyUnavailable, match="is not on the keyring"):
        await all_is_readable(replace(stock, kek=LocalKeyring([NEWER])), epics)


async def _dumped(redis: Redis, name: bytes) -> Any:
    return await redis.get(name) if await redis.type(name) == b"string" else await redis.hgetall(name)


async def test_with_a_kms_a_copy_of_the_store_does_not_open_either(
    redis: Redis, tmp_path: Path, openbao: OpenBao
) -> None:
    """A real OpenBao: the EHR's own key is deleted there, and no other one."""
    kek: KeyEncryptionKeys = TransitKeys(openbao.server(), "broker", system_clock)
    stock = Stock(redis, tmp_path, kek=kek)
    try:
        epics, others = await fill(stock)
        copy = {name: await _dumped(redis, name) async for name in redis.scan_iter(match="sb:*")}

        done, claims = await shred(stock)

        assert [one["kek"] for one in claims["keks_destroyed"]] == [one.kek for one in done.destroyed]
        assert (len(done.destroyed), done.keks_left) == (1, [])
        await redis.flushall()
        for name, value in copy.items():
            await (redis.set(name, value) if isinstance(value, bytes) else redis.hset(name, mapping=value))
        await all_is_readable(stock, others)
        for name in epics:
            with pytest.raises(KeyUnavailable):
                await stock.read(stock.replica(), name)
    finally:
        await kek.close()


async def test_on_a_cluster_the_records_of_every_node_are_deleted(cluster: Cluster, tmp_path: Path) -> None:  # noqa: F811  # the fixture
    async with connect(cluster.url()) as redis:
        stock = Stock(redis, tmp_path)
        epics, others = await stock.fill("epic", range(12)), await stock.fill("oracle", [20])
        for number in range(12):
            await redis.zadd(keys.handles(f"tag{number:09}"), {"f:handle:h": 1})

        done, claims = await shred(stock)

        left = {name.decode() async for name in redis.scan_iter(match="sb:*")}
        assert left & set(epics) == set()
        assert not [name for name in left if name.endswith(":handles")]
        assert (done.deleted["grant"], claims["records_left"]) == (12, 0)
        await all_is_readable(stock, others)


async def test_no_text_of_what_was_shredded_is_left(stock: Stock) -> None:
    """Also not in what is told, nor in the certificate."""
    await fill(stock)

    _, claims = await shred(stock)

    said = json.dumps(claims) + " ".join(stock.told) + (stock.folder / "audit.jsonl").read_text()
    assert TEXT.decode() not in said
