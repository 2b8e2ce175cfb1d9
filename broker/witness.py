"""Whether the store has gone back in time: somebody put a backup in its place, or a fail-over lost what was written.

A refresh token that was replaced since may be in such a store. Sent again, it is taken for stolen, and the EHR ends
what hangs on it (RF-15). So each replica leaves a mark in the store every second and remembers the latest that it saw,
also in a file of its own. Where the store's mark is much older than that, everything it held at that moment is called
restored, on all replicas, and no refresh token of then is sent unasked.
"""

import asyncio
import json
import os
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, cast

import structlog
from redis.asyncio import Redis

from broker.audit import AuditRecord, AuditTrail
from broker.clock import Clock, Entropy
from broker.errors import Unavailable
from broker.grants import Grant
from broker.store import keys
from broker.store.connection import Script, store_errors
from broker.store.scripts import script

log = structlog.get_logger()

FAIL_OVER_SECONDS: Final = 30.0
"""A replica that takes over, or a server that lost its last second, is at most this far behind; a backup is further."""
_KEEP_SECONDS: Final = 10.0
"""Between two writes of the file."""
_NAME_BYTES: Final = 12
_MOST_REMEMBERED: Final = 50_000
"""Grants whose generation a replica remembers: those it saw last."""


@dataclass(slots=True)
class Seen:
    """The latest that this replica saw of the store."""

    store: str = ""
    mark: float = 0.0
    restored_at: float = 0.0
    kept: float = 0.0


@dataclass(frozen=True, slots=True)
class Witness:
    """Looks at the store's mark, and says what is from before a restore."""

    redis: Redis
    file: Path | None
    """Where the latest mark outlives the process, by which a store is caught that went back while nobody looked."""
    audit: AuditTrail
    clock: Clock
    entropy: Entropy
    seen: Seen = field(default_factory=Seen)
    generations: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """The latest generation seen of a grant, by its tag."""
    leave_mark: Script = field(default_factory=partial(script, "look_back"))

    async def open(self) -> None:
        """Look for the first time: before anything is refreshed. Raises `StoreUnavailable`, `AuditUnavailable`."""
        self.seen.store, self.seen.mark = _read(self.file)
        await self.look()

    def of(self, grant: Grant) -> str | None:
        """Return why a grant may be older than it was: it has a refresh token, and the store went back."""
        latest = self.generations.get(grant.tag, 0)
        self._remember(grant.tag, max(latest, grant.generation))
        if grant.state != "active" or not grant.refreshable or grant.terms.flow == "backend":
            return None
        if grant.generation < latest:
            return f"the store has generation {grant.generation} of it, and had {latest}"
        return "the store was restored from a time before" if self.is_restored(grant.since) else None

    def tell(self, grant: Grant, cause: str) -> None:
        """Record it. Raises `AuditUnavailable`."""
        terms = grant.terms
        self.audit.record(
            AuditRecord(
                event="grant.doubted",
                outcome="denied",
                app=terms.app,
                ehr=terms.ehr,
                registration=terms.registration,
                grant=grant.tag,
                generation=grant.generation,
                reason=cause,
            )
        )

    def _remember(self, tag: str, generation: int) -> None:
        self.generations[tag] = generation
        self.generations.move_to_end(tag)
        if len(self.generations) > _MOST_REMEMBERED:
            self.generations.popitem(last=False)

    def is_restored(self, since: float) -> bool:
        """Whether what was written at that time (seconds) is from before the store went back. Pure."""
        return since < self.seen.restored_at

    async def look(self) -> None:
        """Leave a mark. Raises `StoreUnavailable`, `AuditUnavailable`."""
        name = self.entropy(_NAME_BYTES).hex()
        known = [self.seen.store, repr(self.seen.mark), repr(self.clock()), repr(FAIL_OVER_SECONDS)]
        said = cast("list[bytes]", await self.leave_mark(self.redis, [keys.WITNESS], [name, *known]))
        store, (mark, restored_at, back) = said[0].decode(), map(float, said[1:])
        if self.seen.store not in {"", store}:
            log.warning("store_is_another", cause="it has another name than the one that was used before")
        if back:
            self._tell(back, whole=restored_at > self.seen.restored_at)
        self.seen.store, self.seen.mark, self.seen.restored_at = store, mark, restored_at
        self._keep()

    async def run(self, every: float) -> None:
        """Look until cancelled, with `every` seconds in between."""
        while True:
            try:
                await self.look()
            except Unavailable as error:
                log.info("witness_waits", cause=error.detail)
            await asyncio.sleep(every)

    def _tell(self, back: float, *, whole: bool) -> None:
        what = "what it held is called restored" if whole else "as a fail-over can explain"
        self.audit.record(
            AuditRecord(event="store.went_back", outcome="denied", reason=f"by {back:.0f} s: {what}"),
        )

    def _keep(self) -> None:
        """Write the file now and then: to the second it need not be."""
        if self.file is None or 0 <= self.seen.mark - self.seen.kept < _KEEP_SECONDS:
            return
        try:
            _write(self.file, {"store": self.seen.store, "mark": self.seen.mark})
        except OSError as error:
            log.warning("witness_not_kept", cause=f"errno {error.errno}")
        self.seen.kept = self.seen.mark


async def call_restored(redis: Redis, now: float) -> None:
    """Call everything restored that the store holds now (seconds). Raises `StoreUnavailable`."""
    with store_errors():
        await cast("object", redis.hset(keys.WITNESS, "restored_at", repr(now)))  # type: ignore[misc]


def _read(file: Path | None) -> tuple[str, float]:
    """Return name and mark; none where the file is not there or damaged: then only what this process sees counts."""
    try:
        said = json.loads(file.read_text(encoding="ascii")) if file is not None else {}
        return str(said.get("store", "")), float(said.get("mark", 0.0))
    except FileNotFoundError:
        return "", 0.0
    except (OSError, ValueError, AttributeError, TypeError) as error:
        log.warning("witness_unreadable", cause=type(error).__name__)
        return "", 0.0


def _write(file: Path, said: dict[str, object]) -> None:
    partial_file = file.with_suffix(f".{os.getpid()}")
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial_file.write_text(json.dumps(said), encoding="ascii")
    partial_file.replace(file)
