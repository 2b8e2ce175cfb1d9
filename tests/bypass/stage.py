"""A broker whose EHR tokens open everything, and handles on it that open little."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from anyio.from_thread import start_blocking_portal

from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer
from tests.bypass.corpus import Attempt, filled
from tests.fuzz.answers import Answer
from tests.fuzz.wire import PATIENCE_SECONDS, read_answer, request
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stage.broker import APP_SECRET_TEXT, stage_toml

WIDE: Final = """
[[app]]
id = "wide"
authentication = "client_secret_basic"
[[app.secret]]
{secret}
[[app.access]]
registration = "sandbox-backend"
scopes = "system/*.cruds"
operations = ["Observation/$named", "Patient/$named"]
"""
CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/observation-category"
LAB, VITAL = f"{CATEGORY}|laboratory", f"{CATEGORY}|vital-signs"


def narrowings(me: str) -> dict[str, dict[str, str]]:
    """Return what each handle is narrowed to by token exchange."""
    return {
        "wide": {},
        "mine": {"patient": me},
        "observations": {"scope": "system/Observation.rs"},
        "minetype": {"scope": "system/Observation.rs", "patient": me},
        "reader": {"scope": "system/*.rs"},
        "creator": {"scope": "system/Observation.c"},
        "minewriter": {"scope": "system/*.cud", "patient": me},
        "labs": {"scope": f"system/Observation.rs?category={LAB.replace('|', '%7C')}"},
        "revoked": {},
        "spent": {"uses": "1"},
    }


@dataclass
class Line:
    """One connection to the broker after the other, each for as long as the broker keeps it."""

    port: int
    connected: socket.socket | None = None

    def ask(self, method: str, path: str, headers: Iterable[tuple[str, str]], body: bytes) -> Answer | None:
        """Send a request as it is written."""
        if self.connected is None:
            self.connected = socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS)
        self.connected.sendall(request(method, path, headers, body))
        answer = read_answer(self.connected, method, path)
        if answer is None or answer.headers.get("connection") == "close":
            self.close()
        return answer

    def close(self) -> None:
        """Hang up."""
        if self.connected is not None:
            self.connected.close()
        self.connected = None


@dataclass(frozen=True)
class Target:
    """What attempts are made on."""

    sandbox: Sandbox
    line: Line
    names: Mapping[str, str]
    """What the words in braces mean: ids of patients and resources, and handles."""
    calls: list[int] = field(default_factory=list)

    def play(self, attempt: Attempt) -> tuple[Answer | None, int]:
        """Make an attempt; returns the answer, and how many FHIR calls reached the EHR."""
        target = filled(attempt.target, self.names)
        path = "/fhir/sandbox" + (target if target[:1] in {"", "?"} else f"/{target}")
        headers, body = attempt.headers_and_body(self.names)
        if attempt.handle != "none":
            headers.append(("Authorization", f"Bearer {self.names[attempt.handle]}"))
        before = self.calls.pop() if self.calls else self._heard()
        answer = self.line.ask(attempt.method, path, headers, body)
        after = self._heard()
        self.calls.append(after)
        return answer, after - before

    def _heard(self) -> int:
        return self.sandbox.counts()["fhir"]


@contextmanager
def running_target(sandbox: Sandbox, server: EmbeddedServer, state: Path) -> Iterator[Target]:
    """Serve a broker until the block ends."""
    redis = connect(server.url())
    toml = stage_toml("http://127.0.0.1:1", "http://127.0.0.1:1").splitlines()
    secret = "\n".join(line for line in toml if line.startswith(("hash = ", "expires = ")))
    with start_blocking_portal() as portal:
        portal.call(redis.flushall)
        more = WIDE.format(secret=secret)
        with portal.wrap_async_context_manager(open_stage(sandbox, redis, state, more=more)) as stage:
            target = portal.call(_target, stage)
            yield target
            target.line.close()
        portal.call(redis.aclose)


async def _target(stage: BrokerStage) -> Target:
    async with _opened(App(stage.base, "wide", auth=("wide", APP_SECRET_TEXT))) as app:
        answer = await app.token(grant_type="client_credentials", scope="system/*.cruds", resource=app.base)
        root = str(answer.json()["access_token"])
        names = await _names(app, root) | {"ehr": stage.sandbox.fhir_base, "broker": stage.base}
        for name, narrowing in narrowings(names["me"]).items():
            names[name] = await _exchanged(app, root, narrowing)
        assert (await app.fhir(names["spent"], f"Patient/{names['me']}")).status_code == 200
        revoke = app.base.rpartition("/fhir/")[0] + "/oauth/revoke"
        await app.http.post(revoke, data={"token": names["revoked"]}, auth=("wide", APP_SECRET_TEXT))
    async with _opened(stage.app()) as chart:
        launch = stage.sandbox.launch("broker-launch", names["me"])
        names["chart"] = str((await chart.launched(launch, scope="launch patient/*.rs"))["access_token"])
    return Target(stage.sandbox, Line(int(urlsplit(stage.public_url).port or 0)), names)


@asynccontextmanager
async def _opened(app: App) -> AsyncIterator[App]:
    try:
        yield app
    finally:
        await app.close()


async def _exchanged(app: App, handle: str, narrowing: Mapping[str, str]) -> str:
    kind = "urn:ietf:params:oauth:token-type:access_token"
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": handle}
    answer = await app.token(**form, subject_token_type=kind, **narrowing)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


async def _names(app: App, handle: str) -> dict[str, str]:
    """Find two patients, something of each, and a vital sign."""

    async def first(path: str, at: int = 0) -> str:
        answer: dict[str, Any] = (await app.fhir(handle, path)).json()
        return str(answer["entry"][at]["resource"]["id"])

    me, other = await asyncio.gather(first("Patient?_count=2"), first("Patient?_count=2", 1))
    found = {"me": me, "other": other, "lab": LAB, "vital": VITAL}
    for word, type_ in (("obs", "Observation"), ("enc", "Encounter"), ("cond", "Condition")):
        found[word] = await first(f"{type_}?patient={me}&_count=1")
        found[f"other{word}"] = await first(f"{type_}?patient={other}&_count=1")
    found["vitalobs"] = await first(f"Observation?category={VITAL}&_count=1")
    return found | {"long": "a" * 8192, "long65": "a" * 65, "many": "&".join(["name=a"] * 257)}
