"""A receiver of webhooks: keeps what it is sent, byte for byte, and answers as it is told."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Received:
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Receiver:
    """A server on a port of its own."""

    port: int = 0
    received: list[Received] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    """What it answers next; 204 where nothing is left. An empty one closes the connection."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.received.append(Received(head[0].split(" ")[1], headers, body))
        writer.write(self.answers.pop(0) if self.answers else answer(204))
        await writer.drain()
        writer.close()


def answer(status: int, *headers: str, body: str = "") -> bytes:
    """Return an answer as it is on the wire."""
    lines = [f"HTTP/1.1 {status} X", *headers, f"Content-Length: {len(body)}", "Connection: close", "", body]
    return "\r\n".join(lines).encode()


@asynccontextmanager
async def running_receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    async with server:
        yield receiver
