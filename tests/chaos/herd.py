"""Four broker processes with 200 callers each, on one grant that is at its end: one token request."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import httpx2

from tests.chaos.fleet import Fleet, Replica, fleet
from tests.chaos.held import launched
from tests.chaos.outcome import Outcome

PROCESSES = 4
LIFETIME_SECONDS = 4
"""Of the token that all of them come for; the next one lives for an hour."""
ANSWER_SECONDS = 1.0
"""How long the EHR takes, so that all of them are there before it has answered."""


async def _warm(stage: Fleet, replicas: list[Replica]) -> None:
    """Let each have served a while: connections to the store are open."""
    held = await launched(stage)
    for replica in replicas:
        for at_once in (8, 16, 32, 64, 64):
            await asyncio.gather(*(replica.app.fhir(held.handle, held.path) for _ in range(at_once)))


def said(answer: httpx2.Response) -> str:
    """Return the status, and the code of a refusal."""
    if answer.status_code == 200:
        return "200"
    issue = answer.json()["issue"][0]
    return f"{answer.status_code} {issue['details']['coding'][0]['code']}"


async def prove(folder: Path, *, callers: int = 200, rounds: int = 1) -> Outcome:
    """Let them all in at once, as soon as the token has ended."""
    outcome = Outcome({"processes": PROCESSES, "callers": PROCESSES * callers})
    async with fleet(folder) as stage:
        others = [await stage.start() for _ in range(PROCESSES - 1)]
        replicas = [stage.first, *[await other.ready() for other in others]]
        await _warm(stage, replicas)
        for _ in range(rounds):
            stage.sandbox.fault("token_lifetime", seconds=LIFETIME_SECONDS)
            held = await launched(stage)
            ends = time.monotonic() + LIFETIME_SECONDS
            stage.sandbox.clear_faults()
            stage.sandbox.fault("token_hold", seconds=ANSWER_SECONDS)
            before = stage.refreshes()
            await asyncio.sleep(ends - time.monotonic())

            async def call(replica: Replica, handle: str = held.handle, path: str = held.path) -> str:
                try:
                    return said(await replica.app.fhir(handle, path))
                except httpx2.TransportError as error:
                    return type(error).__name__

            began = time.monotonic()
            answers = Counter(await asyncio.gather(*(call(each) for each in replicas for _ in range(callers))))
            requests = stage.refreshes() - before
            outcome.count("rounds")
            outcome.count("token_requests", requests)
            outcome.count("answered_200", answers.pop("200", 0))
            outcome.results["seconds"] = max(outcome.results.get("seconds", 0.0), time.monotonic() - began)
            outcome.must(requests == 1, f"{requests} token requests for one generation")
            outcome.count("refused_unsent", sum(answers.pop(name, 0) for name in list(answers) if "503" in name))
            outcome.must(not answers, f"answers other than 200, or a refusal before anything is sent: {dict(answers)}")
            outcome.must((await stage.grant(held.tag))["generation"] == "2", "not at generation 2")
        outcome.results["reuse_alarms"] = stage.alarms()
        outcome.must(stage.alarms() == 0, f"{stage.alarms()} reuse alarms")
    return outcome
