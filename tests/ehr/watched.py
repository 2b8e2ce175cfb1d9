"""A machine whose loopback addresses listen, and an interpreter that tells what it connects to."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final

from broker.egress.addresses import Address, literal

LOOPBACK: Final = ("127.0.0.1", "127.0.0.2", "::1")
_watching: list[list[Any]] = []
"""Where connections are written down now. The interpreter has no way to take a hook off."""
_hooked: list[bool] = []


@dataclass
class Watched:
    """One port, open on every address that can be had on this machine."""

    port: int = 0
    accepted: list[str] = field(default_factory=list)
    """The address at which each connection arrived."""
    tried: list[Any] = field(default_factory=list)
    """What the interpreter connected to, wherever that is; uvloop does not tell it."""


@asynccontextmanager
async def watched_machine() -> AsyncIterator[Watched]:
    """Listen, and take note of every connection that arrives or is tried."""
    machine = Watched()

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        machine.accepted.append(writer.get_extra_info("sockname")[0])
        writer.close()

    async with AsyncExitStack() as open_servers:
        for address in LOOPBACK:
            server = await asyncio.start_server(accept, address, machine.port)
            open_servers.callback(server.close)
            machine.port = server.sockets[0].getsockname()[1]
        with _told(machine.tried):
            yield machine


@contextmanager
def _told(tried: list[Any]) -> Iterator[None]:
    if not _hooked:
        sys.addaudithook(_note)
        _hooked.append(True)
    _watching.append(tried)
    try:
        yield
    finally:
        _watching.remove(tried)


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        for tried in _watching:
            tried.append(arguments[1])


class Names:
    """A resolver: each name has its answers, given in turn, the last one for ever; an address is its own."""

    def __init__(self, answers: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._answers = {name: list(said) for name, said in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, _port: int) -> Sequence[Address]:
        self.asked.append(host)
        if (address := literal(host)) is not None:
            return [address]
        if (said := self._answers.get(host)) is None:
            raise OSError
        return [ip_address(address) for address in (said.pop(0) if len(said) > 1 else said[0])]
