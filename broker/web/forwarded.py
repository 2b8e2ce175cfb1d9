"""Whom a request is from, where declared proxies stand before the broker: as they say in `X-Forwarded-For`.

It is believed from declared proxies alone, by the address of the connection itself (OA-25). Each adds at the end whom
it had the request from, so what counts is the last one that is no declared proxy; what stands before, anybody can have
written. Where a declared proxy says nothing that can be read, the caller is not known: it is not the proxy.
"""

import re
from collections.abc import Sequence
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from broker.limits import Address, Network, is_within, plain_address

PEER: Final = "broker.peer"
"""Where a request's scope has the address that the connection came from."""
_WRITTEN: Final = re.compile(r"(?:\[(?P<six>[^\[\]]*)\]|(?P<four>[0-9.]*))(?::[0-9]{1,5})?")
"""An address as proxies write it, if not by itself: in brackets, or with a port."""


def behind_proxies(application: ASGIApp, proxies: Sequence[Network]) -> ASGIApp:
    """Let an application find the caller as the `client` of a request's scope, and who has connected as its `PEER`."""

    async def told_of_caller(scope: Scope, receive: Receive, send: Send) -> None:
        peer = scope.get("client")
        scope[PEER] = peer
        if peer is not None and is_declared(peer[0], proxies):
            caller = caller_of([value for name, value in scope["headers"] if name == b"x-forwarded-for"], proxies)
            scope["client"] = None if caller is None else (str(caller), 0)
        await application(scope, receive, send)

    return told_of_caller


def is_declared(peer: str, proxies: Sequence[Network]) -> bool:
    """Whether the address of a connection is a declared proxy's, also where a socket shows IPv4 written as IPv6."""
    address = plain_address(peer)
    return address is not None and is_within(address, proxies)


def caller_of(values: Sequence[bytes], proxies: Sequence[Network]) -> Address | None:
    """Return whom declared proxies had a request from, by the values of `X-Forwarded-For`. None: it is not known.

    Where all who are named are declared proxies, it is the first of them: it asks on its own account.
    """
    address = None
    for entry in reversed(b",".join(values).decode("latin-1").split(",")):
        address = _read(entry.strip())
        if address is None or not is_within(address, proxies):
            break
    return address


def _read(entry: str) -> Address | None:
    written = _WRITTEN.fullmatch(entry)
    return plain_address(written["six"] or written["four"] or "" if written else entry)
