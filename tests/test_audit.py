import asyncio
import json
import os
import resource
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import cast, get_args

import pytest
from redis.asyncio import Redis

from broker.app.trail import ship_to
from broker.audit import STREAM_KEY, AuditRecord, AuditTrail, Event, Ship
from broker.errors import AuditUnavailable, StoreUnavailable

USED = AuditRecord(event="handle.use", outcome="allowed", app="growth", interaction="read Patient")


class Store:
    """A stream that can be away, or hold back its answer."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.away = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.calls = 0
        self.changed = asyncio.Condition()

    async def ship(self, lines: Sequence[str]) -> None:
        self.calls += 1
        await self.tell()
        await self.answers.wait()
        if self.away:
            raise StoreUnavailable("ConnectionError")
        self.lines += lines
        await self.tell()

    async def tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, reached: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(reached)


@asynccontextmanager
async def opened(file: Path | None, ship: Ship) -> AsyncIterator[AuditTrail]:
    trail = AuditTrail(file=file, ship=ship, clock=lambda: 1_800_000_000.1234567)
    await trail.open()
    try:
        yield trail
    finally:
        await trail.close()


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let the kernel refuse to make any file of this process longer than `size` bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def number(index: int) -> AuditRecord:
    return AuditRecord(event="handle.use", outcome="allowed", generation=index)


def numbers(lines: Sequence[str]) -> list[int]:
    return [json.loads(line)["generation"] for line in lines]


def test_a_record_is_one_line_of_json_in_this_order() -> None:
    record = AuditRecord(
        event="handle.answer",
        outcome="failed",
        app="growth",
        ehr="epic",
        registration="epic-launch",
        grant="ABCdef012345",
        handle="0123abcd",
        interaction="search-type Observation",
        scope="patient/*.rs",
        reason="ehr_unreachable: no\nconnection é",
        status=503,
        generation=3,
        request_id="r-1",
    )

    assert record.line(1_800_000_000.1234567) == (
        '{"v":1,"at":1800000000.123457,"event":"handle.answer","outcome":"failed","app":"growth","ehr":"epic",'
        '"registration":"epic-launch","grant":"ABCdef012345","handle":"0123abcd",'
        '"interaction":"search-type Observation","scope":"patient/*.rs",'
        '"reason":"ehr_unreachable: no\\nconnection \\u00e9","status":503,"generation":3,"request_id":"r-1"}'
    )


def test_absent_fields_are_left_out_and_zero_is_not_absent() -> None:
    record = AuditRecord(event="grant.refresh", outcome="denied", generation=0)

    assert record.line(1.0) == '{"v":1,"at":1.0,"event":"grant.refresh","outcome":"denied","generation":0}'


def test_a_record_has_no_field_beyond_these() -> None:
    """HB-09, blueprint §5.1 and §5.10: a new field has to answer whether it could hold a secret or PHI."""
    assert [field.name for field in fields(AuditRecord)] == [
        "event",
        "outcome",
        "app",
        "ehr",
        "registration",
        "grant",
        "handle",
        "actors",
        "job",
        "interaction",
        "scope",
        "limits",
        "reason",
        "status",
        "generation",
        "request_id",
    ]


def test_events_are_named_object_and_verb() -> None:
    assert all(name.partition(".")[1:][0] == "." and name.islower() for name in get_args(Event))


async def test_a_record_is_in_the_file_before_recording_returns(tmp_path: Path) -> None:
    """Blueprint §5.9."""
    file = tmp_path / "state" / "audit.jsonl"
    store = Store()
    store.answers.clear()
    async with opened(file, store.ship) as trail:
        trail.record(USED)

        assert file.read_text() == USED.line(1_800_000_000.1234567) + "\n"
        store.answers.set()


async def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "state" / "audit.jsonl"
    before = os.umask(0)
    try:
        async with opened(file, Store().ship):
            pass
    finally:
        os.umask(before)

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


async def test_a_restart_appends(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    for index in range(2):
        async with opened(file, Store().ship) as trail:
            trail.record(number(index))

    assert numbers(file.read_text().splitlines()) == [0, 1]


async def test_standard_output_can_be_the_file(capfd: pytest.CaptureFixture[str]) -> None:
    async with opened(None, Store().ship) as trail:
        trail.record(USED)

    assert capfd.readouterr().out == USED.line(1_800_000_000.1234567) + "\n"
    os.fstat(1)  # it was not closed


async def test_a_trail_that_is_not_open_refuses(tmp_path: Path) -> None:
    trail = AuditTrail(file=tmp_path / "audit.jsonl", ship=Store().ship, clock=lambda: 1.0)
    with pytest.raises(AuditUnavailable, match="not open"):
        trail.record(USED)

    async with opened(tmp_path / "audit.jsonl", Store().ship) as closed:
        pass
    with pytest.raises(AuditUnavailable, match="not open"):
        closed.record(USED)


async def test_a_full_disk_refuses() -> None:
    store = Store()
    async with opened(Path("/dev/full"), store.ship) as trail:
        with pytest.raises(AuditUnavailable, match="cannot be written"):
            trail.record(USED)

    assert store.lines == []


async def test_a_disk_that_takes_half_a_record_refuses_and_the_next_record_is_whole(tmp_path: Path) -> None:
    file, store = tmp_path / "audit.jsonl", Store()
    async with opened(file, store.ship) as trail:
        trail.record(number(1))
        with file_size_limit(file.stat().st_size + 10):
            with pytest.raises(AuditUnavailable, match="only part of a record"):
                trail.record(number(2))
            with pytest.raises(AuditUnavailable, match="cannot be written"):
                trail.record(number(3))
        trail.record(number(4))
        trail.record(number(5))

    first, torn, *rest = file.read_text().splitlines()
    assert torn == first[:10]
    assert numbers([first, *rest]) == [1, 4, 5]
    assert numbers(store.lines) == [1, 4, 5]


async def test_a_removed_directory_refuses(tmp_path: Path) -> None:
    file, store = tmp_path / "state" / "audit.jsonl", Store()
    async with opened(file, store.ship) as trail:
        file.unlink()
        file.parent.rmdir()

        with pytest.raises(AuditUnavailable, match="cannot be opened"):
            trail.record(USED)

    assert store.lines == []


async def test_a_removed_file_is_made_again(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    async with opened(file, Store().ship) as trail:
        trail.record(number(1))
        file.unlink()
        trail.record(number(2))
        trail.record(number(3))

        assert numbers(file.read_text().splitlines()) == [2, 3]
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_rotated_file_loses_nothing(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    async with opened(file, Store().ship) as trail:
        trail.record(number(1))
        file.rename(tmp_path / "audit.1")
        trail.record(number(2))

        assert numbers((tmp_path / "audit.1").read_text().splitlines()) == [1, 2]


async def test_a_place_that_cannot_hold_the_file_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file" / "audit.jsonl"):
        with pytest.raises(AuditUnavailable, match=r"cannot be (opened|made) \(errno \d+\)"):
            async with opened(place, Store().ship):
                pass


async def test_records_reach_the_stream_in_order(tmp_path: Path, redis: Redis) -> None:
    async with opened(tmp_path / "audit.jsonl", ship_to(redis)) as trail:
        for index in range(1000):
            trail.record(number(index))
            if index % 100 == 0:
                await asyncio.sleep(0)

    entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", await redis.xrange(STREAM_KEY))
    lines = [entry[b"record"].decode() for _, entry in entries]
    assert numbers(lines) == list(range(1000))
    assert lines == (tmp_path / "audit.jsonl").read_text().splitlines()


async def test_records_wait_while_the_store_is_away_and_follow_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.audit._RETRY_SECONDS", 0.001)
    store = Store()
    store.away = True
    async with opened(tmp_path / "audit.jsonl", store.ship) as trail:
        for index in range(600):
            trail.record(number(index))
        await store.until(lambda: store.calls >= 3)
        assert store.lines == []

        store.away = False
        await store.until(lambda: len(store.lines) == 600)
        trail.record(number(600))
        await store.until(lambda: len(store.lines) == 601)

    assert numbers(store.lines) == list(range(601))


async def test_records_made_while_a_batch_is_under_way_follow_it(tmp_path: Path) -> None:
    store = Store()
    store.answers.clear()
    async with opened(tmp_path / "audit.jsonl", store.ship) as trail:
        trail.record(number(0))
        await store.until(lambda: store.calls > 0)
        for index in range(1, 300):
            trail.record(number(index))
        store.answers.set()
        await store.until(lambda: len(store.lines) == 300)

    assert numbers(store.lines) == list(range(300))


async def test_a_full_backlog_refuses_until_the_store_is_back(tmp_path: Path) -> None:
    """Nothing fails open, and no unbounded memory either."""
    file, store = tmp_path / "audit.jsonl", Store()
    store.answers.clear()
    async with opened(file, store.ship) as trail:
        for index in range(10_000):
            trail.record(number(index))
        size = file.stat().st_size
        with pytest.raises(AuditUnavailable, match="10000 audit records wait for the store"):
            trail.record(number(10_000))
        assert file.stat().st_size == size

        store.answers.set()
        await store.until(lambda: len(store.lines) == 10_000)
        trail.record(number(10_000))

    assert numbers(store.lines) == list(range(10_001))


async def test_closing_while_a_batch_is_under_way_ships_everything_once(tmp_path: Path) -> None:
    store = Store()
    store.answers.clear()
    trail = AuditTrail(file=tmp_path / "audit.jsonl", ship=store.ship, clock=lambda: 1.0)
    await trail.open()
    for index in range(300):
        trail.record(number(index))
    await store.until(lambda: store.calls > 0)

    closing = asyncio.create_task(trail.close())
    await asyncio.sleep(0)
    store.answers.set()
    await closing

    assert numbers(store.lines) == list(range(300))


async def test_closing_does_not_wait_for_a_store_that_is_away(tmp_path: Path) -> None:
    store = Store()
    store.away = True
    file = tmp_path / "audit.jsonl"
    async with opened(file, store.ship) as trail:
        trail.record(USED)

    assert store.lines == []
    assert len(file.read_text().splitlines()) == 1
