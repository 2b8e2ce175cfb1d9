"""A child process that cannot outlive its parent, however the parent ends.

On Linux the kernel sends the signal (PR_SET_PDEATHSIG). Elsewhere a small watcher holds one end of a pipe whose other
end only the parent has: when the parent is gone, the watcher reads the end of the file and sends the signal itself.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Final

STOP_SECONDS: Final = 5.0
PR_SET_PDEATHSIG: Final = 1
ORPHANED: Final = 71  # exit status of a child whose parent was gone before the child could bind itself
WATCHER: Final = "import os, sys; os.read(0, 1) or os.kill(int(sys.argv[1]), 15)"


@contextmanager
def child(
    command: list[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str],
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: int,
    stderr: int = subprocess.STDOUT,
    pass_fds: Collection[int] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` for as long as the block: SIGTERM at its end, SIGKILL five seconds later.

    Besides its standard streams it inherits `pass_fds` alone, and its environment is `env` alone: the parent's may hold
    secrets. On Linux it also ends with the thread that called this, so call it from the main thread.
    """
    process = subprocess.Popen(  # noqa: S603 - the caller chose the program
        command,
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=env,
        umask=0o077,
        pass_fds=tuple(pass_fds),
        start_new_session=True,  # Ctrl-C is for the parent, which still needs its child while it drains
        preexec_fn=_binding_to_parent(),  # noqa: PLW1509 - two system calls through a library loaded before the fork
    )
    with process, watched(process.pid) if sys.platform != "linux" else nullcontext():
        try:
            yield process
        finally:
            _end(process)


def _binding_to_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def bind() -> None:
        # Asked after prctl: a parent that ended before it sends no signal, but has already left us to another.
        if prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0 or os.getppid() != parent:
            os._exit(ORPHANED)

    return bind


@contextmanager
def watched(process_id: int) -> Iterator[None]:
    """Have the process sent SIGTERM if this one ends inside the block. Works on every POSIX system."""
    watcher = subprocess.Popen(  # noqa: S603 - this interpreter and a constant
        [sys.executable, "-ISc", WATCHER, str(process_id)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
        start_new_session=True,
    )
    try:
        yield
    finally:
        watcher.communicate(b".")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
