"""The two scripts of the gate do, step by step, what a small model in plain Python does."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from broker.refresh import gate
from broker.refresh.limits import Lane, Limits
from broker.store import keys
from broker.store.embedded import EmbeddedServer
from broker.store.scripts import script
from tests.refresh.test_limits import ehr

BEGAN = 1_000_000.0
LEASE = 20.0
EHR = ehr(
    token_concurrency=4,
    token_requests_per_minute=20,
    token_failures=3,
    token_longest_pause=90.0,
)
KEYS = [keys.gate(EHR.id), keys.gate_slots(EHR.id)]

Step = tuple[Any, ...]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([0.25, 1.0, 4.0, 5.0, 10.0, 21.0, 61.0, 121.0])),
        st.tuples(st.just("enter"), st.sampled_from(["interactive", "launch", "background"])),
        st.tuples(
            st.just("leave"),
            st.integers(0, 9),
            st.sampled_from(["answered", "failed", "failed", "neither"]),
            st.sampled_from([0.0, 0.0, 0.0, 7.5]),
        ),
    ),
    max_size=60,
)


@dataclass
class Model:
    """The gate, as one would explain it."""

    now: float = BEGAN
    slots: dict[str, float] = field(default_factory=dict)
    owed: float = 0.0
    """Up to when what was sent is paid for, at one request a gap."""
    paused: float = 0.0
    breaks: int = 0
    broken: float = 0.0
    prober: str | None = None
    probed: float = 0.0
    wanted: float = 0.0
    failures: list[float] = field(default_factory=list)

    def enter(self, name: str, lane: Lane) -> tuple[str, float]:
        limits, now = Limits.of(EHR, lane), self.now
        if now < self.paused:
            return "paused", self.paused - now
        if self.breaks and now < self.broken:
            return "broken", self.broken - now
        if self.breaks and self.prober and now < self.probed:
            return "probed", min(0.25, self.probed - now)
        self.slots = {owner: end for owner, end in self.slots.items() if end > now}
        backlog = max(self.owed - now, 0.0)
        room = limits.in_a_row * limits.gap - backlog
        refusal = self._refusal(limits, room, lane)
        if refusal is not None:
            if lane != "background":
                self.wanted = now + 1.0
            return refusal
        self.slots[name] = now + LEASE
        self.owed = now + backlog + limits.gap
        if self.breaks:
            self.prober, self.probed = name, now + LEASE
        return "in", 0.0

    def _refusal(self, limits: Limits, room: float, lane: Lane) -> tuple[str, float] | None:
        if len(self.slots) >= limits.under_way:
            return "busy", 0.0
        if room < limits.gap:
            return "spent", limits.gap - room
        if lane == "background" and self.now < self.wanted:
            return "wanted", self.wanted - self.now
        return None

    def leave(self, name: str, said: str, pause: float) -> str:
        if self.slots.pop(name, None) is None:
            return "late"
        if pause:
            self.paused = max(self.paused, self.now + pause)
        probes = self.prober == name
        if probes:
            self.prober = None
        if said == "answered":
            was, self.breaks, self.prober, self.failures = self.breaks, 0, None, []
            return "mended" if was else "ok"
        if said == "failed" and self.breaks and probes:
            return self._break()
        if said == "failed" and not self.breaks:
            self.failures = (
                [] if self.failures and self.now - self.failures[0] > gate.FAILING_SECONDS else self.failures
            )
            self.failures.append(self.now)
            if len(self.failures) >= EHR.token_failures:
                return self._break()
        return "ok"

    def _break(self) -> str:
        seconds = min(gate.FIRST_BREAK_SECONDS * 2**self.breaks, gate.LONGEST_BREAK_SECONDS)
        self.broken = self.now + seconds
        self.breaks, self.failures = self.breaks + 1, []
        return f"broken {seconds:g}"


class Scripts:
    """The same, in Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._enter = redis.register_script(script("enter_gate")._text)
        self._leave = redis.register_script(script("leave_gate")._text)
        redis.delete(*KEYS)

    def enter(self, name: str, now: float, lane: Lane) -> tuple[str, float]:
        limits = Limits.of(EHR, lane)
        args: list[str | float] = [
            name,
            now,
            LEASE,
            lane,
            limits.under_way,
            limits.in_a_row,
            limits.gap,
            limits.in_a_row_of_all,
        ]
        said = self._enter(keys=KEYS, args=[*args, EHR.token_longest_pause, gate.LONGEST_BREAK_SECONDS, 7_200_000])
        why, _, seconds = bytes(said).decode().partition(" ")
        return why, float(seconds or 0.0)

    def leave(self, name: str, now: float, said: str, pause: float) -> str:
        more = [EHR.token_failures, gate.FAILING_SECONDS, gate.FIRST_BREAK_SECONDS, gate.LONGEST_BREAK_SECONDS]
        return bytes(self._leave(keys=KEYS, args=[name, now, said, pause, *more, 7_200_000])).decode()

    def lives(self) -> list[int]:
        """How long each key that is there is kept, in ms; -1 for one that is kept for ever."""
        return [int(self._redis.pttl(key)) for key in KEYS if self._redis.exists(key)]


