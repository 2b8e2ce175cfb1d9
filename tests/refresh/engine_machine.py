"""Two replicas, one grant, and whatever can go wrong between them, in any order (RF-03, RF-04, RF-05, RF-15)."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck
from hypothesis import seed as hypothesis_seed
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from broker.refresh import insisting, renewal
from broker.secret import Secret
from broker.settings import Settings
from broker.store import pool
from broker.store.connection import connect
from tests.refresh.model_ehr import Fate, Kind
from tests.refresh.replicas import Point, Replica, When
from tests.refresh.world import World, open_world, settings_of

FATES: tuple[Fate, ...] = ("ok", "ok", "ok", "503", "429", "dropped", "lost", "late", "garbled", "ended")
WHENS: tuple[When, ...] = ("before", "after")
COMMON_FATES: tuple[Fate, ...] = ("ok", "ok", "ok", "lost", "dropped", "503")
KINDS: tuple[Kind, ...] = ("strict", "grace", "reusable", "telling")
TIMES: tuple[float | str, ...] = ("renew_at", "expires_at", 0.0, 1.0, 6.0, 16.0, 31.0, 61.0, 121.0)
MESSAGES = (
    "claim_refresh",
    "intend_refresh",
    "EHR token",
    "commit_grant",
    "release_refresh",
    "end_grant",
    "EHR introspect",
)
POINTS: tuple[Point | None, ...] = (None, *((name, when) for name in MESSAGES for when in WHENS))
WORST_POINTS: tuple[Point, ...] = (
    ("claim_refresh", "before"),
    ("claim_refresh", "after"),
    ("intend_refresh", "after"),
    ("EHR token", "after"),
    ("commit_grant", "before"),
    ("end_grant", "before"),
    ("release_refresh", "before"),
)
"""Where standing still is felt."""
FIRST = st.sampled_from([0, 1])


class Engine(RuleBasedStateMachine):
    """Messages go on one by one, or all of them; whoever is let go on by nobody is paused."""

    url: ClassVar[Secret]
    settings: ClassVar[Settings]
    folder: ClassVar[Path]
    world: World

    @initialize(kind=st.sampled_from(KINDS))
    def begin(self, kind: Kind) -> None:
        self.runner, self.exits = asyncio.Runner(), AsyncExitStack()
        self.wait(self._begin(kind))

    async def _begin(self, kind: Kind) -> None:
        redis = await self.exits.enter_async_context(connect(self.url))
        self.world = await self.exits.enter_async_context(open_world(self.settings, redis, self.folder, kind))

    def wait(self, work: Any) -> Any:
        return self.runner.get_loop().run_until_complete(work)

    async def _start(self, replica: Replica, work: Any) -> None:
        replica.start(work)
        await self.world.settle()

    @rule(who=FIRST, at=st.sampled_from(TIMES), fate=st.sampled_from(FATES), pauses_at=st.sampled_from(POINTS))
    def an_app_calls(self, who: int, at: float | str, fate: Fate, pauses_at: Point | None) -> None:
        self.wait(self._call(who, at, fate, pauses_at))

    async def _call(self, who: int, at: float | str, fate: Fate, pauses_at: Point | None) -> None:
        world, replica = self.world, self.world.replicas[who]
        seconds = getattr(await world.grant(), at) - world.now if isinstance(at, str) else at
        await world.pass_time(max(0.0, seconds))
        world.ehr.fates[:] = [fate] if fate != "ok" else []
        replica.pauses_at = pauses_at or replica.pauses_at
        replica.start(replica.serve())
        await world.run()

    @rule(
        who=FIRST,
        fate=st.sampled_from(COMMON_FATES),
        pauses_at=st.sampled_from(WORST_POINTS),
        seconds=st.sampled_from([61.0, 61.0, 301.0, 1.0]),
        forgets=st.sampled_from([False, False, True]),
    )
    def a_replica_stands_still(
        self, *, who: int, fate: Fate, pauses_at: Point | None, seconds: float, forgets: bool
    ) -> None:
        self.wait(self._call(who, "renew_at", fate, pauses_at))
        if forgets:
            self.wait(self.world.forget())
        self.wait(self._call(1 - who, seconds, "ok", None))
        self.a_replica_goes_on(who)

    @rule(who=FIRST)
    def a_replica_goes_on(self, who: int) -> None:
        self.world.replicas[who].pauses_at = None
        self.wait(self.world.run())

    @rule(who=FIRST, pauses_at=st.sampled_from(POINTS))
    def a_keeper_looks(self, who: int, pauses_at: Point | None) -> None:
        replica = self.world.replicas[who]
        replica.pauses_at = pauses_at or replica.pauses_at
        self.wait(self._start(replica, replica.keep()))

    @rule(who=FIRST)
    def an_app_begins_to_call(self, who: int) -> None:
        replica = self.world.replicas[who]
        self.wait(self._start(replica, replica.serve()))

    @precondition(lambda self: self.world.ready)
    @rule(which=st.integers(0, 7))
    def one_message_goes_on(self, which: int) -> None:
        ready = self.world.ready
        self.wait(self.world.go_on(ready[which % len(ready)]))

    @precondition(lambda self: self.world.ready)
    @rule()
    def everything_goes_on(self) -> None:
        self.wait(self.world.run())

    @precondition(lambda self: any(step.is_to_store for step in self.world.waiting))
    @rule(which=st.integers(0, 7))
    def the_store_does_not_answer(self, which: int) -> None:
        steps = [step for step in self.world.waiting if step.is_to_store]
        self.wait(self.world.go_on(steps[which % len(steps)], well=False))

    @rule(seconds=st.sampled_from([1, 6, 16, 31, 61, 121]))
    def time_passes(self, seconds: int) -> None:
        self.wait(self.world.pass_time(seconds))

    @rule(who=FIRST)
    def a_replica_dies(self, who: int) -> None:
        self.world.kill(self.world.replicas[who])
        self.wait(self.world.join(f"{'AB'[who]}'"))
        self.world.replicas.insert(who, self.world.replicas.pop())

    @precondition(lambda self: len(self.world.replicas) == 2)
    @rule()
    def an_operator_insists(self) -> None:
        operator = self.wait(self.world.join("operator", is_operator=True))
        self.wait(self._start(operator, operator.insist()))

    @precondition(lambda self: len(self.world.replicas) == 2)
    @rule()
    def an_operator_revokes(self) -> None:
        operator = self.wait(self.world.join("revoking"))
        self.wait(self._start(operator, operator.revoke()))

    @rule()
    def the_store_forgets_its_last_write(self) -> None:
        self.wait(self.world.forget())

    @invariant()
    def nothing_is_lost(self) -> None:
        self.wait(self.world.check())

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            if not self.world.broken:
                self.wait(self.world.end())
        finally:
            self.wait(self.exits.aclose())
            self.runner.close()


@contextmanager
def by_the_worlds_time() -> Iterator[None]:
    """Whoever waits for another is let go on by whoever moves the world, and a busy machine decides nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renewal, "_POLL_SECONDS", 0.0)
        patch.setattr(insisting, "_AGAIN_SECONDS", 0.0)
        for limit in ("WAIT_SECONDS", "CONNECT_SECONDS", "ANSWER_SECONDS"):
            patch.setattr(pool, limit, 30.0)
        yield


def explore(url: Secret, folder: Path, *, examples: int, steps: int, seed: int | None = None) -> None:
    """Look for an order of things that breaks a rule: the same ones each time, or by `seed`."""
    machine: Any = type("Engine", (Engine,), {"url": url, "settings": settings_of(folder), "folder": folder})
    if seed is not None:
        machine = hypothesis_seed(seed)(machine)
    with by_the_worlds_time():
        known = hypothesis_settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=seed is None,
            database=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        )
        run_state_machine_as_test(machine, settings=known)
