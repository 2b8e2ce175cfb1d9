"""Many grants that are all due within a minute, two real broker processes that renew them, and callers in between."""

import asyncio
import base64
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2

from broker.app import Broker, open_broker
from broker.credentials import new_tag
from broker.grants import LaunchContext, Terms, TokenSet
from broker.scopes import Scopes
from broker.secret import Secret
from broker.settings import Settings, load
from broker.store import keys
from broker.store.connection import connect
from broker.vault import LocalKeyring
from tests.bench.token_server import READY, access_token, refresh_token

EHRS: Final = 4
WINDOW_SECONDS: Final = 60.0
BROKERS: Final = 2
CALLERS: Final = 8
CALL_EVERY: Final = 0.1
CALLED: Final = 400
"""Grants that somebody calls with meanwhile; the token of every fourth has ended, so that its caller has to wait."""
SCOPES: Final = "patient/*.rs offline_access"
KEY: Final = bytes(range(32))
CONTEXT: Final = LaunchContext(patient="erXuFYUfucBZaryVksYEcMg3", fhir_user="Practitioner/e3MBXCOmcoLKl7ayLD51AWA3")

_HEAD: Final = """
public_url = "{public_url}"
allow_loopback_http = true
[[app]]
id = "bench"
authentication = "none"
redirect_uris = ["http://127.0.0.1:1/callback"]
launch_uri = "http://127.0.0.1:1/launch"
"""
_EHR: Final = """
[[app.access]]
registration = "launch-{n}"
scopes = "{scopes}"
"""
_REGISTRATION: Final = """
[[ehr]]
id = "ehr-{n}"
fhir_base = "{origin}/ehr-{n}"
token_requests_per_minute = 100000
[[registration]]
id = "launch-{n}"
ehr = "ehr-{n}"
flow = "launch"
client_id = "bench"
authentication = "client_secret_basic"
client_secret = "env:BENCH_SECRET"
scopes = "{scopes}"
app = "bench"
"""


@dataclass(frozen=True)
class Field:
    """Where the storm takes place."""

    store: Secret
    state: Path
    ehr: str
    ports: tuple[int, ...]
    environ: dict[str, str]

    def settings(self) -> Settings:
        """Write broker.toml and read it."""
        text = _HEAD.format(public_url=f"http://127.0.0.1:{self.ports[0]}")
        text += "".join(_EHR.format(n=n, scopes=SCOPES) for n in range(EHRS))
        text += "".join(_REGISTRATION.format(n=n, origin=self.ehr, scopes=SCOPES) for n in range(EHRS))
        (self.state / "broker.toml").write_text(text)
        return load(self.state / "broker.toml", self.environ)

    @asynccontextmanager
    async def broker(self) -> AsyncIterator[Broker]:
        """Open a broker in this process that renews nothing unasked."""
        redis = connect(self.store)
        kek, audit = LocalKeyring([KEY]), self.state / "bench.jsonl"
        try:
            async with open_broker(self.settings(), redis=redis, kek=kek, audit_file=audit, keep_every=None) as broker:
                yield broker
        finally:
            await redis.aclose()


@contextmanager
def open_field(store: Secret, state: Path) -> Iterator[Field]:
    """Start the EHR."""
    command = [sys.executable, "-m", "tests.bench.token_server"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        origin = process.stdout.readline().removeprefix(READY).strip()
        own = {
            "BENCH_SECRET": "a secret of the bench's own",
            "BROKER_KEK": base64.b64encode(KEY).decode(),
            "BROKER_REDIS_URL": store.reveal(),
        }
        yield Field(store, state, origin, tuple(_free_ports(BROKERS)), {**os.environ, **own})
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def _brokers(field: Field) -> Iterator[None]:
    """Start `broker serve` as processes of their own."""
    processes = []
    try:
        for port in field.ports:
            state = field.state / f"broker-{port}"
            state.mkdir()
            command = [sys.executable, "-m", "broker", "serve", "--config", str(field.state / "broker.toml")]
            with (state / "log").open("wb") as log:
                own = ["--state", str(state), "--port", str(port)]
                processes.append(subprocess.Popen([*command, *own], env=field.environ, stdout=log, stderr=log))
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)


async def fill(broker: Broker, count: int) -> tuple[float, list[tuple[int, str]]]:
    """Store grants that are all in use; returns when the first is due, and the handles of those that are called."""
    gate, tags = asyncio.Semaphore(24), [new_tag(os.urandom) for _ in range(count)]
    sample = min(count, 300)
    began = time.perf_counter()
    due = time.time() + 30.0
    handles: list[tuple[int, str]] = []

    async def one(number: int) -> None:
        async with gate:
            handle = await _grant(broker, number, tags[number], due + WINDOW_SECONDS * random.random(), count)  # noqa: S311
            if handle is not None:
                handles.append((number % EHRS, handle))

    await asyncio.gather(*(one(number) for number in range(sample)))
    due = time.time() + 5.0 + 1.15 * count * (time.perf_counter() - began) / sample
    await asyncio.gather(*(one(number) for number in range(sample, count)))
    return due, handles


