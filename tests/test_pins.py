"""Pins in the store: shared, sealed, written once by whoever is first."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from broker.audit import AuditTrail
from broker.credentials import KeyedHash
from broker.ehr.endpoints import Endpoints
from broker.ehr.pin import Pin
from broker.ehr.site import Site
from broker.errors import AuditUnavailable, InvalidRequest, NotFound, SealBroken
from broker.pins import Pins
from broker.vault import RecordContext
from tests.ehr.known import site
from tests.stage.vault import a_vault

HERE = site("https://ehr.example/r4")
FOUND = Endpoints("https://auth.example/token", issuer="https://auth.example")
MOVED = replace(FOUND, token_endpoint="https://evil.example/token")


class Office:
    """One replica's pins and what it wrote down."""

    def __init__(self, redis: Redis, folder: Path, *, tenant: str = "default", name: str = "one") -> None:
        self.file = folder / f"audit-{name}"
        self.audit = AuditTrail(file=self.file, ship=self._ship, clock=lambda: 0.0)
        vault = a_vault(redis, tenant=tenant, report_broken=self._report)
        self.broken: list[str] = []
        self.now = 1000.0
        self.pins = Pins(redis, vault, KeyedHash(bytes(32)), self.audit, lambda: self.now, tenant)

    async def _ship(self, lines: object) -> None: ...

    def _report(self, context: RecordContext, _detail: str) -> None:
        self.broken.append(context.kind)

    def told(self) -> list[tuple[str, str, str]]:
        records = map(json.loads, self.file.read_text().splitlines())
        return [(record["event"], record["outcome"], record["reason"]) for record in records]


@pytest.fixture
async def office(redis: Redis, tmp_path: Path) -> Office:
    office = Office(redis, tmp_path)
    await office.audit.open()
    return office


@pytest.fixture
async def branch(redis: Redis, tmp_path: Path) -> Office:
    branch = Office(redis, tmp_path, name="two")
    await branch.audit.open()
    return branch


async def pin_keys(redis: Redis) -> set[bytes]:
    return {key async for key in redis.scan_iter("sb:pin:*")}


async def test_an_ehr_that_was_never_discovered_has_no_pin(office: Office) -> None:
    assert await office.pins.read(HERE) is None


async def test_what_is_found_first_is_pinned_for_all_replicas_and_written_down(office: Office, branch: Office) -> None:
    """The hosts of the first document are told, like or unlike each other (DS-15)."""
    found = replace(FOUND, authorization_endpoint="https://login.example/authorize")
    await office.pins.settle(HERE, found)

    pin = await branch.pins.read(HERE)

    assert pin is not None
    assert (pin.endpoints, pin.answered_at, pin.moves) == (found, 1000.0, ())
    assert office.told() == [("ehr.pinned", "allowed", "first seen: auth.example, login.example")]


async def test_a_move_is_quarantined_and_told_once(office: Office, branch: Office) -> None:
    """(DS-15)"""
    await office.pins.settle(HERE, FOUND)

    for replica in (office, branch, office):
        assert (await replica.pins.settle(HERE, MOVED)).endpoints == FOUND

    told = ("ehr.quarantined", "denied", "token_endpoint: auth.example -> evil.example")
    assert office.told()[1:] == [told]
    assert branch.told() == []


async def test_another_move_is_told_again(office: Office) -> None:
    await office.pins.settle(HERE, FOUND)
    await office.pins.settle(HERE, MOVED)

    await office.pins.settle(HERE, replace(MOVED, issuer="https://evil.example"))

    assert [event for event, *_ in office.told()] == ["ehr.pinned", "ehr.quarantined", "ehr.quarantined"]


async def test_an_approval_holds_on_every_replica_at_once(office: Office, branch: Office) -> None:
    await office.pins.settle(HERE, FOUND)
    await branch.pins.settle(HERE, MOVED)

    (move,) = await office.pins.approve(HERE)

    assert (move.member, move.found) == ("token_endpoint", "https://evil.example")
    pin = await branch.pins.read(HERE)
    assert pin is not None
    assert (pin.endpoints, pin.moves) == (MOVED, ())
    assert office.told()[-1] == (
        "ehr.approved",
        "allowed",
        "token_endpoint: auth.example -> evil.example",
    )


async def test_nothing_is_approved_where_nothing_is_quarantined(office: Office) -> None:
    with pytest.raises(NotFound):
        await office.pins.approve(HERE)
    await office.pins.settle(HERE, FOUND)
    with pytest.raises(NotFound):
        await office.pins.approve(HERE)

    assert [event for event, *_ in office.told()] == ["ehr.pinned"]


