"""Whatever an operator rotates, cuts off, backs up, restores and shreds, in whatever order: what was written is read.

Two replicas write and read beside an operator; what one has sealed arrives up to a minute later.
"""

import asyncio
import io
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from broker.app.backups import open_backups
from broker.secret import Secret
from broker.store import keys
from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer
from broker.vault import Domain, LocalKeyring, WrappedKey
from broker.vault.places import SealedRecord
from tests.stage.vault import KEY, UnsteadyKek
from tests.vault.stock import SETTINGS, Stock
from tests.vault.test_kek_rotation import NEWER
from tests.vault.test_rotation import KilledError, dies_at

ARRIVES_SECONDS = 60
EHRS = ("epic", "oracle")
PINS = {keys.pin(f"{ehr}{number}"): ehr for ehr in EHRS for number in range(3)}
Result = TypeVar("Result")


class Turning(UnsteadyKek):
    """A keyring whose other line can be put first."""

    def __init__(self) -> None:
        super().__init__(KEY, NEWER)
        self.keys = [KEY, NEWER]

    def turn(self) -> None:
        self.keys.reverse()
        self.keyring = LocalKeyring(self.keys)

    async def wrap(self, domain: Domain, key: bytes, bound_to: bytes) -> WrappedKey:
        return await self.keyring.wrap(domain, key, bound_to)


@dataclass
class Sealed:
    """What a replica has sealed and not written yet."""

    at: float
    name: str
    text: bytes
    envelope: bytes


@dataclass
class Copy:
    """A backup, and what was readable when it was taken."""

    file: bytes
    texts: dict[str, bytes]
    shredded: frozenset[str] = frozenset()
    """The EHRs that were shredded since, as far as the store still knows."""


