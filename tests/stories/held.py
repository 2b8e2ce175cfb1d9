"""An app with a handle on a grant whose access token lives for a while: where the stories about refreshing begin."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from redis.asyncio import Redis

from broker.grants import Grant
from tests.stage import App, BrokerStage, Sandbox, open_stage

LIFETIME, DUE, ENDED = 100, 92, 101
"""Seconds an access token lives, and when it is due and over: the stage's clock moves, the sandbox's does not."""
SHORT_LIFETIME, SHORT_DUE = 20, 19
"""For `private_key_jwt`: the sandbox takes no assertion whose `nbf`, 30 seconds back, is in its future."""
FOREVER = -1


@dataclass
class Held:
    """An app with a handle."""

    stage: BrokerStage
    app: App
    handle: str
    path: str
    refresh_handle: str = ""

    @property
    def tag(self) -> str:
        return self.handle[4:16]

    async def read(self) -> httpx2.Response:
        return await self.app.fhir(self.handle, self.path)

    async def grant(self) -> Grant:
        return await self.stage.broker.grants.read(self.tag)

    def refreshes(self) -> int:
        return int(self.stage.sandbox.counts()["token.refresh_token"])


async def hold(stage: BrokerStage, app: App, lifetime: int = LIFETIME) -> Held:
    stage.sandbox.fault("token_lifetime", seconds=lifetime)
    answer = await app.standalone()
    return Held(stage, app, answer["access_token"], f"Patient/{answer['patient']}", answer["refresh_token"])


@asynccontextmanager
async def held_at(sandbox: Sandbox, redis: Redis, state: Path, **options: Any) -> AsyncIterator[Held]:
    """A stage of another kind than the fixture's."""
    lifetime = options.pop("lifetime", LIFETIME)
    async with open_stage(sandbox, redis, state, **{"authentication": "client_secret_basic", **options}) as stage:
        app = stage.app()
        try:
            yield await hold(stage, app, lifetime)
        finally:
            await app.close()


async def until(condition: Callable[[], Awaitable[bool] | bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            met = condition()
            if met if isinstance(met, bool) else await met:
                return
            await asyncio.sleep(0.01)


def code_of(answer: httpx2.Response) -> str:
    outcome = answer.json()
    assert outcome["resourceType"] == "OperationOutcome"
    return str(outcome["issue"][0]["details"]["coding"][0]["code"])


def bearers(sandbox: Sandbox) -> list[str]:
    """Which issued access token each FHIR call brought, as its number."""
    issued = [entry["sha256"][:16] for entry in sandbox.journal("issued") if entry["token"] == "access_token"]
    return [f"token {issued.index(entry['bearer']) + 1}" for entry in sandbox.journal("fhir")]


def upstream(sandbox: Sandbox) -> int:
    """How many requests of any kind the EHR has had."""
    return len([entry for entry in sandbox.journal() if entry["kind"] != "issued"])


def audit_of(stage: BrokerStage, event: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, stage.audit_lines()) if line["event"] == event]
