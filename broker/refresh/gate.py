"""The gate before each EHR's token endpoint: all replicas share it through Redis, and nobody asks around it.

It lets a request in while the EHR wants to be asked, works, and is not asked too much; who waits for an answer comes
before work that nobody waits for. Whoever is held back has sent nothing. Only revoking passes by: it gives access back.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog
from redis.asyncio import Redis

from broker.clock import Clock, Entropy
from broker.credentials import random_text
from broker.errors import EhrError, EhrHeldBack, StoreUnavailable
from broker.refresh.limits import GateState, Lane, Limits, pause, state_of, verdict
from broker.settings import EhrSettings
from broker.single_flight import SingleFlight
from broker.store import keys
from broker.store.connection import Script, Value, store_errors
from broker.store.scripts import script

log = structlog.get_logger()

PATIENCE_SECONDS: Final = 2.0
"""How long who waits for an answer waits for the gate; others do not."""
_PATIENCE: Final[dict[Lane, float]] = {"interactive": PATIENCE_SECONDS, "launch": PATIENCE_SECONDS, "background": 0.0}
SPARE_SECONDS: Final = 5.0
"""How much longer a slot is held than its request may take; after that it is free, whatever became of its holder."""
FAILING_SECONDS: Final = 120.0
"""Failures in a row count together that lie within so long."""
FIRST_BREAK_SECONDS: Final = 5.0
"""How long an EHR that fails is left alone before one request finds out; twice as long after each that fails, too."""
LONGEST_BREAK_SECONDS: Final = 60.0
GATE_SECONDS: Final = 7_200
"""How long a gate is kept that nobody comes to: longer than any pause."""
KNOWN_SECONDS: Final = 5.0
"""How long a replica goes by what it was told, without asking the store again."""
AGAIN_SECONDS: Final = 1.0
"""When to come again where nobody knows when there is room."""
_POLL_SECONDS: Final = 0.05
_TELL_SECONDS: Final = 0.25
_WHY: Final = {
    "paused": "it asked for a pause",
    "broken": "it fails, and is left alone for a while",
    "probed": "it fails, and one request finds out whether it still does",
    "busy": "as many requests as may be are under way (token_concurrency)",
    "spent": "as many requests as may be were sent (token_requests_per_minute)",
    "wanted": "somebody who waits comes first",
}
_FOR_ALL: Final = frozenset({"paused", "broken", "probed"})
"""What holds back every lane alike."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A request that was let in."""

    name: str
    ends_at: float
    """When its slot is free in any case, in seconds: what is not sent by then is not to be sent."""


@dataclass(frozen=True, slots=True)
class _Closed:
    """What this replica was told last."""

    why: str
    until: float
    known_until: float