async def test_what_came_into_quarantine_while_another_host_was_approved_is_not_approved_with_it(
    office: Office, branch: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DS-15: an operator's word is for the hosts that it was said of."""
    await office.pins.settle(HERE, FOUND)
    await office.pins.settle(HERE, MOVED)
    write = Pins._write

    async def too_late(self: Pins, site: Site, read: bytes, pin: Pin) -> bool:
        monkeypatch.setattr(Pins, "_write", write)
        await branch.pins.settle(HERE, replace(MOVED, token_endpoint="https://worse.example/token"))
        return await write(self, site, read, pin)

    monkeypatch.setattr(Pins, "_write", too_late)
    with pytest.raises(InvalidRequest):
        await office.pins.approve(HERE)

    pin = await office.pins.read(HERE)
    assert pin is not None
    assert pin.endpoints == FOUND
    assert [move.found for move in pin.moves] == ["https://worse.example"]
    assert office.told()[-1] == ("ehr.approved", "failed", "something else is quarantined since")


async def test_an_approval_that_comes_second_is_tried_again_where_the_same_is_quarantined(
    office: Office, branch: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    await office.pins.settle(HERE, FOUND)
    await office.pins.settle(HERE, MOVED)
    write = Pins._write

    async def too_late(self: Pins, site: Site, read: bytes, pin: Pin) -> bool:
        monkeypatch.setattr(Pins, "_write", write)
        branch.now += 10
        await branch.pins.settle(HERE, MOVED)
        return await write(self, site, read, pin)

    monkeypatch.setattr(Pins, "_write", too_late)

    assert len(await office.pins.approve(HERE)) == 1
    assert [event for event, *_ in office.told()].count("ehr.approved") == 1


async def test_replicas_that_discover_at_once_agree(redis: Redis, tmp_path: Path) -> None:
    """Whoever writes first pins, and the others judge by that (DS-15)."""
    offices = [Office(redis, tmp_path, name=str(number)) for number in range(4)]
    for office in offices:
        await office.audit.open()
    found = [replace(FOUND, token_endpoint=f"https://auth{number}.example/token") for number in range(4)]

    settled = await asyncio.gather(*(office.pins.settle(HERE, one) for office, one in zip(offices, found, strict=True)))

    assert len({pin.endpoints.token_endpoint for pin in settled}) == 1


async def test_an_approval_is_not_undone_by_a_replica_that_read_before_it(office: Office, branch: Office) -> None:
    await office.pins.settle(HERE, FOUND)
    await office.pins.settle(HERE, MOVED)
    sealed, before = await branch.pins._read(HERE)
    assert before is not None
    await office.pins.approve(HERE)

    assert await branch.pins._write(HERE, sealed, before) is False

    pin = await office.pins.read(HERE)
    assert pin is not None
    assert pin.endpoints == MOVED


async def test_each_client_has_a_pin_of_its_own_where_the_ehr_answers_it_differently(office: Office) -> None:
    """(EP-08)"""
    one, two = (site("https://ehr.example/r4", vendor="epic", client_id=client) for client in ("one", "two"))
    await office.pins.settle(one, FOUND)

    assert (await office.pins.settle(two, MOVED)).moves == ()


async def test_two_fhir_bases_of_one_issuer_have_endpoints_of_their_own(office: Office) -> None:
    """Oracle's patients and clinicians are at different hosts with the same issuer (OR-01)."""
    await office.pins.settle(site("https://patient.example/r4"), FOUND)

    assert (await office.pins.settle(site("https://provider.example/r4"), MOVED)).moves == ()


async def test_whoever_can_write_to_the_store_cannot_plant_a_host(office: Office, redis: Redis) -> None:
    """Another EHR's record, another tenant's, a damaged one: none opens here (DS-15)."""
    await office.pins.settle(HERE, FOUND)
    (key,) = await pin_keys(redis)
    other = site("https://evil.example/r4")
    await office.pins.settle(other, MOVED)
    (planted,) = await pin_keys(redis) - {key}
    sealed = bytes(await redis.get(planted))  # type: ignore[arg-type]  # redis-py's types cover both kinds of client
    assert b"evil" not in sealed

    for record in (sealed, sealed[:-1], b"", json.dumps({"endpoints": {}}).encode()):
        await redis.set(key, record)
        with pytest.raises(SealBroken):
            await office.pins.settle(HERE, MOVED)

    assert office.broken == ["pin"] * 4


async def test_a_pin_has_no_end(office: Office, redis: Redis) -> None:
    """One that expired would let another host in (DS-15)."""
    await office.pins.settle(HERE, FOUND)
    await office.pins.settle(HERE, FOUND)

    (key,) = await pin_keys(redis)
    assert await redis.ttl(key) == -1


async def test_what_cannot_be_written_down_is_not_pinned(office: Office, redis: Redis) -> None:
    await office.audit.close()

    with pytest.raises(AuditUnavailable):
        await office.pins.settle(HERE, FOUND)

    assert await pin_keys(redis) == set()


async def test_overrides_are_written_down_once(office: Office) -> None:
    """(OR-02)"""
    here = site("https://ehr.example/r4", token_endpoint="https://own.example:8443/token")

    for _ in range(2):
        await office.pins.settle(here, FOUND)

    overridden = [record for record in office.told() if record[0] == "ehr.overridden"]
    assert overridden == [("ehr.overridden", "allowed", "by broker.toml: token_endpoint: own.example:8443")]
