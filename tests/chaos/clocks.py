"""Brokers whose machines' clocks are five minutes off, in both directions: no token dies early, none is renewed late.

The EHR wants assertions whose times are right, so a broker that went by its own clock could not even ask.
"""

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tests.chaos.fleet import Fleet, fleet
from tests.chaos.held import launched
from tests.chaos.load import counted, under_load
from tests.chaos.outcome import Outcome

AHEAD_SECONDS = 300.0
GRANTS = 4
FIRST_SHARE, LAST_SHARE = 0.6, 0.9
"""Between which parts of its life a token is renewed (RF-06)."""
SLACK_SECONDS = 1.5
"""The keeper looks once a second; a busy machine adds to it."""


async def prove(folder: Path, *, rounds: int = 4, lifetime: int = 15, grants: int = GRANTS) -> Outcome:
    """Read at a right clock, one that is ahead and one that is behind, for so many lives of the EHR's tokens."""
    outcome = Outcome({"replicas": 3, "ahead_seconds": AHEAD_SECONDS})
    async with fleet(folder, authentication="private_key_jwt") as stage:
        others = [await stage.start(ahead=ahead) for ahead in (AHEAD_SECONDS, -AHEAD_SECONDS)]
        replicas = [stage.first, *[await other.ready() for other in others]]
        for replica in others:
            outcome.must("clock_is_off" in replica.log(), "a broker did not notice that its clock is off")
        stage.sandbox.fault("token_lifetime", seconds=lifetime)
        handles = [await launched(stage) for _ in range(grants)]
        async with under_load(handles, replicas) as load:
            lives = await _watch(stage, [one.tag for one in handles], rounds * lifetime)
        said = counted(load.reads)
        outcome.count("reads", len(load.reads))
        outcome.must(set(said) == {"200"}, f"reads that failed: {said}")
        for replica in replicas:
            outcome.must(any(read.by is replica for read in load.reads), "a broker was not read at")
        outcome.count("refreshes", stage.refreshes())
        outcome.must(len(lives) >= grants * (rounds - 1), f"only {len(lives)} tokens were renewed")
        outcome.results |= {"shortest_life": min(lives, default=0.0), "longest_life": max(lives, default=0.0)}
        early, late = lifetime * FIRST_SHARE - 0.1, lifetime * LAST_SHARE + SLACK_SECONDS
        outcome.must(all(early <= life <= late for life in lives), f"renewed after {sorted(lives)} s of {lifetime}")
        outcome.results["reuse_alarms"] = stage.alarms()
        outcome.must(stage.alarms() == 0, f"{stage.alarms()} reuse alarms")
    return outcome


async def _watch(stage: Fleet, tags: Sequence[str], seconds: float) -> list[float]:
    """Return for how long each token that has been replaced was in use."""
    began: dict[str, dict[str, float]] = {tag: {} for tag in tags}
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for tag in tags:
            grant = await stage.grant(tag)
            began[tag][grant["generation"]] = float(grant["since"])
        await asyncio.sleep(0.1)
    return [round(after - before, 2) for times in began.values() for before, after in pairwise(times.values())]
