"""The demo's processes: the embedded store, the sandbox, the broker. All end with this one, by their process ids."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import httpx

from broker.cli.demo.config import broker_toml, sandbox_clients
from broker.cli.session import DEMO_CONFIG, DEMO_KEY_FILE
from broker.clock import system_entropy
from broker.credentials import APP_SECRET, mint
from broker.errors import ConfigurationError
from broker.secret import Secret
from broker.store.embedded import EmbeddedServer
from broker.store.lifeline import child
from broker.vault.keyring import generate_key_file

READY_SECONDS: Final = 15.0
SECRET_DAYS: Final = 30
_SANDBOX_READY: Final = "sandbox: ready "


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs, and where."""

    state: Path
    store: str
    sandbox_url: str
    broker_url: str
    app_listener: socket.socket
    report_secret: Secret

    @property
    def app_url(self) -> str:
        """Where the demo's app listens."""
        return f"http://127.0.0.1:{self.app_listener.getsockname()[1]}"

    @property
    def fhir_base(self) -> str:
        """The FHIR base URL that apps are given: the broker's, not the EHR's."""
        return f"{self.broker_url}/fhir/sandbox"


@contextmanager
def open_stage(state: Path) -> Iterator[Stage]:
    """Start everything under the state directory. Raises `ConfigurationError` when a part does not come up."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{state} cannot be made ({error.strerror}). Fix: give --state DIR") from None
    with ExitStack() as running:
        began = time.monotonic()
        store = running.enter_context(EmbeddedServer.start(state))
        say("store", f"a real server on a Unix socket in {state}/valkey, AOF on, no TCP port", began)
        key_file = state / DEMO_KEY_FILE
        if not key_file.exists():
            generate_key_file(key_file)
        app, broker = (running.enter_context(listen(port)) for port in (8081, 8080))
        app_url, broker_url = (f"http://127.0.0.1:{s.getsockname()[1]}" for s in (app, broker))
        report_secret = mint(APP_SECRET, "", system_entropy)
        clients = sandbox_clients(broker_url)
        sandbox_url = running.enter_context(_sandbox())
        register(sandbox_url, clients)
        say("EHR", f"simulated, at {sandbox_url}, 200 synthetic patients", began)
        expires = (datetime.now(UTC) + timedelta(days=SECRET_DAYS)).date()
        text = broker_toml(broker_url, sandbox_url, app_url, report_secret.digest(), expires)
        (state / DEMO_CONFIG).write_text(text)
        running.enter_context(_broker(state, store.url(), key_file, broker))
        await_ready(f"{broker_url}/readyz", state / "broker.log")
        say("broker", f"at {broker_url}, its configuration in {state / DEMO_CONFIG}", began)
        yield Stage(state, store.url().digest(), sandbox_url, broker_url, app, report_secret)


def say(who: str, what: str, began: float) -> None:
    """Print one line of progress."""
    print(f"  {who:<8} {what}  ({time.monotonic() - began:.1f} s)", flush=True)


def listen(preferred: int) -> socket.socket:
    """Bind the preferred port, or a free one when it is taken."""
    try:
        listener = socket.create_server(("127.0.0.1", preferred))
    except OSError:
        listener = socket.create_server(("127.0.0.1", 0))
    # Opened again by number, so that its protocol is known: asyncio turns Nagle's delay off only where it is TCP's.
    return socket.socket(fileno=listener.detach())


def register(sandbox_url: str, clients: list[dict[str, object]]) -> None:
    """Register the broker's clients at the sandbox."""
    for client in clients:
        httpx.post(f"{sandbox_url}/__clients", json=client, trust_env=False).raise_for_status()


def await_ready(url: str, log: Path) -> None:
    """Wait until the URL answers 200. Raises `ConfigurationError` with the end of the log."""
    give_up = time.monotonic() + READY_SECONDS
    with httpx.Client(trust_env=False, timeout=2) as client:
        while time.monotonic() < give_up:
            try:
                if client.get(url).is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
    tail = log.read_text(errors="replace").splitlines()[-3:] if log.exists() else []
    raise ConfigurationError(f"the broker did not come up within {READY_SECONDS:.0f} s; {log} ends with:", *tail)


@contextmanager
def _sandbox() -> Iterator[str]:
    for port in ("9400", "0"):
        command = [sys.executable, "-m", "sandbox", "--port", port]
        with child(command, env=_environ(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            line = process.stdout.readline().decode() if process.stdout else ""
            if line.startswith(_SANDBOX_READY):
                yield line.removeprefix(_SANDBOX_READY).strip()
                return
    raise ConfigurationError("the sandbox did not start. Fix: run ./run sandbox to see why")


@contextmanager
def _broker(state: Path, store: Secret, key_file: Path, listener: socket.socket) -> Iterator[None]:
    environ = _environ() | {
        "BROKER_REDIS_URL": store.reveal(),
        "BROKER_KEK_FILE": str(key_file),
        "BROKER_CONFIG": str(state / DEMO_CONFIG),
        "BROKER_STATE": str(state),
    }
    command = [sys.executable, "-m", "broker", "serve", "--fd", str(listener.fileno())]
    with (
        (state / "broker.log").open("ab") as log,
        child(command, env=environ, stdout=log.fileno(), pass_fds=[listener.fileno()]),
    ):
        yield


def _environ() -> dict[str, str]:
    """Return the environment without settings of another broker."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
