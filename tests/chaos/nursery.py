"""Starts brokers by forking: what takes seconds to import is imported once. Each is a process of its own to kill.

What runs in it is `broker serve` with nothing changed but, where a test says so, the machine's clock.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from broker.cli import main as run_broker
from broker.store.lifeline import _binding_to_parent, child

ROOT = Path(__file__).parents[2]


class Nursery:
    """The other end: asks for brokers, and for how they ended."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    def start(self, environ: Mapping[str, str], listener: socket.socket, *, log: Path, ahead: float = 0.0) -> int:
        """Start `broker serve`, its wall clock `ahead` by so many seconds; returns the process id."""
        message = {"environ": dict(environ), "log": str(log), "ahead": ahead}
        socket.send_fds(self._control, [json.dumps(message).encode() + b"\n"], [listener.fileno()])
        return self._answer()

    def wait(self, process_id: int) -> int:
        """Wait until it has ended; its id is nobody else's before. Returns the status as `os.waitpid` does."""
        self._control.sendall(json.dumps({"wait": process_id}).encode() + b"\n")
        return self._answer()

    def _answer(self) -> int:
        answer = self._control.recv(64)
        assert answer, "the nursery has ended"
        return int(answer)


@contextmanager
def nursery() -> Iterator[Nursery]:
    """Run one for as long as the block; whatever it started ends with it."""
    ours, theirs = socket.socketpair()
    with ours, theirs, os.fdopen(os.dup(theirs.fileno()), "rb", buffering=0) as stdin:
        command = [sys.executable, "-m", "tests.chaos.nursery"]
        environ = {name: text for name, text in os.environ.items() if not name.startswith("BROKER_")}
        with child(command, cwd=ROOT, env=environ, stdin=stdin, stdout=subprocess.DEVNULL, stderr=sys.stderr.fileno()):
            theirs.close()
            yield Nursery(ours)


def main() -> None:
    """Answer each message with one number, until nobody asks any more."""
    control, started = socket.socket(fileno=os.dup(0)), set[int]()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    bind = _binding_to_parent() or (lambda: None)
    try:
        while True:
            text, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 1)
            if not text:
                return
            message = json.loads(text)
            if "wait" in message:
                answer = os.waitpid(message["wait"], 0)[1]
                started.discard(message["wait"])
            elif (answer := os.fork()) == 0:
                control.close()
                _become_broker(message, descriptors[0], bind)
            else:
                os.close(descriptors[0])
                started.add(answer)
            control.sendall(b"%d" % answer)
    finally:
        for process_id in started:
            os.kill(process_id, signal.SIGKILL)


def _become_broker(message: Mapping[str, Any], listener: int, bind: Callable[[], None]) -> None:
    """Never returns."""
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        bind()
        log = os.open(message["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.clear()
        os.environ.update(message["environ"])
        if ahead := message["ahead"]:
            right = time.time
            time.time = lambda: right() + ahead
        os.set_inheritable(listener, True)
        sys.argv = ["broker", "serve", "--fd", str(listener)]
        run_broker()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
