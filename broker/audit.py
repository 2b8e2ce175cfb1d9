"""The audit trail: what happened, to which app, grant and handle, with which outcome. Never a secret, never PHI.

`record()` returns only after the kernel has the line (it survives the death of the process); the copy for the Redis
stream follows in the background, in order. When either cannot keep up, `record()` refuses, and so does the act that it
would have recorded (blueprint §5.9).
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import structlog

from broker.clock import Clock
from broker.errors import AuditUnavailable, StoreUnavailable

log = structlog.get_logger()

Event = Literal[
    "launch.begin",
    "launch.ask",
    "launch.finish",
    "grant.create",
    "grant.register",
    "grant.refresh",
    "grant.revoke",
    "grant.suspended",
    "grant.reauthorize",
    "grant.introspect",
    "grant.doubted",
    "id_token.exception",
    "handle.mint",
    "handle.use",
    "handle.answer",
    "handle.throttle",
    "handle.introspect",
    "handle.revoke",
    "bulk.accept",
    "bulk.begin",
    "bulk.poll",
    "bulk.file",
    "bulk.cancel",
    "bulk.answer",
    "bulk.abandon",
    "ehr.pinned",
    "ehr.quarantined",
    "ehr.approved",
    "ehr.overridden",
    "key.published",
    "key.seen",
    "key.activated",
    "key.retiring",
    "key.rolled_back",
    "key.retired",
    "key.destroyed",
    "secret.added",
    "secret.retired",
    "domain_key.succeeded",
    "domain_key.rewrapped",
    "domain_key.ended",
    "domain_key.shredded",
    "app.authorize",
    "app.authenticate",
    "request.unreadable",
    "seal.broken",
    "webhook.send",
    "webhook.retry",
    "webhook.drop",
    "store.went_back",
    "store.backed_up",
    "store.restored",
]
Outcome = Literal["allowed", "denied", "failed"]
STREAM_KEY: Final = "sb:audit"
_WRITTEN: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))
_BATCH: Final = 256
_BACKLOG: Final = 10_000
_RETRY_SECONDS: Final = 0.25
_GATHER_SECONDS: Final = 0.02
"""How long the shipper waits for more, so that a busy process sends many records at a time and not each by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One line. Every field is an identifier, a code or a number: no field could hold a secret or PHI."""

    event: Event
    outcome: Outcome
    app: str | None = None
    ehr: str | None = None
    registration: str | None = None
    grant: str | None = None
    handle: str | None = None
    """Public ids: a routing tag, and the first digits of a keyed hash. Neither opens anything."""
    actors: str | None = None
    """The apps that a handle went through by token exchange, first the one that was authorized."""
    job: str | None = None
    """The id of a bulk export. It opens nothing."""
    interaction: str | None = None
    """Kind and resource type, such as `search-type Observation`: no ids, no parameter values."""
    scope: str | None = None
    limits: str | None = None
    """The names of the limits that a handle was narrowed to, without their values."""
    reason: str | None = None
    """A code or a sentence made from identifiers, never from what a caller or an EHR wrote."""
    status: int | None = None
    generation: int | None = None
    request_id: str | None = None

    def line(self, at: float) -> str:
        """Return the JSON object, without absent fields; `at` is in seconds."""
        fields = {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}
        return _WRITTEN.encode({"v": 1, "at": round(at, 6), **fields})


Ship = Callable[[Sequence[str]], Awaitable[None]]
"""Appends lines to the Redis stream. Raises `StoreUnavailable`."""


class AuditTrail:
    """Writes records to a file at once and to the stream soon after."""

    def __init__(self, *, file: Path | None, ship: Ship, clock: Clock) -> None:
        self._file = file
        self._ship = ship
        self._clock = clock
        self._descriptor: int | None = None
        self._backlog: list[str] = []
        self._waiting = asyncio.Event()
        self._shipping = asyncio.Lock()
        self._torn = False
        """The file ends in half a record; the next one starts on a line of its own."""
        self._shipper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the file (append, mode 0600) and start the shipper. Raises `AuditUnavailable`."""
        self._make_folder()
        self._descriptor = self._open_file()
        self._shipper = asyncio.create_task(self._keep_shipping(), name="audit-shipper")

    async def close(self) -> None:
        """Ship what is left, for at most a second, then stop. The file has everything in any case."""
        if self._shipper is not None:
            with suppress(TimeoutError, StoreUnavailable):
                await asyncio.wait_for(self._drain(), timeout=1)
            self._shipper.cancel()
            await asyncio.gather(self._shipper, return_exceptions=True)
        if self._descriptor is not None and self._file is not None:
            os.close(self._descriptor)
        self._descriptor = self._shipper = None

    def record(self, record: AuditRecord) -> None:
        """Write one record. Raises `AuditUnavailable`; whoever calls this acts only after it has returned."""
        descriptor = self.check()
        line = record.line(self._clock())
        try:
            data = (b"\n" if self._torn else b"") + line.encode() + b"\n"
            written = os.write(descriptor, data)
        except OSError as error:
            raise AuditUnavailable(f"the audit file cannot be written (errno {error.errno})") from None
        self._torn = written != len(data)
        if self._torn:
            raise AuditUnavailable("the audit file took only part of a record; is the disk full?")
        self._backlog.append(line)
        self._waiting.set()

    def check(self) -> int:
        """Return where the next record goes. Raises `AuditUnavailable` when it would be refused."""
        if len(self._backlog) >= _BACKLOG:
            raise AuditUnavailable(f"{_BACKLOG} audit records wait for the store")
        return self._open_descriptor()

    def _make_folder(self) -> None:
        if self._file is not None:
            try:
                self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise AuditUnavailable(f"{self._file.parent} cannot be made (errno {error.errno})") from None

    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise AuditUnavailable("the audit trail is not open")
        if self._file is not None and os.fstat(self._descriptor).st_nlink == 0:  # deleted: what we wrote would be lost
            reopened = self._open_file()
            os.close(self._descriptor)
            self._descriptor, self._torn = reopened, False
        return self._descriptor

    def _open_file(self) -> int:
        if self._file is None:
            return 1
        try:
            return os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise AuditUnavailable(f"{self._file} cannot be opened (errno {error.errno})") from None

    async def _keep_shipping(self) -> None:
        while True:
            await self._waiting.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            try:
                await self._drain()
            except Exception as error:  # noqa: BLE001  # whatever it is, the next try may succeed; the file has all
                cause = error.detail if isinstance(error, StoreUnavailable) else type(error).__name__
                log.warning("audit_stream_behind", waiting=len(self._backlog), cause=cause)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _drain(self) -> None:
        async with self._shipping:  # `close` drains too, and a batch is taken off the backlog by whoever shipped it
            while self._backlog:
                batch = self._backlog[:_BATCH]
                await self._ship(batch)
                del self._backlog[: len(batch)]
            self._waiting.clear()
