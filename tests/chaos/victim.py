"""Brokers that something happens to, at a message of a refresh that is named."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from broker.store.scripts import script
from tests.chaos.fleet import Fleet, Replica
from tests.chaos.held import Held
from tests.chaos.wire import Trap, Wire, commands, wire

SCRIPTS = {
    script(name)._sha.encode(): name
    for name in ("claim_refresh", "intend_refresh", "release_refresh", "commit_grant", "end_grant", "use_grant")
}
TOKEN = "EHR: POST token"

When = Literal["before", "unanswered", "answered"]


@dataclass(frozen=True, order=True)
class Point:
    """Where a broker is killed: at the n-th message of a name."""

    step: str
    number: int
    when: When
    """Before the message left; when it was carried out and the answer is on its way; as the answer arrives."""

    def __str__(self) -> str:
        return f"{self.when} {self.step}" + (f" ({self.number})" if self.number > 1 else "")


@dataclass
class Victim:
    """A broker whose every message passes by."""

    replica: Replica
    to_store: Wire
    to_ehr: Wire


def name_of(message: bytes, tag: str) -> str | None:
    """Name a message that has to do with the grant; None for another."""
    if message[:1] == b"*":
        if f"{{{tag}}}".encode() not in message:
            return None
        return "store: " + " + ".join(_command(parts) for parts in commands(message))
    head = message.partition(b"\r\n")[0].decode(errors="replace").split(" ")
    if len(head) != 3 or not head[2].startswith("HTTP/"):
        return None
    return TOKEN if head[1].endswith("/token") else f"EHR: {head[0]} {'FHIR' if '/FHIR/' in head[1] else head[1]}"


def _command(parts: Sequence[bytes]) -> str:
    word = parts[0].decode().upper()
    return SCRIPTS.get(parts[1], word) if word == "EVALSHA" else word


@asynccontextmanager
async def nursed(stage: Fleet) -> AsyncIterator[AsyncIterator[Victim]]:
    """Yield victims without end; the next one starts while the one before is dealt with."""
    async with AsyncExitStack() as exits:

        async def born() -> Victim:
            server = stage.store_url.reveal()
            password, _, path = server.removeprefix("unix://:").partition("@")
            to_store = await exits.enter_async_context(wire(Path(path)))
            replica = await stage.start(store_url=f"redis://:{password}@127.0.0.1:{to_store.port}/0")
            assert stage.ehr is not None
            return Victim(await replica.ready(), to_store, stage.ehr)

        async def all_of_them() -> AsyncIterator[Victim]:
            following = asyncio.create_task(born())
            try:
                while True:
                    victim = await following
                    following = asyncio.create_task(born())
                    yield victim
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

        victims = all_of_them()
        try:
            yield victims
        finally:
            await victims.aclose()  # type: ignore[attr-defined]  # a generator


def trap_at(victim: Victim, held: Held, point: Point) -> Trap:
    """Hold the message of the grant that the point names."""
    left = point.number

    def wanted(message: bytes) -> bool:
        nonlocal left
        left -= name_of(message, held.tag) == point.step
        return left == 0

    way = victim.to_store if point.step.startswith("store:") else victim.to_ehr
    return way.hold(wanted, "request" if point.when == "before" else "answer")
