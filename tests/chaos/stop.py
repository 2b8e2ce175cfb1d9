"""SIGSTOP of a broker in the middle of a refresh until its lease is over and another has come, then SIGCONT.

What it had not sent is not sent any more, what it writes is refused if another has written, and what it was answered
is not lost.
"""

import asyncio
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from broker.refresh.sending import LEASE_SECONDS
from tests.chaos.fleet import Fleet, fleet
from tests.chaos.held import Held, launched
from tests.chaos.outcome import Outcome
from tests.chaos.victim import TOKEN, Point, Victim, nursed, trap_at

SPRUNG_SECONDS = 20.0
SETTLED_SECONDS = 10.0
PAST_THE_LEASE_SECONDS = LEASE_SECONDS + 2.0
SHORT_SECONDS = 1.5
"""Long enough for what was on its way to have arrived."""
JUST_RENEWED_SECONDS = 5.5
"""The broker renews no token because of a 401 that it has renewed in the last 5 seconds (RF-06)."""


@dataclass(frozen=True)
class Stop:
    """Where a broker is stopped, and what becomes of the grant."""

    at: Point
    meanwhile: tuple[str, str]
    """State and generation once another replica was asked, which can only go by what it knows of the EHR."""
    end: tuple[str, str] = ("active", "2")
    sent: int = 1
    """Token requests for the generation, of all brokers."""
    refused: bool = False
    """Whether what it writes is refused."""


COMMITTING = Point("store: commit_grant", 1, "before")
KEPT = Stop(COMMITTING, ("needs_reauth", "1"))
REFUSED = Stop(COMMITTING, ("active", "2"), sent=2, refused=True)
AT_TELLING = (
    KEPT,
    Stop(Point("store: claim_refresh", 1, "unanswered"), ("active", "2")),
    Stop(Point("store: intend_refresh", 1, "unanswered"), ("active", "2")),
    Stop(Point(TOKEN, 1, "before"), ("active", "2")),
    Stop(Point(TOKEN, 1, "unanswered"), ("needs_reauth", "1"), end=("needs_reauth", "1")),
    Stop(Point("store: commit_grant", 1, "unanswered"), ("active", "2")),
)
"""An EHR that rotates, and tells by introspection whether a refresh token was used."""
AT_KEEPING = (REFUSED, Stop(Point(TOKEN, 1, "unanswered"), ("active", "2"), sent=2))
"""An EHR whose refresh token can be used again: what the other replica was answered is what counts."""


