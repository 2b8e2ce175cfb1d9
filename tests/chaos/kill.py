"""`kill -9` of a broker at each step of a refresh.

The steps are not listed here: a refresh is watched once, message by message, and then brokers are killed at each of
them, before the message has left them and after it was carried out but not answered. What a killed process had written
still arrives, so nothing else can happen to a message.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx2

from tests.chaos.fleet import Fleet, fleet
from tests.chaos.held import Held, launched
from tests.chaos.outcome import Outcome
from tests.chaos.victim import TOKEN, Point, Victim, When, name_of, nursed, trap_at

REFRESHING = ("store: claim_refresh", "store: intend_refresh", TOKEN, "store: commit_grant")
COUNTED = ("rounds", "kept", "lost_with_the_answer", "reuse_alarms", "lost_otherwise")
BATCH = 20
"""Rounds after which every grant that was kept has to prove it by one more refresh; handles live for 300 seconds."""
JUST_RENEWED_SECONDS = 5.5
"""The broker renews no token because of a 401 that it has renewed in the last 5 seconds (RF-06)."""
SPRUNG_SECONDS = 20.0


async def prove(folder: Path, *, rounds: int, seed: int) -> Outcome:
    """Kill a broker that refreshes, again and again, at every step; count what was lost.

    The first half of the rounds is at an EHR that tells what became of a refresh (`introspect_lost`), the second at one
    that tells nothing.
    """
    outcome = Outcome(dict.fromkeys(COUNTED, 0))
    for name, share in (("telling", rounds - rounds // 2), ("silent", rounds // 2)):
        (folder / name).mkdir()
        ehr = "introspect_lost = true" if name == "telling" else ""
        async with fleet(folder / name, watched=True, ehr=ehr) as stage, nursed(stage) as victims:
            points = await _steps(stage, await anext(victims), outcome)
            await _kill_at(_plan(points, share, seed), stage, victims, outcome)
            outcome.count("reuse_alarms", stage.alarms())
            outcome.must(stage.alarms() == 0, f"{stage.alarms()} reuse alarms at an EHR that is {name}")
    return outcome


def _plan(points: Sequence[Point], rounds: int, seed: int) -> list[Point]:
    """Return each point as often as the others, those of the refresh first, in an order that the seed decides."""
    cycle = sorted(points, key=lambda point: point.step not in REFRESHING)
    plan = [point for _ in range(rounds // len(cycle) + 1) for point in cycle][:rounds]
    random.Random(seed).shuffle(plan)  # noqa: S311  # the order of rounds is no secret
    return plan


async def _kill_at(plan: Sequence[Point], stage: Fleet, victims: AsyncIterator[Victim], outcome: Outcome) -> None:
    for start in range(0, len(plan), BATCH):
        kept = []
        for point in plan[start : start + BATCH]:
            held = await launched(stage)
            if await _round(stage, await anext(victims), held, point, outcome):
                kept.append(held)
        await _prove_kept(stage, kept, outcome)


async def _steps(stage: Fleet, victim: Victim, outcome: Outcome) -> list[Point]:
    """Watch a refresh from the call that causes it to its answer."""
    warming, held = await launched(stage), await launched(stage)
    stage.sandbox.expire()  # a store that knows the scripts is sent their names alone
    (await stage.first.app.fhir(warming.handle, warming.path)).raise_for_status()
    began = len(victim.to_store.seen), len(victim.to_ehr.seen)
    (await victim.replica.app.fhir(held.handle, held.path)).raise_for_status()
    seen = sorted([*victim.to_store.seen[began[0] :], *victim.to_ehr.seen[began[1] :]])
    names = [name for _, message in seen if (name := name_of(message, held.tag)) is not None]
    steps = [(name, names[: place + 1].count(name)) for place, name in enumerate(names)]
    assert [name for name, _ in steps].count(TOKEN) == 1, steps
    outcome.results["messages"] = len(steps)
    times: tuple[When, When] = ("before", "unanswered")
    return [Point(*step, when) for step in steps for when in times] + [Point(TOKEN, 1, "answered")]


async def _round(stage: Fleet, victim: Victim, held: Held, point: Point, outcome: Outcome) -> bool:
    """Kill one; returns whether its grant was kept."""
    stage.sandbox.expire()
    rotated = stage.rotations()
    trap = trap_at(victim, held, point)
    reading = asyncio.create_task(victim.replica.app.fhir(held.handle, held.path))
    sprung = asyncio.create_task(trap.sprung.wait())
    await asyncio.wait({sprung, reading}, timeout=SPRUNG_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    assert sprung.done(), f"{point} was not reached: {reading}"
    if point.when == "answered":
        trap.deliver()
        await asyncio.sleep(0)
    victim.replica.kill()
    trap.drop()
    await asyncio.gather(reading, return_exceptions=True)
    await stage.lapse(held.tag)
    committed = stage.rotations() > rotated
    answer = await stage.first.app.fhir(held.handle, held.path)
    outcome.count("rounds")
    if not committed and (await stage.grant(held.tag))["state"] == "uncertain":
        answer = await _by_operator(stage, held, point, outcome)
    grant = await stage.grant(held.tag)
    if answer.status_code == 200 and grant["state"] == "active":
        outcome.count("kept")
        outcome.must(stage.rotations() == rotated + 1, f"{point}: not exactly one rotation")
        return True
    _judge_lost(point, grant, committed=committed, outcome=outcome)
    return False


async def _by_operator(stage: Fleet, held: Held, point: Point, outcome: Outcome) -> httpx2.Response:
    """Where nobody but the EHR knows that it was asked nothing: the grant is uncertain until an operator decides."""
    outcome.count("kept_by_operator")
    outcome.must(point.step in {"store: intend_refresh", TOKEN}, f"{point}: uncertain, though nothing was intended")
    await stage.command("grants", "refresh", held.tag, "--even-uncertain")
    return await stage.first.app.fhir(held.handle, held.path)


def _judge_lost(point: Point, grant: dict[str, str], *, committed: bool, outcome: Outcome) -> None:
    """A grant may be lost where the EHR has committed and its answer did not reach Redis; it says so, and why."""
    with_answer = point.step == TOKEN or (point.step == "store: commit_grant" and point.when == "before")
    told = grant["state"] in {"uncertain", "needs_reauth"} and "refresh" in grant["cause"]
    if committed and with_answer and told:
        outcome.count("lost_with_the_answer")
        outcome.count(f"lost_with_the_answer.{grant['state']}")
        outcome.count(f"lost_with_the_answer.{'in_hand' if point.step != TOKEN else 'on_its_way'}")
    else:
        outcome.count("lost_otherwise")
        outcome.must(False, f"lost, {point}: {grant}, the EHR has {'' if committed else 'not '}committed")


async def _prove_kept(stage: Fleet, kept: Sequence[Held], outcome: Outcome) -> None:
    """Refresh each once more: what the store has must be what the EHR takes."""
    await asyncio.sleep(JUST_RENEWED_SECONDS)
    stage.sandbox.expire()
    for held in kept:
        answer = await stage.first.app.fhir(held.handle, held.path)
        if answer.status_code != 200:
            outcome.must(False, f"kept, and cannot be refreshed: {answer.text}")
