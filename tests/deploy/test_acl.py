"""users.acl and start-valkey.sh: with these rights the broker can do all it does, and nothing that it does not do."""

import io
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NotConnectedError
from redis.exceptions import NoPermissionError, ResponseError

from broker.app.backups import open_backups
from broker.app.vault import open_vault
from broker.clock import system_clock
from broker.secret import Secret
from broker.store.connection import connect
from broker.store.embedded import wheel_server
from broker.store.facts import server_facts
from broker.vault import LocalKeyring
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stage.broker import KEY
from tests.stories.exporting import APPS, every_step

DEPLOY: Final = Path(__file__).parents[2] / "docs/deploy"
PASSWORD: Final = "a password of more than 32 characters"
INSPECTOR: Final = "an inspector's password of its own"
PERMITTED: Final = set(re.findall(r"\+(\S+)", (DEPLOY / "users.acl").read_text()))
WITHOUT_PERMISSION: Final = {"auth", "hello"}
"""Commands that come before there is a user."""


@dataclass(frozen=True)
class Store:
    """A running Valkey with the deployed users, and one more that the tests look in with."""

    socket: Path

    def client(self, user: str = "broker", password: str = PASSWORD) -> Redis:
        return connect(Secret(f"unix://{user}:{quote(password)}@{self.socket}"))


def start_command(folder: Path, password: str) -> dict[str, str]:
    """Lay out what the container finds, and return its environment."""
    server = wheel_server()
    assert server is not None
    (folder / "bin").mkdir()
    (folder / "bin/valkey-server").symlink_to(server)
    (folder / "run").mkdir()
    (folder / "password").write_text(f"{password}\n")
    inspector = f"user inspector reset on >{INSPECTOR.replace(' ', '_')} ~* &* +@all\n"
    (folder / "users.acl").write_text((DEPLOY / "users.acl").read_text() + inspector)
    return {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "VALKEY_RULES": str(folder / "users.acl"),
        "VALKEY_PASSWORD_FILE": str(folder / "password"),
        "VALKEY_RUN": str(folder / "run"),
    }


@contextmanager
def running(folder: Path) -> Iterator[Store]:
    environment, socket = start_command(folder, PASSWORD), folder / "socket"
    own = ["--port", "0", "--unixsocket", str(socket), "--dir", str(folder / "run"), "--logfile", str(folder / "log")]
    process = subprocess.Popen(["/bin/sh", str(DEPLOY / "start-valkey.sh"), *own], env=environment)
    try:
        give_up = time.monotonic() + 10
        while not socket.exists():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < give_up
            time.sleep(0.01)
        yield Store(socket)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with running(tmp_path_factory.mktemp("acl")) as store:
        yield store


@pytest.fixture
async def inspector(store: Store) -> AsyncIterator[Redis]:
    client = store.client("inspector", INSPECTOR.replace(" ", "_"))
    await client.flushall()
    await client.config_resetstat()
    await client.execute_command("ACL LOG", "RESET")  # type: ignore[no-untyped-call]
    yield client
    await client.aclose()


@pytest.fixture
async def as_broker(store: Store, inspector: Redis) -> AsyncIterator[Redis]:
    client = store.client()
    yield client
    await client.aclose()