class VaultMachine(RuleBasedStateMachine):
    def __init__(self, url: Secret, folder: Path) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.url, self.folder = url, folder
        self.texts: dict[str, bytes] = {}
        self.under_way: list[Sealed] = []
        self.copy = Copy(b"", {})
        self.count = 0

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        self.redis = connect(self.url)
        self.run(self._empty())
        self.kek = Turning()
        self.stock = Stock(self.redis, self.folder, kek=self.kek, meanwhile=self.arrive_in_time)
        self.replicas = [self.stock.replica(), self.stock.replica()]
        for number, name in enumerate(sorted(PINS)):
            self.write(number % 2, name)
        self.back_up()

    async def _empty(self) -> None:
        await self.redis.flushall()

    def teardown(self) -> None:
        self.run(self.redis.aclose())
        self.runner.close()

    async def arrive_in_time(self) -> None:
        """Half a minute has passed: what was sealed before it arrives now."""
        await self.arrive(self.stock.clock() - ARRIVES_SECONDS / 2)

    async def arrive(self, before: float) -> None:
        for one in [one for one in self.under_way if one.at < before]:
            self.under_way.remove(one)
            await self.redis.set(one.name, one.envelope)
            self.texts[one.name] = one.text

    def text(self) -> bytes:
        self.count += 1
        return b"text %d" % self.count

    @rule(replica=st.integers(0, 1), name=st.sampled_from(sorted(PINS)))
    def write(self, replica: int, name: str) -> None:
        text = self.text()

        async def put() -> None:
            await self.stock.put(self.replicas[replica], name, PINS[name], text=text)
            await self.redis.persist(name)

        self.run(put())
        self.texts[name] = text

    @rule(replica=st.integers(0, 1), name=st.sampled_from(sorted(PINS)))
    def seal(self, replica: int, name: str) -> None:
        """Seal now, and write within a minute."""
        text, context = self.text(), SealedRecord(name, "", "pin", b"").context("t")
        envelope = self.run(self.replicas[replica].seal(context, text, ehr=PINS[name]))
        self.under_way.append(Sealed(self.stock.clock(), name, text, envelope))

    @rule(seconds=st.sampled_from([1, 29, 170, 400, 4000]))
    def wait(self, seconds: int) -> None:
        self.run(self.arrive(self.stock.clock() + seconds - ARRIVES_SECONDS))
        self.stock.clock.advance(seconds)

    @rule()
    def rotate(self) -> None:
        self.run(self.rotated())

    @rule(step=st.integers(1, 14), done=st.booleans())
    def rotate_until_killed(self, step: int, *, done: bool) -> None:
        self.killed_at(step, self.rotated(), done=done)

    async def rotated(self) -> None:
        async with self.stock.work() as work:
            await work.rotate(None, lambda _: None)

    @rule(step=st.integers(0, 5), done=st.booleans())
    def rotate_kek(self, step: int, *, done: bool) -> None:
        """Step 0: to its end."""
        self.kek.turn()

        async def work() -> None:
            async with self.stock.work() as work:
                await work.rotate_kek(lambda _: None)

        self.killed_at(step, work(), done=done)

    def killed_at(self, step: int, work: Coroutine[Any, Any, None], *, done: bool) -> None:
        with pytest.MonkeyPatch.context() as patch, suppress(KilledError):
            if step:
                dies_at(step, patch, done=done)
            self.run(work)

    @rule(ehr=st.sampled_from(EHRS), step=st.sampled_from([0, 0, 1, 2, 3, 4, 5, 6]), done=st.booleans())
    def shred(self, ehr: str, step: int, *, done: bool) -> None:
        """Killed or not, it is run to its end; what was under way to this EHR's records is lost with them."""
        if not any(key.domain.ehr == ehr for key in self.run(self.stock.keys())):
            return

        async def work() -> None:
            async with self.stock.work() as work:
                await work.shred(ehr, lambda _: None)

        if step:
            self.killed_at(step, work(), done=done)
        self.run(work())
        self.under_way = [one for one in self.under_way if PINS[one.name] != ehr]
        self.texts = {name: text for name, text in self.texts.items() if PINS[name] != ehr}
        self.copy = replace(self.copy, shredded=self.copy.shredded | {ehr})

    @precondition(lambda self: self.copy.texts != self.texts)
    @rule()
    def back_up_if_something_changed(self) -> None:
        self.back_up()

    def back_up(self) -> None:
        async def work() -> bytes:
            file = io.BytesIO()
            async with open_backups(
                SETTINGS, redis=self.redis, kek=self.kek, audit_file=self.folder / "b", clock=self.stock.clock
            ) as backups:
                await backups.back_up(file)
            return file.getvalue()

        self.copy = Copy(self.run(work()), dict(self.texts))

    @rule(with_keys=st.sampled_from([False, False, True]))
    def lose_and_restore(self, *, with_keys: bool) -> None:
        """Everything is lost, or all but the domain keys; brokers are stopped meanwhile."""
        copy = self.copy

        async def work() -> None:
            async for name in self.redis.scan_iter(match="sb:*"):
                if with_keys or not name.startswith(b"sb:domain:"):
                    await self.redis.delete(name)
            async with open_backups(
                SETTINGS, redis=self.redis, kek=self.kek, audit_file=self.folder / "b", clock=self.stock.clock
            ) as backups:
                await backups.restore(io.BytesIO(copy.file))

        self.run(work())
        self.under_way, self.replicas = [], [self.stock.replica(), self.stock.replica()]
        shredded = frozenset[str]() if with_keys else copy.shredded
        self.texts = {name: text for name, text in copy.texts.items() if PINS[name] not in shredded}
        self.copy = replace(copy, shredded=shredded)

    @invariant()
    def all_that_was_written_is_read_by_everybody(self) -> None:
        async def look() -> None:
            for replica in self.replicas:
                for name, text in self.texts.items():
                    assert await self.stock.read(replica, name) == {text}
            assert await self.redis.exists(*PINS) == len(self.texts)

        if hasattr(self, "replicas"):
            self.run(look())

    @invariant()
    def each_domain_has_one_key_that_seals_or_none(self) -> None:
        if hasattr(self, "stock"):
            sealing = [str(key.domain) for key in self.run(self.stock.keys()) if key.state == "active"]
            assert len(sealing) == len(set(sealing)), sealing


def test_what_was_written_is_read_whatever_an_operator_does_to_the_keys(valkey: EmbeddedServer, tmp_path: Path) -> None:
    run_state_machine_as_test(
        lambda: VaultMachine(valkey.url(), tmp_path),  # type: ignore[arg-type]  # what makes one will do
        settings=settings(max_examples=20, stateful_step_count=8, derandomize=True, database=None),
    )
