"""The files of docs/deploy fit together: what compose.yaml starts with the sandbox is started here as processes."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import httpx2
import pytest

from broker.settings import load
from broker.store.embedded import EmbeddedServer, wheel_server
from broker.vault.keyring import generate_key_file

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "docs/deploy"


@pytest.mark.parametrize("name", ["broker.toml", "sandbox.toml"])
def test_an_example_loads_without_faults(name: str) -> None:
    settings = load(DEPLOY / name, {})

    assert settings.allow_loopback_http is (name == "sandbox.toml")
    assert all(app.access for app in settings.app)


def test_the_sandboxs_client_is_the_registration_of_the_example() -> None:
    settings = load(DEPLOY / "sandbox.toml", {})
    (registration,) = settings.registration
    client = json.loads((DEPLOY / "sandbox-client.json").read_text())

    assert client["client_id"] == registration.client_id
    assert client["jwks_uri"] == f"{settings.public_url}/jwks/{registration.id}"
    assert sorted(client["scopes"]) == sorted(registration.scopes.split())


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


@contextmanager
def program(module: str, *arguments: str, url: str, environment: dict[str, str]) -> Iterator[None]:
    """Run a module until the block ends, once it answers at `url`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT, env={**inherited, **environment})
    try:
        give_up = time.monotonic() + 30
        with httpx2.Client(trust_env=False) as http:
            while True:
                assert process.poll() is None, f"{module} ended"
                assert time.monotonic() < give_up, f"{module} does not answer"
                try:
                    assert http.get(url).status_code == 200
                    break
                except httpx2.ConnectError:
                    time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(20)


def copy_with(name: str, folder: Path, changes: dict[str, str]) -> Path:
    text = (DEPLOY / name).read_text()
    for old, new in changes.items():
        text = re.sub(old, new, text)
    (folder / name).write_text(text)
    return folder / name


def test_the_first_look_of_the_operations_page_works(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "broker", "apps", "secret", "--json"], cwd=ROOT, capture_output=True, check=True
    )
    app = json.loads(made.stdout)
    ports = {"8080": free_port(), "9400": free_port()}
    origin, sandbox = f"http://127.0.0.1:{ports['8080']}", f"http://127.0.0.1:{ports['9400']}"
    secret = {r"sha256:[0-9a-f]{64}": app["hash"], r"expires = [0-9-]+": f"expires = {app['expires']}"}
    config = copy_with("sandbox.toml", tmp_path, {**ports, **secret})
    client = copy_with("sandbox-client.json", tmp_path, ports)
    generate_key_file(tmp_path / "kek")
    environment = {
        "BROKER_CONFIG": str(config),
        "BROKER_KEK_FILE": str(tmp_path / "kek"),
        "BROKER_PORT": ports["8080"],
        "BROKER_REDIS_URL_FILE": str(tmp_path / "redis_url"),
        "BROKER_STATE": str(tmp_path / "state"),
    }
    with ExitStack() as programs:
        store = programs.enter_context(EmbeddedServer.start(tmp_path, server=wheel_server()))
        (tmp_path / "redis_url").write_text(store.url().reveal() + "\n")
        programs.enter_context(program("broker", "serve", url=f"{origin}/readyz", environment=environment))
        options = ("--port", ports["9400"], "--client", str(client))
        known = f"{sandbox}/api/FHIR/R4/.well-known/smart-configuration"
        programs.enter_context(program("sandbox", *options, url=known, environment={}))
        http = programs.enter_context(httpx2.Client(trust_env=False, timeout=20))

        token = http.post(
            f"{origin}/oauth/token",
            auth=("nightly", app["secret"]),
            data={
                "grant_type": "client_credentials",
                "resource": f"{origin}/fhir/sandbox",
                "scope": "system/Patient.rs",
            },
        )
        assert token.status_code == 200, token.text
        bearer = {"Authorization": f"Bearer {token.json()['access_token']}"}
        patients = http.get(f"{origin}/fhir/sandbox/Patient?_count=3", headers=bearer).json()
        observations = http.get(f"{origin}/fhir/sandbox/Observation", headers=bearer)

    assert len(patients["entry"]) == 3
    assert observations.status_code == 403
    assert (tmp_path / "state/audit.jsonl").stat().st_mode & 0o777 == 0o600
