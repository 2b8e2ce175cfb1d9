"""A TCP proxy that can hold one message, or the answer to it, while something happens to whoever waits."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

CHUNK = 1 << 18
Side = Literal["request", "answer"]


@dataclass
class Trap:
    """Waits for one message. What it caught is delivered or dropped when told, and its connection with it."""

    wanted: Callable[[bytes], bool]
    side: Side
    """Whether the message is kept from arriving, or arrives and its answer does not."""
    sprung: asyncio.Event = field(default_factory=asyncio.Event)
    _delivered: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def spring(self) -> bool:
        """Hold what came; returns whether to pass it on."""
        self.sprung.set()
        return await self._delivered

    def deliver(self) -> None:
        """Let it go on."""
        self._end(delivered=True)

    def drop(self) -> None:
        """Let nobody have it."""
        self._end(delivered=False)

    def _end(self, *, delivered: bool) -> None:
        if not self._delivered.done():
            self._delivered.set_result(delivered)


@dataclass
class Wire:
    """A way to a server that a test watches. One message is one write of the client."""

    port: int
    seen: list[tuple[float, bytes]] = field(default_factory=list)
    """Every message to the server, and when it came (monotonic seconds)."""
    trap: Trap | None = None

    def hold(self, wanted: Callable[[bytes], bool], side: Side) -> Trap:
        """Set a trap for the next such message."""
        self.trap = Trap(wanted, side)
        return self.trap

    async def carry(self, near: "End", far: "End") -> None:
        """Serve one connection to its end."""
        caught: asyncio.Queue[Trap] = asyncio.Queue()
        both = (self._out(near, far, caught), self._back(near, far, caught))
        pumps = [asyncio.ensure_future(pump) for pump in both]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            near.writer.close()
            far.writer.close()

    async def _out(self, near: "End", far: "End", caught: asyncio.Queue[Trap]) -> None:
        while message := await near.reader.read(CHUNK):
            self.seen.append((time.monotonic(), message))
            trap = self.trap
            if trap is not None and trap.wanted(message):
                self.trap = None
                if trap.side == "answer":
                    caught.put_nowait(trap)
                elif not await trap.spring():
                    return
            far.writer.write(message)

    async def _back(self, near: "End", far: "End", caught: asyncio.Queue[Trap]) -> None:
        while message := await far.reader.read(CHUNK):
            if not caught.empty() and not await caught.get_nowait().spring():
                return
            near.writer.write(message)


@dataclass
class End:
    """One side of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@asynccontextmanager
async def wire(server: Path | int) -> AsyncIterator[Wire]:
    """Listen on a free port for a server behind a Unix socket or at a port of this machine."""
    carried: set[asyncio.Task[None]] = set()
    opening: Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
    if isinstance(server, Path):
        opening = partial(asyncio.open_unix_connection, server)
    else:
        opening = partial(asyncio.open_connection, "127.0.0.1", server)

    async def serve(near: End) -> None:
        try:
            far = End(*await opening())
        except OSError:
            near.writer.close()
        else:
            await it.carry(near, far)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(End(reader, writer)))
        carried.add(task)
        task.add_done_callback(carried.discard)

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    it = Wire(listening.sockets[0].getsockname()[1])
    try:
        yield it
    finally:
        listening.close()
        for task in (left := [*carried]):
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def commands(message: bytes) -> Iterator[list[bytes]]:
    """Read the Redis commands of one message (RESP arrays of bulk strings)."""
    at = 0
    while at < len(message):
        count, at = _number(message, at, b"*")
        parts = []
        for _ in range(count):
            size, at = _number(message, at, b"$")
            parts.append(message[at : at + size])
            at += size + 2
        yield parts


def _number(message: bytes, at: int, mark: bytes) -> tuple[int, int]:
    end = message.index(b"\r\n", at)
    assert message[at : at + 1] == mark, message[at:end]
    return int(message[at + 1 : end]), end + 2