@dataclass(frozen=True, slots=True)
class Gate:
    """The gates of all EHRs."""

    redis: Redis
    clock: Clock
    entropy: Entropy
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    entering: Script = field(default_factory=partial(script, "enter_gate"))
    leaving: Script = field(default_factory=partial(script, "leave_gate"))
    leaves: SingleFlight[None] = field(default_factory=SingleFlight)
    closed: dict[str, _Closed] = field(default_factory=dict)
    """EHRs that nobody may ask, whoever waits."""
    lines: defaultdict[tuple[str, Lane], asyncio.Lock] = field(default_factory=partial(defaultdict, asyncio.Lock))
    """Who waits at an EHR's gate waits in line: the first one asks the store, those behind do not. Nobody stands behind
    a launch but other launches."""

    @asynccontextmanager
    async def passage(self, ehr: EhrSettings, lane: Lane, *, takes: float) -> AsyncIterator[Passage]:
        """Hold a slot while the body asks the EHR, `takes` seconds at most; what it raises says how the EHR is.

        Raises `EhrHeldBack` where nothing may be sent, `StoreUnavailable`.
        """
        passage = await self._enter(ehr, lane, takes + SPARE_SECONDS)
        try:
            yield passage
        except BaseException as error:
            told = self._leave(ehr, passage, error, lane)
            if isinstance(error, EhrError):  # all replicas know of it before its caller does, unless the store is away
                await asyncio.wait({told}, timeout=_TELL_SECONDS)
            raise
        self._leave(ehr, passage, None)

    def require_open(self, ehr: str, lane: Lane) -> None:
        """Raise `EhrHeldBack` where this replica was told a moment ago that nobody may ask this EHR so soon."""
        known = self._known(ehr)
        if known is not None and (known.retry_after or 0.0) > _PATIENCE[lane]:
            raise known

    async def state(self, ehr: str) -> GateState:
        """Return how the gate is. Raises `StoreUnavailable`."""
        now = self.clock()
        with store_errors():
            async with self.redis.pipeline(transaction=False) as pipe:
                pipe.hmget(keys.gate(ehr), "paused", "broken", "breaks")
                pipe.zrangebyscore(keys.gate_slots(ehr), now, "+inf")
                (paused, broken, breaks), slots = await pipe.execute()
        breaks = breaks is not None
        return state_of(float(paused or 0), float(broken or 0), breaks=breaks, under_way=len(slots), now=now)

    async def close(self) -> None:
        """Wait until every slot was given back."""
        await self.leaves.close()

    def _known(self, ehr: str) -> EhrHeldBack | None:
        now, known = self.clock(), self.closed.get(ehr)
        if known is None:
            return None
        if now < min(known.until, known.known_until):
            return _held_back(ehr, known.why, known.until - now)
        del self.closed[ehr]
        return None

    async def _enter(self, ehr: EhrSettings, lane: Lane, lease: float) -> Passage:
        give_up, line = self.clock() + _PATIENCE[lane], self.lines[ehr.id, lane]
        if lane == "background" or not line.locked():
            try:
                return await self._try(ehr, lane, lease)
            except EhrHeldBack as held:
                if self.clock() + (held.retry_after or 0.0) > give_up:
                    raise
        async with line:
            return await self._wait(ehr, lane, lease, give_up)

    async def _wait(self, ehr: EhrSettings, lane: Lane, lease: float, give_up: float) -> Passage:
        held = _held_back(ehr.id, "busy", AGAIN_SECONDS)
        while self.clock() <= give_up:
            try:
                return await self._try(ehr, lane, lease)
            except EhrHeldBack as said:
                held = said
            seconds = held.retry_after or 0.0
            if self.clock() + seconds > give_up:
                break
            await self.sleep(seconds)
        raise held

    async def _try(self, ehr: EhrSettings, lane: Lane, lease: float) -> Passage:
        if (known := self._known(ehr.id)) is not None:
            raise known
        now = self.clock()
        passage, limits = Passage(random_text(self.entropy), now + lease), Limits.of(ehr, lane)
        args: list[Value] = [passage.name, repr(now), repr(lease), lane, limits.under_way, limits.in_a_row]
        args += [repr(limits.gap), limits.in_a_row_of_all, repr(ehr.token_longest_pause), repr(LONGEST_BREAK_SECONDS)]
        try:
            said: bytes = await self.entering(self.redis, _keys(ehr), [*args, GATE_SECONDS * 1000])
        except BaseException as error:  # the script may have run all the same
            self._leave(ehr, passage, error)
            raise
        if said == b"in":
            return passage
        raise self._refusal(ehr.id, lane, said.decode())

    def _refusal(self, ehr: str, lane: Lane, said: str) -> EhrHeldBack:
        why, _, seconds = said.partition(" ")
        wait, now = float(seconds) or (AGAIN_SECONDS if lane == "background" else _POLL_SECONDS), self.clock()
        if why in _FOR_ALL:
            self.closed[ehr] = _Closed(why, now + wait, now + KNOWN_SECONDS)
        return _held_back(ehr, why, wait, callers_may=lane == "background" and why not in _FOR_ALL)

    def _leave(
        self, ehr: EhrSettings, passage: Passage, error: BaseException | None, lane: Lane = "interactive"
    ) -> asyncio.Future[None]:
        seconds, said = pause(error, longest=ehr.token_longest_pause), verdict(error, lane)
        if seconds > 0:
            now = self.clock()
            self.closed[ehr.id] = _Closed("paused", now + seconds, now + KNOWN_SECONDS)
        elif said == "answered":
            self.closed.pop(ehr.id, None)
        return self.leaves.start(passage.name, lambda: self._tell(ehr, passage, [said, repr(seconds)]))

    async def _tell(self, ehr: EhrSettings, passage: Passage, outcome: list[Value]) -> None:
        """Give the slot back and say how the EHR is, as long as that is news."""
        limits = [ehr.token_failures, FAILING_SECONDS, FIRST_BREAK_SECONDS, LONGEST_BREAK_SECONDS, GATE_SECONDS * 1000]
        said = b""
        while not said:
            now = self.clock()
            try:
                said = await self.leaving(self.redis, _keys(ehr), [passage.name, repr(now), *outcome, *limits])
            except StoreUnavailable as error:
                if now >= passage.ends_at:
                    log.info("gate_not_left", ehr=ehr.id, cause=error.detail)
                    return
                await self.sleep(_TELL_SECONDS)
        self._note(ehr, said.decode())

    def _note(self, ehr: EhrSettings, said: str) -> None:
        if said.startswith("broken"):
            # Others first when that is over: it may be this replica alone that does not reach the EHR.
            until = self.clock() + float(said.split()[1]) + AGAIN_SECONDS
            self.closed[ehr.id] = _Closed("broken", until, until)
            log.warning("ehr_left_alone", ehr=ehr.id)
        elif said == "mended":
            log.info("ehr_answers_again", ehr=ehr.id)


def _held_back(ehr: str, why: str, seconds: float, *, callers_may: bool = False) -> EhrHeldBack:
    detail = f"EHR {ehr} is not asked now: {_WHY.get(why, why)}"
    return EhrHeldBack(detail, retry_after=seconds, callers_may=callers_may)


def _keys(ehr: EhrSettings) -> list[str]:
    return [keys.gate(ehr.id), keys.gate_slots(ehr.id)]
