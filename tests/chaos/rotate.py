"""Two broker processes under load while an operator gives every domain a new key: not one failed read, nothing left.

It takes as long as a rotation takes: some seven minutes, since the operator's command is killed once and run again.
"""

import asyncio
import itertools
import json
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from tests.chaos.fleet import Fleet, Replica, fleet
from tests.chaos.outcome import Outcome

GRANTS: Final = 12
LIFETIME_SECONDS: Final = 45
"""Of the EHR's tokens, so that each grant is renewed again and again meanwhile."""
TURN_SECONDS: Final = 120.0
"""After which an app turns its handle."""
MOST_SECONDS: Final = 900


@dataclass
class Reader:
    """An app that reads by one handle, now at one replica and now at another."""

    handle: str
    refresh_handle: str
    path: str
    turned_at: float

    async def read(self, replica: Replica) -> str:
        """Return the status, or what became of the request."""
        clock = asyncio.get_running_loop().time
        try:
            if clock() > self.turned_at + TURN_SECONDS:
                await self._turn(replica)
            answer = await replica.app.fhir(self.handle, self.path)
        except httpx2.TransportError as error:
            return type(error).__name__
        return "200" if answer.status_code == 200 else f"{answer.status_code} {answer.text}"

    async def _turn(self, replica: Replica) -> None:
        said = await replica.app.token(grant_type="refresh_token", refresh_token=self.refresh_handle)
        if said.status_code == 200:
            self.handle, self.refresh_handle = said.json()["access_token"], said.json()["refresh_token"]
            self.turned_at = asyncio.get_running_loop().time()


async def _reader(stage: Fleet) -> Reader:
    answer = await stage.first.app.standalone()
    now = asyncio.get_running_loop().time()
    return Reader(answer["access_token"], answer["refresh_token"], f"Patient/{answer['patient']}", now)


@asynccontextmanager
async def _under_load(readers: Sequence[Reader], replicas: Sequence[Replica], outcome: Outcome) -> AsyncIterator[None]:
    """Let everybody read for as long as the block."""

    async def go_on(reader: Reader) -> None:
        for replica in itertools.cycle(replicas):
            said = await reader.read(replica)
            outcome.count("reads")
            outcome.must(said == "200", f"a read failed: {said}")
            replica.app.answers.clear()
            await asyncio.sleep(0.05)

    tasks = [asyncio.create_task(go_on(reader)) for reader in readers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            outcome.must(isinstance(error, asyncio.CancelledError), f"a reader ended: {error!r}")


async def _begin(stage: Fleet, *arguments: str) -> Process:
    environ = stage.environ | {"BROKER_STATE": str(stage.folder), "BROKER_REDIS_URL": stage.store_url.reveal()}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "broker", "vault", *arguments, env=environ, stdout=PIPE, stderr=PIPE
    )


async def _kill_in_a_pass(process: Process) -> None:
    """Kill the operator's command when it has moved what there is, and has not ended the old keys."""
    assert process.stderr is not None
    async for line in process.stderr:
        if re.search(rb"[1-9]\d* were under an old key", line):
            process.kill()
            break
    await process.communicate()


async def prove(folder: Path) -> Outcome:
    """Rotate every domain key while apps read and grants are renewed; the first command is killed."""
    outcome = Outcome({"processes": 2, "grants": GRANTS})
    async with fleet(folder) as stage:
        stage.sandbox.fault("token_lifetime", seconds=LIFETIME_SECONDS)
        replicas = [stage.first, await (await stage.start()).ready()]
        readers = [await _reader(stage) for _ in range(GRANTS)]
        async with asyncio.timeout(MOST_SECONDS), _under_load(readers, replicas, outcome):
            await _kill_in_a_pass(await _begin(stage, "rotate", "--all"))
            again = await _begin(stage, "rotate", "--all", "--json")
            out, err = await again.communicate()
            outcome.must(again.returncode == 0, f"the rotation ended with {again.returncode}: {err.decode()}")
        rows: list[dict[str, Any]] = json.loads(out or b"[]")
        outcome.count("domains", len(rows))
        outcome.count("left", sum(row["left"] for row in rows))
        outcome.must(all(row["ended"] for row in rows), f"old keys are left: {rows}")
        await _look(stage, outcome)
    return outcome


async def _look(stage: Fleet, outcome: Outcome) -> None:
    """Open everything, and see what became of the grants."""
    verify = await _begin(stage, "verify", "--json")
    out, err = await verify.communicate()
    outcome.must(verify.returncode == 0, f"unreadable: {err.decode()}")
    outcome.count("readable", sum(row["readable"] for row in json.loads(out or b"[]")))
    status: list[dict[str, Any]] = json.loads(await stage.command("vault", "status", "--json"))
    outcome.must([row["state"] for row in status] == ["active"] * len(status), f"keys that do not seal: {status}")
    grants: list[dict[str, Any]] = json.loads(await stage.command("grants", "list", "--json"))
    outcome.must([one["state"] for one in grants] == ["active"] * GRANTS, f"grants that ended: {grants}")
    outcome.count("refreshes", stage.refreshes())
    outcome.must(stage.refreshes() > GRANTS, "hardly a grant was renewed meanwhile")
    outcome.count("reuse_alarms", stage.alarms())
    outcome.must(stage.alarms() == 0, f"{stage.alarms()} reuse alarms")
