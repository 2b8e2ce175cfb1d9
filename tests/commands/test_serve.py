"""`broker serve` as a process: it starts in order or not at all, and ends when the last answer is given."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from cryptography.x509 import DNSName

from broker.store.embedded import EmbeddedServer
from sandbox.marks import MARK
from tests.commands.program import Operator, Said
from tests.refusals.certificates import certificate, rfc9440
from tests.stage import App, Sandbox, stage_toml
from tests.stage.broker import APP_SECRET_TEXT, register_broker

BY_CERTIFICATE = """
[[app]]
id = "etl"
authentication = "tls_client_auth"
tls_client_auth_san_dns = "etl.example"
"""


@pytest.fixture
def configured(operator: Operator, sandbox: Sandbox) -> Operator:
    """An operator whose settings are in order, at a port that nobody listens on."""
    (operator.home / "broker.toml").write_text(stage_toml("http://127.0.0.1:1", sandbox.fhir_base))
    return operator


# Refused


def open_to_others(operator: Operator) -> Operator:
    (operator.home / "kek").chmod(0o644)
    return operator


def over_plain_http(operator: Operator) -> Operator:
    config = operator.home / "broker.toml"
    config.write_text(config.read_text().replace("http://127.0.0.1:1", "http://broker.example.org"))
    return operator


def without_a_proxy(operator: Operator) -> Operator:
    config = operator.home / "broker.toml"
    config.write_text(config.read_text() + BY_CERTIFICATE)
    return operator


def with_a_key_nowhere(operator: Operator) -> Operator:
    config = operator.home / "broker.toml"
    config.write_text(config.read_text().replace('flow = "launch"', 'flow = "launch"\nsigning = "kms"'))
    return operator


def with_an_empty_key(operator: Operator) -> Operator:
    (operator.home / "kek").write_text("\n")
    return operator


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda o: o.but(BROKER_REDIS_URL_FILE=None), "BROKER_REDIS_URL (or BROKER_REDIS_URL_FILE) is not set"),
        (lambda o: o.but(BROKER_KEK_FILE=None), "BROKER_KEK_FILE or BROKER_KEK must hold the key-encryption key"),
        (lambda o: o.but(BROKER_KEK="A" * 44), "BROKER_KEK_FILE or BROKER_KEK must hold the key-encryption key"),
        (lambda o: o.but(BROKER_KEK_FILE=None, BROKER_KEK="canary-key"), "a key-encryption key is 32 random bytes"),
        (lambda o: o.but(BROKER_KEK_FILE=None, BROKER_KEK="A" * 43 + "="), "is one byte repeated"),
        (lambda o: o.but(BROKER_REDIS_URL_FILE=None, BROKER_REDIS_URL="http://canary-url"), "must read redis://"),
        (lambda o: o.but(BROKER_CONFIG="nowhere.toml"), "nowhere.toml does not exist. Fix: give --config"),
        (lambda o: o.but(BROKER_TYPO="1"), "BROKER_TYPO is not a setting"),
        (lambda o: o.but(BROKER_PORT="eighty"), "BROKER_PORT='eighty' is not a number from 0 to 65535"),
        (open_to_others, "has mode 0644: others could read it. Fix: chmod 600"),
        (with_an_empty_key, "the key-encryption key is empty"),
        (over_plain_http, "broker.toml:2: public_url: http://broker.example.org is plain http"),
        (with_a_key_nowhere, 'signing = "kms", and no key-management service is configured'),
        (without_a_proxy, "app etl authenticates by tls_client_auth, and no proxy is declared. Fix: set BROKER_CLIENT"),
    ],
    ids=[
        "no store",
        "no key",
        "two keys",
        "malformed key",
        "weak key",
        "not a store",
        "no settings",
        "unknown variable",
        "bad port",
        "key others can read",
        "empty key",
        "plain http",
        "key elsewhere",
        "no proxy",
    ],
)
async def test_what_is_not_in_order_is_refused_with_the_fix(
    configured: Operator, change: Callable[[Operator], Operator], says: str
) -> None:
    said = await change(configured).run("serve")

    assert (said.status, said.out) == (78, "")
    assert says in said.err
    assert all(line.startswith("broker: ") for line in said.err.splitlines())
    assert "canary-" not in said.err


async def test_a_store_that_does_not_answer_is_one_line_and_status_1(configured: Operator, tmp_path: Path) -> None:
    (tmp_path / "nowhere").write_text("redis://:canary-password@127.0.0.1:1/0")

    said = await configured.but(BROKER_REDIS_URL_FILE=str(tmp_path / "nowhere")).run("serve")

    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("broker: store_unavailable: ")
    assert len(said.err.splitlines()) == 1
    assert "canary-" not in said.err


async def test_an_audit_file_that_cannot_be_written_is_one_line_and_status_1(configured: Operator) -> None:
    said = await configured.but(BROKER_AUDIT_FILE="/dev/null/audit.jsonl").run("serve")

    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("broker: audit_unavailable: /dev/null")
    assert len(said.err.splitlines()) == 1


async def test_a_key_that_does_not_open_what_is_stored_is_refused(configured: Operator, valkey: EmbeddedServer) -> None:
    assert (await configured.run("grants", "list")).status == 0  # seals the first record
    other = configured.but(BROKER_KEK_FILE=None, BROKER_KEK="C" * 21 + "D" * 22 + "=")

    said = await other.run("serve")

    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("broker: key_unavailable: ")


async def test_a_port_that_is_taken_is_refused_by_its_number(configured: Operator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = await configured.run("serve", "--port", str(port))

    assert (said.status, said.out) == (78, "")
    assert said.err == f"broker: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


# Serving


@dataclass
class Served:
    """A broker that serves as a process of its own."""

    operator: Operator
    process: asyncio.subprocess.Process
    app: App

    async def end(self, number: signal.Signals = signal.SIGTERM) -> Said:
        self.process.send_signal(number)
        return await self.operator.hear(self.process)


@asynccontextmanager
async def serving(operator: Operator, sandbox: Sandbox, *, more: str = "") -> AsyncIterator[Served]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        public_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        register_broker(sandbox, public_url, authentication="private_key_jwt", refresh="rotate", client={})
        (operator.home / "broker.toml").write_text(stage_toml(public_url, sandbox.fhir_base, more=more))
        process = await operator.start("serve", "--fd", str(listener.fileno()), pass_fds=(listener.fileno(),))
    app = App(f"{public_url}/fhir/sandbox")
    try:
        async with asyncio.timeout(20):
            while not await _ready(app):  # noqa: ASYNC110  # another process says it in no other way
                await asyncio.sleep(0.05)
        yield Served(operator, process, app)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await app.close()


async def _ready(app: App) -> bool:
    try:
        return (await app.http.get(app.base.replace("/fhir/sandbox", "/readyz"))).status_code == 200
    except httpx2.TransportError:
        return False


async def test_it_serves_and_ends_with_the_last_answer(operator: Operator, sandbox: Sandbox) -> None:
    async with serving(operator, sandbox) as served:
        app = served.app
        held = await app.standalone()
        sandbox.fault("fhir_delay", seconds=1)
        slow = asyncio.create_task(app.fhir(held["access_token"], f"Patient/{held['patient']}"))
        while sandbox.counts()["fhir"] == 0:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.02)

        said = await served.end()

        answer = await slow
        assert (answer.status_code, answer.json()["id"]) == (200, held["patient"])
        with pytest.raises(httpx2.ConnectError):
            await app.http.get(app.base)
        assert (said.status, said.out) == (0, "")
        logged = [json.loads(line) for line in said.err.splitlines()]
        assert "serving" in {line["event"] for line in logged}
        audited = [json.loads(line) for line in (operator.home / "audit.jsonl").read_text().splitlines()]
        assert [line["event"] for line in audited][-2:] == ["handle.use", "handle.answer"]
        written = said.err + (operator.home / "audit.jsonl").read_text()
        secrets = (held["access_token"], held["refresh_token"], held["patient"], APP_SECRET_TEXT, MARK)
        assert not [secret for secret in secrets if secret in written]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_refresh_under_way_is_finished_before_it_ends(
    operator: Operator, sandbox: Sandbox, number: signal.Signals
) -> None:
    async with serving(operator, sandbox) as served:
        app = served.app
        held = await app.standalone()
        sandbox.expire()
        sandbox.fault("token_hold", seconds=1)
        with pytest.raises(httpx2.ReadTimeout):
            await app.fhir(held["access_token"], f"Patient/{held['patient']}", timeout=0.5)

        said = await served.end(number)

    assert said.status == 0
    (listed,) = (await operator.run("grants", "list", "--json")).json()
    assert (listed["state"], listed["generation"]) == ("active", 2)
    assert sandbox.counts()["token.refresh_token"] == 1


@pytest.mark.parametrize(("proxies", "status"), [("127.0.0.1", 200), ("127.0.0.2", 400)])
async def test_a_certificate_is_believed_from_the_proxies_that_the_environment_names(
    operator: Operator, sandbox: Sandbox, proxies: str, status: int
) -> None:
    """OA-19, OA-25: by the address of the connection, whatever X-Forwarded-For says."""
    behind = operator.but(BROKER_CLIENT_CERTIFICATE_HEADER="X-Client-Cert", BROKER_FORWARDED_ALLOW_IPS=proxies)
    shown = rfc9440(certificate("CN=x", names=[DNSName("etl.example")]))
    headers = {"X-Client-Cert": shown, "X-Forwarded-For": "127.0.0.2"}
    async with serving(behind, sandbox, more=BY_CERTIFICATE) as served:
        endpoint = served.app.base.replace("/fhir/sandbox", "/oauth/introspect")
        answer = await served.app.http.post(endpoint, data={"client_id": "etl", "token": "x"}, headers=headers)

    assert answer.status_code == status


async def test_a_secret_that_ends_soon_is_in_the_log(operator: Operator, sandbox: Sandbox) -> None:
    table = (
        f'\n[[app]]\nid = "old"\nauthentication = "client_secret_basic"\n[[app.secret]]\nhash = "sha256:{"0" * 64}"\n'
    )
    async with serving(operator, sandbox, more=f"{table}expires = 2020-01-01\n") as served:
        said = await served.end()

    logged = [json.loads(line) for line in said.err.splitlines()]
    (line,) = [line for line in logged if line["event"] == "secret_expires"]
    assert (line["level"], line["detail"]) == (
        "warning",
        "app old: secret 00000000 has expired. Fix: broker apps secret",
    )