async def play_everything(stage: BrokerStage, app: App, reports: App) -> None:
    """Let every kind of record be written, read and ended."""
    tokens = await app.standalone()
    assert (await app.fhir(tokens["access_token"], f"Patient/{tokens['patient']}")).status_code == 200
    launched = await app.launched(stage.sandbox.launch("broker-launch", tokens["patient"]))
    rotated = await app.token(grant_type="refresh_token", refresh_token=launched["refresh_token"])
    assert rotated.status_code == 200
    reused = await app.token(grant_type="refresh_token", refresh_token=launched["refresh_token"])
    assert reused.json()["error"] == "invalid_grant"

    backend = await reports.token(grant_type="client_credentials", scope="system/Patient.rs", resource=reports.base)
    assert (await reports.fhir(backend.json()["access_token"], "Patient?_count=1")).status_code == 200

    stage.sandbox.fault("token_503")
    stage.clock.advance(3580)
    again = await app.token(grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    handle = again.json()["access_token"]
    for _ in range(2):  # the first refresh fails and is given back, the second succeeds
        assert (await app.fhir(handle, f"Patient/{tokens['patient']}")).status_code == 200
        stage.clock.advance(1.1)  # as long as the EHR asked to wait
    assert stage.sandbox.counts()["token.refresh_token"] == 2

    async for tag in stage.broker.grants.tags():
        for live in await stage.broker.handles.live(tag):
            await stage.broker.handles.revoke_by_id(tag, live.id)
        await stage.broker.revoke_grant(tag, cause="test")
    assert (await app.http.get(f"{stage.public_url}/readyz")).status_code == 200


async def rotate_and_shred(stage: BrokerStage, as_broker: Redis) -> None:
    async def sleep(seconds: float) -> None:
        stage.clock.advance(seconds)

    settings, file, ignored = stage.broker.settings, stage.state / "vault.jsonl", list[str]()
    async with open_vault(
        settings, redis=as_broker, kek=LocalKeyring([KEY]), audit_file=file, clock=stage.clock, sleep=sleep
    ) as work:
        await work.rotate(None, ignored.append)
        await work.rotate_kek(ignored.append)
        assert not (await work.verify(lambda *_: None)).unreadable
        await work.shred("sandbox", ignored.append)


async def back_up_and_restore(stage: BrokerStage, as_broker: Redis, inspector: Redis) -> None:
    settings, audit_file, file = stage.broker.settings, stage.state / "backups.jsonl", io.BytesIO()
    async with open_backups(settings, redis=as_broker, kek=LocalKeyring([KEY]), audit_file=audit_file) as backups:
        await backups.back_up(file)
        await inspector.flushall()
        file.seek(0)
        await backups.restore(file)


async def test_the_broker_may_do_all_it_does_and_nothing_more(
    as_broker: Redis, inspector: Redis, sandbox: Sandbox, tmp_path: Path
) -> None:
    facts = await server_facts(as_broker, system_clock)
    assert facts.version
    assert facts.version.startswith("Valkey 9")
    assert (facts.maxmemory_policy, facts.aof_enabled) == ("noeviction", True)
    assert facts.clock_offset is not None
    assert not facts.may_too_much
    (denied,) = await inspector.execute_command("ACL LOG")  # type: ignore[no-untyped-call]
    assert (denied.get("object") or denied.get(b"object")) in {"lastsave", b"lastsave"}, (
        "which is asked for to find out"
    )
    await inspector.execute_command("ACL LOG", "RESET")  # type: ignore[no-untyped-call]
    async with open_stage(sandbox, as_broker, tmp_path, more=APPS, ehr="bulk_jobs = 1") as stage:
        app, reports = stage.app(), stage.app("reports")
        await every_step(stage)
        await play_everything(stage, app, reports)
        await app.close()
        await reports.close()
    assert await inspector.xlen("sb:audit") == len(stage.audit_lines())
    await rotate_and_shred(stage, as_broker)
    await back_up_and_restore(stage, as_broker, inspector)

    assert await inspector.execute_command("ACL LOG") == []  # type: ignore[no-untyped-call]
    statistics = await inspector.info("commandstats")
    used = {
        name.removeprefix("cmdstat_") for name, figures in statistics.items() if figures["calls"] > 0
    } - WITHOUT_PERMISSION
    assert used - {"acl|log", "flushall", "xlen", "config|resetstat"} == PERMITTED


@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL",
        "FLUSHDB",
        "KEYS *",
        "CONFIG SET maxmemory 1",
        "CONFIG GET *",
        "ACL LIST",
        "ACL WHOAMI",
        "SHUTDOWN NOSAVE",
        "REPLICAOF localhost 1",
        "MONITOR",
        "CLIENT LIST",
        "CLIENT KILL ID 1",
        "MODULE LIST",
        "SCRIPT FLUSH",
        "FUNCTION LIST",
        "SUBSCRIBE channel",
        "PUBLISH channel message",
        "RENAME sb:a sb:b",
        "DUMP sb:a",
        "XRANGE sb:audit - +",
        "XTRIM sb:audit MAXLEN 0",
        "SELECT 1",
        "GET other",
        "SET other value",
        "DEL other",
    ],
)
async def test_what_the_broker_does_not_do_is_refused(as_broker: Redis, command: str) -> None:
    with pytest.raises(NoPermissionError):
        await as_broker.execute_command(*command.split(" "))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("call", ["'FLUSHALL'", "'KEYS', '*'", "'GET', 'other'", "'SET', 'other', 'value'"])
async def test_a_script_cannot_do_what_its_user_may_not(as_broker: Redis, call: str) -> None:
    with pytest.raises(ResponseError, match="ACL failure in script"):
        await as_broker.eval(f"return redis.call({call})", 0)


@pytest.mark.parametrize(
    ("user", "password"), [("default", ""), ("default", PASSWORD), ("broker", ""), ("broker", "x")]
)
async def test_nobody_else_gets_in(store: Store, user: str, password: str) -> None:
    client = store.client(user, password)
    with pytest.raises(NotConnectedError, match="invalid username-password pair or user is disabled"):
        await client.ping()
    await client.aclose()


def test_the_rules_by_themselves_let_nobody_in() -> None:
    rules = (DEPLOY / "users.acl").read_text()

    assert not re.search(r"[>#]|nopass|allkeys|allcommands|\+@|~\*", rules)
    assert rules.splitlines()[0] == "user default reset off"


@pytest.mark.parametrize("password", ["", "x" * 31])
def test_it_does_not_start_with_a_password_that_is_too_short(tmp_path: Path, password: str) -> None:
    environment = start_command(tmp_path, password)

    run = subprocess.run(
        ["/bin/sh", str(DEPLOY / "start-valkey.sh"), "--port", "0"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert run.returncode == 78
    assert "fewer than 32" in run.stderr


def test_what_it_writes_holds_no_password_and_only_its_owner_can_read(store: Store) -> None:
    written = store.socket.parent / "run/users.acl"

    assert PASSWORD not in written.read_text()
    assert written.stat().st_mode & 0o777 == 0o600
