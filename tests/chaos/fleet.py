"""Broker processes on one store, in front of one simulated EHR with strict rotation and reuse detection."""

import asyncio
import base64
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from redis.asyncio import Redis

from broker.secret import Secret
from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer, wheel_server
from tests.chaos.nursery import Nursery, nursery
from tests.chaos.wire import Wire, wire
from tests.stage import App, Sandbox, running_sandbox, stage_toml
from tests.stage.broker import KEY, register_broker

READY_SECONDS = 60
COMMAND_SECONDS = 60


@dataclass
class Replica:
    """One broker process."""

    origin: str
    process_id: int
    folder: Path
    nursery: Nursery
    app: App = field(init=False)
    ended: bool = False

    def __post_init__(self) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
        http = httpx2.AsyncClient(trust_env=False, timeout=60, limits=limits)
        self.app = App(f"{self.origin}/fhir/sandbox", http=http)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.process_id, number)

    def kill(self) -> None:
        """Kill it, whatever it does, and wait until it is gone."""
        if not self.ended:
            self.signal(signal.SIGKILL)
            self.nursery.wait(self.process_id)
            self.ended = True

    async def ready(self) -> "Replica":
        """Wait until it serves."""
        async with asyncio.timeout(READY_SECONDS):
            while not await self._answers():  # noqa: ASYNC110  # another process says it in no other way
                await asyncio.sleep(0.02)
        return self

    async def close(self) -> None:
        """End it."""
        self.kill()
        await self.app.close()

    async def _answers(self) -> bool:
        try:
            return (await self.app.http.get(f"{self.origin}/readyz")).status_code == 200
        except httpx2.TransportError:
            return False

    def log(self) -> str:
        """Return what it has said."""
        return (self.folder / "log").read_text()


@dataclass
class Fleet:
    """The stage of a proof: the first replica is where browsers go, too."""

    folder: Path
    nursery: Nursery
    sandbox: Sandbox
    ehr: Wire | None
    """The only way from the brokers to the EHR, where it is watched."""
    redis: Redis
    store_url: Secret
    environ: dict[str, str]
    exits: AsyncExitStack
    replicas: list[Replica] = field(default_factory=list)

    @property
    def first(self) -> Replica:
        """The replica that has the public URL."""
        return self.replicas[0]

    async def start(
        self, *, listener: socket.socket | None = None, store_url: str | None = None, ahead: float = 0.0
    ) -> Replica:
        """Start a replica, at its own way to the store and with a clock that is wrong by `ahead` seconds if asked."""
        folder = self.folder / f"replica-{len(self.replicas)}"
        folder.mkdir()
        environ = self.environ | {
            "BROKER_STATE": str(folder),
            "BROKER_REDIS_URL": store_url or self.store_url.reveal(),
        }
        # Closed here at once: whoever comes after the replica's end is to be refused, not kept waiting.
        with listener or socket.create_server(("127.0.0.1", 0)) as place:
            origin = f"http://127.0.0.1:{place.getsockname()[1]}"
            process_id = self.nursery.start(environ, place, log=folder / "log", ahead=ahead)
        replica = Replica(origin, process_id, folder, self.nursery)
        self.replicas.append(replica)
        self.exits.push_async_callback(replica.close)
        return replica

    async def lapse(self, tag: str) -> None:
        """End the lease on a grant, as its 60 seconds would."""
        await self.redis.delete(f"sb:{{{tag}}}:lease")

    async def grant(self, tag: str) -> dict[str, str]:
        """Read what is in clear of a grant."""
        names = ("state", "generation", "since", "cause")
        fields: Any = await self.redis.hgetall(f"sb:{{{tag}}}:grant")
        return {name: fields.get(name.encode(), b"").decode() for name in names}

    async def command(self, *arguments: str) -> str:
        """Run a command of `broker` as an operator; returns what it printed."""
        environ = self.environ | {"BROKER_STATE": str(self.folder), "BROKER_REDIS_URL": self.store_url.reveal()}
        command = (sys.executable, "-m", "broker", *arguments)
        ran = await asyncio.create_subprocess_exec(*command, env=environ, stdout=PIPE, stderr=PIPE)
        out, err = await asyncio.wait_for(ran.communicate(), COMMAND_SECONDS)
        assert ran.returncode == 0, err.decode()
        return out.decode()

    def refreshes(self) -> int:
        """Count refreshes that reached the EHR."""
        return int(self.sandbox.counts()["token.refresh_token"])

    def rotations(self) -> int:
        """Count the refresh tokens that the EHR has issued."""
        return int(self.sandbox.counts().get("issued.refresh_token", 0))

    def alarms(self) -> int:
        """Count reuses of a refresh token that the EHR has noticed."""
        return int(self.sandbox.counts()["reuse_alarms"])


@asynccontextmanager
async def fleet(
    folder: Path,
    *,
    watched: bool = False,
    ehr: str = "",
    refresh_tokens: str = "rotating",
    refresh: str = "rotate",
    authentication: str = "client_secret_basic",
    store_url: Secret | None = None,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Fleet]:
    """Start store, EHR and the first replica. With `store_url` the store is the caller's."""
    async with AsyncExitStack() as exits:
        place = _free_port()
        to_ehr = await exits.enter_async_context(wire(place)) if watched else None
        origin = f"http://127.0.0.1:{to_ehr.port if to_ehr else place}"
        public = exits.enter_context(running_sandbox("--port", str(place), "--public-url", origin))
        sandbox = Sandbox(f"http://127.0.0.1:{place}")  # not by the wire, which runs on the loop that this blocks
        exits.callback(sandbox.close)
        if store_url is None:
            store_url = exits.enter_context(EmbeddedServer.start(folder, server=wheel_server())).url()
        redis = connect(store_url)
        exits.push_async_callback(redis.aclose)
        listener = socket.create_server(("127.0.0.1", 0))
        public_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        secrets = register_broker(sandbox, public_url, authentication=authentication, refresh=refresh, client={})
        toml = stage_toml(
            public_url, public.fhir_base, authentication=authentication, refresh_tokens=refresh_tokens, ehr=ehr
        )
        (folder / "broker.toml").write_text(toml.replace("token_timeout = 4\n", ""))  # on a busy machine, too
        settings = {
            "BROKER_CONFIG": str(folder / "broker.toml"),
            "BROKER_KEK": base64.b64encode(KEY).decode(),
            **secrets,
            **(environ or {}),
        }
        born = exits.enter_context(nursery())
        it = Fleet(folder, born, sandbox, to_ehr, redis, store_url, settings, exits)
        await (await it.start(listener=listener)).ready()
        yield it


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
