"""Runs commands by forking: what takes more than a second to import is imported once. Each is a process of its own.

What runs in it is the command line with nothing changed. `Operator.start` starts the program from its beginning.
"""

import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

import broker.cli
from broker.store.lifeline import child

ROOT = Path(__file__).parents[2]


class Nursery:
    """The other end: asks for commands to be run."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    def start(self, arguments: Sequence[str], *, told: str, cwd: Path, environ: Mapping[str, str]) -> list[IO[bytes]]:
        """Start a command that finds `told` at its standard input; returns its output, errors and end.

        The end has its process id in a line, and then its status, which is missing where a signal ended it.
        """
        message = {"arguments": arguments, "told": told, "cwd": str(cwd), "environ": dict(environ)}
        pipes = [os.pipe() for _ in range(3)]
        socket.send_fds(self._control, [json.dumps(message).encode()], [written for _, written in pipes])
        for _, written in pipes:
            os.close(written)
        return [os.fdopen(read, "rb") for read, _ in pipes]


@contextmanager
def nursery() -> Iterator[Nursery]:
    """Run one for as long as the block."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, os.fdopen(os.dup(theirs.fileno()), "rb", buffering=0) as stdin:
        command = [sys.executable, "-m", "tests.commands.nursery"]
        environ = {name: os.environ[name] for name in ("PATH", "PYTHONPYCACHEPREFIX") if name in os.environ}
        with child(command, cwd=ROOT, env=environ, stdin=stdin, stdout=subprocess.DEVNULL, stderr=sys.stderr.fileno()):
            theirs.close()
            yield Nursery(ours)


def main() -> None:
    """Fork for each message, until nobody asks any more."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for module in pkgutil.iter_modules(broker.cli.__path__, "broker.cli."):
        importlib.import_module(module.name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: they say themselves how they ended
    while True:
        text, pipes, _, _ = socket.recv_fds(control, 1 << 16, 3)
        if not text:
            return
        if os.fork() == 0:
            control.close()
            _become_command(json.loads(text), *pipes)
        for pipe in pipes:
            os.close(pipe)


def _become_command(message: Mapping[str, Any], out: int, err: int, end: int) -> NoReturn:
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.write(end, b"%d\n" % os.getpid())
        with tempfile.TemporaryFile() as told:
            told.write(message["told"].encode())
            told.seek(0)
            os.dup2(told.fileno(), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.chdir(message["cwd"])
        os.environ.clear()
        os.environ.update(message["environ"])
        sys.argv = ["broker", *message["arguments"]]
        broker.cli.main()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001  # as the interpreter does
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(end, b"%d" % status)
        os._exit(status)


if __name__ == "__main__":
    main()
