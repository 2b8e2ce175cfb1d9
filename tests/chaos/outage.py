"""Redis is gone while apps read and a refresh is under way: clean refusals in a second, and no restart afterwards."""

import asyncio
import time
from pathlib import Path

from broker.secret import Secret
from tests.chaos.fleet import fleet
from tests.chaos.held import launched
from tests.chaos.load import counted, under_load
from tests.chaos.outcome import Outcome
from tests.topology.server import PASSWORD, USER, Server, running_server

LIFETIME_SECONDS = 3
"""Of the token whose refresh is under way as Redis goes."""
REFUSED_SECONDS = 1.0
SLACK_SECONDS = 0.5
"""What the request takes beside Redis, on a machine that has other things to do."""
NOTICED_SECONDS = 0.2
"""What is read sooner after Redis is gone may have come before."""
RECOVERED_SECONDS = 3.0
"""After Redis is back, all is well by then."""
REFUSED = {"503 store_unavailable"}


async def prove(folder: Path, *, rounds: int = 2, seconds: float = 30.0, readers: int = 4) -> Outcome:
    """Let Redis be silent, and in every second round dead, for so many seconds."""
    outcome = Outcome({"replicas": 2, "seconds_gone": seconds, "slowest_refusal_seconds": 0.0})
    with running_server(folder / "store") as store:
        url = Secret(f"redis://{USER}:{PASSWORD}@127.0.0.1:{store.port}/0")
        async with fleet(folder, store_url=url) as stage:
            replicas = [stage.first, await (await stage.start()).ready()]
            for number in range(rounds):
                handles = [await launched(stage) for _ in range(readers)]
                stage.sandbox.fault("token_lifetime", seconds=LIFETIME_SECONDS)
                held, ends = await launched(stage), time.monotonic() + LIFETIME_SECONDS
                stage.sandbox.clear_faults()
                stage.sandbox.fault("token_hold", seconds=1.0)
                before = stage.refreshes()
                await asyncio.sleep(ends - time.monotonic())
                refreshing = asyncio.create_task(replicas[0].app.fhir(held.handle, held.path))
                while stage.refreshes() == before:  # noqa: ASYNC110  # another process says it in no other way
                    await asyncio.sleep(0.02)
                async with under_load(handles, replicas) as load:
                    gone = time.monotonic()
                    await _be_gone(store, seconds, dies=number % 2 == 1)
                    back = time.monotonic()
                    await asyncio.sleep(RECOVERED_SECONDS + 1.0)
                stage.sandbox.clear_faults()
                answer = await refreshing
                answer = answer if answer.status_code == 200 else await replicas[0].app.fhir(held.handle, held.path)
                refused = load.between(gone + NOTICED_SECONDS, back - REFUSED_SECONDS)
                slowest = max(read.seconds for read in load.reads)
                outcome.results["slowest_refusal_seconds"] = max(slowest, outcome.results["slowest_refusal_seconds"])
                outcome.count("rounds")
                outcome.count("refused", len(refused))
                outcome.must(bool(refused) and set(counted(refused)) <= REFUSED, f"meanwhile: {counted(refused)}")
                outcome.must(slowest < REFUSED_SECONDS + SLACK_SECONDS, f"a refusal took {slowest:.2f} s")
                after = counted(load.between(back + RECOVERED_SECONDS, time.monotonic()))
                outcome.must(set(after) == {"200"}, f"afterwards: {after}")
                grant = await stage.grant(held.tag)
                outcome.must((answer.status_code, grant["generation"]) == (200, "2"), f"the refresh under way: {grant}")
                outcome.must(stage.refreshes() == before + 1, f"{stage.refreshes() - before} refreshes instead of one")
            outcome.results["reuse_alarms"] = stage.alarms()
            outcome.must(stage.alarms() == 0, f"{stage.alarms()} reuse alarms")
    return outcome


async def _be_gone(store: Server, seconds: float, *, dies: bool) -> None:
    if not dies:
        store.freeze()
        await asyncio.sleep(seconds)
        store.thaw()
        return
    store.kill()
    await asyncio.sleep(seconds)
    store.start()
    store.await_answer()