@pytest.fixture(scope="module")
def client(valkey: EmbeddedServer) -> Iterator[Redis]:
    with Redis.from_url(valkey.url().reveal()) as client:
        yield client
        client.delete(*KEYS)


@dataclass
class Play:
    """One run of both, and what went through."""

    scripts: Scripts
    model: Model = field(default_factory=Model)
    let_in: list[tuple[str, float]] = field(default_factory=list)

    def take(self, step: Step) -> None:
        kind, *what = step
        if kind == "wait":
            self.model.now += what[0]
        elif kind == "enter":
            self._enter(*what)
        elif self.let_in:
            name = self.let_in[what[0] % len(self.let_in)][0]
            expected = self.model.leave(name, what[1], what[2])
            assert self.scripts.leave(name, self.model.now, what[1], what[2]) == expected

    def _enter(self, lane: Lane) -> None:
        name = f"r{len(self.let_in)}"
        why, seconds = self.model.enter(name, lane)
        said = self.scripts.enter(name, self.model.now, lane)
        assert said[0] == why
        assert said[1] == pytest.approx(seconds, abs=0.002)
        if why == "in":
            self.let_in.append((name, self.model.now))
            assert len(self.model.slots) <= EHR.token_concurrency - (lane == "background"), "the last slot is taken"


def most_in_a_minute(times: Sequence[float]) -> int:
    return max((sum(start <= time < start + 60 for time in times) for start in times), default=0)


@settings(max_examples=100)
@given(steps=STEPS)
def test_the_scripts_do_what_the_model_does(client: Redis, steps: list[Step]) -> None:
    play = Play(Scripts(client))
    for step in steps:
        play.take(step)

    assert most_in_a_minute([time for _, time in play.let_in]) <= EHR.token_requests_per_minute
    assert all(life > 0 for life in play.scripts.lives())


def test_a_clock_that_was_set_back_closes_no_gate_for_as_long(client: Redis) -> None:
    """What was written an hour ahead would hold everybody back for an hour."""
    scripts = Scripts(client)
    for number in range(3):
        assert scripts.enter(f"r{number}", BEGAN + 3600, "interactive") == ("in", 0.0)
        scripts.leave(f"r{number}", BEGAN + 3600, "failed", 7.5 if number == 2 else 0.0)
    assert scripts.enter("later", BEGAN + 3600, "interactive") == ("paused", 7.5)

    assert scripts.enter("now", BEGAN, "interactive") == ("in", 0.0)


def test_a_slot_of_a_replica_that_died_is_free_when_its_request_must_have_ended(client: Redis) -> None:
    scripts = Scripts(client)
    for number in range(4):
        assert scripts.enter(f"r{number}", BEGAN, "interactive") == ("in", 0.0)
    assert scripts.enter("later", BEGAN + LEASE - 0.25, "interactive")[0] == "busy"

    assert scripts.enter("later", BEGAN + LEASE, "interactive") == ("in", 0.0)
    assert scripts.leave("r0", BEGAN + LEASE, "failed", 50.0) == "late"
    assert scripts.enter("another", BEGAN + LEASE, "interactive") == ("in", 0.0)