async def prove(folder: Path, *, rounds: int = 24) -> Outcome:
    """Stop a broker at each of these, as often as each other, and let all leases run out at the same time."""
    outcome, times = _nothing_yet(), max(1, rounds // (len(AT_TELLING) + len(AT_KEEPING)))
    for name in ("telling", "keeping"):
        (folder / name).mkdir()
    await _prove(folder / "telling", AT_TELLING * times, PAST_THE_LEASE_SECONDS, outcome)
    await _prove(folder / "keeping", AT_KEEPING * times, PAST_THE_LEASE_SECONDS, outcome)
    return outcome


async def prove_shortly(folder: Path) -> Outcome:
    """Take the lease away instead: fair for whoever has its answer, as all that is left is to write it."""
    outcome = _nothing_yet()
    await _prove(folder, (KEPT,), SHORT_SECONDS, outcome)
    return outcome


def _nothing_yet() -> Outcome:
    return Outcome(dict.fromkeys(("rounds", "kept", "told", "refused_writes", "reuse_alarms"), 0))


async def _prove(folder: Path, stops: Sequence[Stop], seconds: float, outcome: Outcome) -> None:
    tells = stops[0] is KEPT
    more: dict[str, Any] = (
        {"ehr": "introspect_lost = true"} if tells else {"refresh_tokens": "reusable", "refresh": "keep"}
    )
    async with fleet(folder, watched=True, **more) as stage, nursed(stage) as victims:
        handles = [await launched(stage) for _ in stops]
        stage.sandbox.expire()
        pairs = zip(handles, stops, strict=True)
        stopped = [await _stop(await anext(victims), held, stop) for held, stop in pairs]
        await asyncio.sleep(seconds)
        for one in stopped:
            if seconds < LEASE_SECONDS:
                await stage.lapse(one.held.tag)
            await _meanwhile(stage, one, outcome)
        kept = [one.held for one in stopped if await _go_on(stage, one, outcome)]
        requests, fair = stage.refreshes(), sum(stop.sent for stop in stops)
        outcome.must(requests == fair, f"{requests} token requests instead of {fair}")
        await _prove_kept(stage, kept, outcome)
        outcome.count("reuse_alarms", stage.alarms())
        outcome.must(stage.alarms() == 0, f"{stage.alarms()} reuse alarms")


@dataclass(frozen=True)
class Stopped:
    """A broker that stands still."""

    stop: Stop
    victim: Victim
    held: Held
    reading: asyncio.Task[httpx2.Response]


async def _stop(victim: Victim, held: Held, stop: Stop) -> Stopped:
    """Stop a broker there; what it had not sent yet is lost, so that it has to do it again, or may not."""
    trap = trap_at(victim, held, stop.at)
    reading = asyncio.create_task(victim.replica.app.fhir(held.handle, held.path))
    await asyncio.wait_for(trap.sprung.wait(), SPRUNG_SECONDS)
    victim.replica.signal(signal.SIGSTOP)
    (trap.deliver if stop.at.when == "unanswered" else trap.drop)()
    return Stopped(stop, victim, held, reading)


async def _meanwhile(stage: Fleet, one: Stopped, outcome: Outcome) -> None:
    await stage.first.app.fhir(one.held.handle, one.held.path)
    grant = await stage.grant(one.held.tag)
    holds = (grant["state"], grant["generation"]) == one.stop.meanwhile
    outcome.must(holds, f"{one.stop.at}, meanwhile: {grant}")


async def _go_on(stage: Fleet, one: Stopped, outcome: Outcome) -> bool:
    """Let it go on; returns whether the grant is to be used further."""
    stop = one.stop
    one.victim.replica.signal(signal.SIGCONT)
    await asyncio.gather(one.reading, return_exceptions=True)
    grant = await _settled(stage, one.held, stop.end[0])
    outcome.must((grant["state"], grant["generation"]) == stop.end, f"{stop.at}, in the end: {grant}")
    outcome.must(grant["state"] == "active" or bool(grant["cause"]), f"{stop.at}: ended without a cause")
    refused = await _is_refused(one.victim, expected=stop.refused)
    outcome.must(refused == stop.refused, f"{stop.at}: its write was {'' if refused else 'not '}refused")
    outcome.count("rounds")
    outcome.count("refused_writes", refused)
    outcome.count("kept" if grant["state"] == "active" else "told")
    one.victim.replica.kill()
    return grant["state"] == "active"


async def _is_refused(victim: Victim, *, expected: bool) -> bool:
    """Whether it says that its write was refused; where that is expected, it has time to."""
    give_up = time.monotonic() + (SETTLED_SECONDS if expected else 0.0)
    while not (is_refused := "refresh_not_committed" in victim.replica.log()) and time.monotonic() < give_up:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return is_refused


async def _settled(stage: Fleet, held: Held, state: str) -> dict[str, str]:
    """Return the grant once what the broker was doing has ended."""
    give_up = time.monotonic() + SETTLED_SECONDS
    while (grant := await stage.grant(held.tag))["state"] != state and time.monotonic() < give_up:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return grant


async def _prove_kept(stage: Fleet, kept: Sequence[Held], outcome: Outcome) -> None:
    """Refresh each once more: what the store has must be what the EHR takes."""
    await asyncio.sleep(JUST_RENEWED_SECONDS)
    stage.sandbox.expire()
    for held in kept:
        answer = await stage.first.app.fhir(held.handle, held.path)
        outcome.must(answer.status_code == 200, f"kept, and cannot be refreshed: {answer.text}")