async def _grant(broker: Broker, number: int, tag: str, due: float, count: int) -> str | None:
    called = number % max(1, count // CALLED) == 0
    if called and number % 4 == 0:
        due, end = time.time() - 60.0, time.time() - 1.0
    else:
        end = due + 600.0
    ehr = f"ehr-{number % EHRS}"
    terms = Terms(
        ehr,
        broker.settings.ehr[number % EHRS].fhir_base,
        f"launch-{number % EHRS}",
        "launch",
        "bench",
        Scopes.parse(SCOPES),
        CONTEXT,
    )
    access, refresh = Secret(access_token(number, 1, end)), Secret(refresh_token(number, 1))
    grant = await broker.grants.create(tag, terms, TokenSet(access, refresh, due, end, 3600.0))
    await broker.grants.use(tag)
    await broker.keeper.schedule.watch(grant)
    if not called:
        return None
    issued = await broker.handles.issue(
        tag=tag,
        app="bench",
        ehr=ehr,
        scopes=Scopes.parse("patient/*.rs"),
        family=f"{number:024x}",
        lifetime=3600,
        refresh_lifetime=0,
        announce=lambda _: None,
    )
    return issued.handle.reveal()


async def rage(field: Field, broker: Broker, count: int) -> dict[str, float]:
    """Let `count` grants become due within a minute, drain them by two processes, and call with some meanwhile."""
    due, handles = await fill(broker, count)
    with _brokers(field):
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
            for port in field.ports:
                await _until_ready(http, port)
            waits: list[float] = []
            refused: list[int] = []
            calling = [asyncio.create_task(_call(http, field, handles, waits, refused)) for _ in range(CALLERS)]
            ended = await _drained(http, field, broker, due)
            for task in calling:
                task.cancel()
            await asyncio.gather(*calling, return_exceptions=True)
            counts = (await http.get(f"{field.ehr}/__counts")).json()
    waits.sort()
    return {
        "storm_grants": count,
        "late_tokens": counts.get("late", 0),
        "duplicate_refreshes": counts.get("duplicates", 0),
        "storm_refreshes": counts.get("refreshes", 0),
        "drain_seconds": ended - due,
        "refreshes_per_s": counts.get("refreshes", 0) / (ended - due),
        "caller_reads": len(waits),
        "caller_refusals": len(refused),
        "caller_ms_p50": waits[len(waits) // 2] * 1e3,
        "caller_ms_p99": waits[int(len(waits) * 0.99)] * 1e3,
    }


async def _until_ready(http: httpx2.AsyncClient, port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                if (await http.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200:
                    return
            except httpx2.HTTPError:
                await asyncio.sleep(0.1)


async def _call(
    http: httpx2.AsyncClient, field: Field, handles: list[tuple[int, str]], waits: list[float], refused: list[int]
) -> None:
    while True:
        ehr, handle = random.choice(handles)  # noqa: S311
        url = f"http://127.0.0.1:{random.choice(field.ports)}/fhir/ehr-{ehr}/Patient/{CONTEXT.patient}"  # noqa: S311
        began = time.perf_counter()
        answer = await http.get(url, headers={"Authorization": f"Bearer {handle}"})
        if answer.status_code == 200:
            waits.append(time.perf_counter() - began)
        else:
            refused.append(answer.status_code)
        await asyncio.sleep(CALL_EVERY)


async def _drained(http: httpx2.AsyncClient, field: Field, broker: Broker, due: float) -> float:
    """Return when nothing that was due before the storm's end is left to renew."""
    last, done = time.time(), -1
    while True:
        await asyncio.sleep(0.5)
        refreshes = (await http.get(f"{field.ehr}/__counts")).json().get("refreshes", 0)
        if refreshes != done:
            last, done = time.time(), refreshes
        is_over = time.time() > due + WINDOW_SECONDS + 1 and await _waiting(broker) == 0
        if is_over or time.time() > max(last + 60, due + WINDOW_SECONDS + 60):
            return last


async def _waiting(broker: Broker) -> int:
    redis, soon = broker.keeper.schedule.redis, time.time() + 60
    every = [keys.due(part, f"ehr-{n}") for part in range(keys.PARTS) for n in range(EHRS)]
    return sum([await redis.zcount(key, "-inf", soon) for key in every])
