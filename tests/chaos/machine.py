"""The refresh engine in every order of things: what `tests/refresh` does briefly, for as long as wanted."""

import asyncio
from pathlib import Path

from broker.store.embedded import EmbeddedServer, wheel_server
from tests.chaos.outcome import Outcome
from tests.refresh.engine_machine import explore

STEPS = 20


async def prove(folder: Path, *, rounds: int, seed: int) -> Outcome:
    """Try as many orders as there are rounds; one that breaks a rule is made as short as it can be, and told."""
    outcome = Outcome({"orders": rounds, "steps": STEPS})
    with EmbeddedServer.start(folder, server=wheel_server()) as server:
        try:
            await asyncio.to_thread(explore, server.url(), folder, examples=rounds, steps=STEPS, seed=seed)
        except Exception as error:  # noqa: BLE001  # a rule that did not hold, or what nobody foresaw
            told = [str(error), *getattr(error, "__notes__", [])]
            outcome.must(False, "; ".join(line for text in told for line in text.splitlines()))
    return outcome
