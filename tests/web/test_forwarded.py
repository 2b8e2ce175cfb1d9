"""Whom a request is from, as declared proxies say, and nobody else's word for it (OA-25)."""

from ipaddress import ip_network
from typing import Final

import pytest
from starlette.types import Message, Receive, Scope, Send

from broker.web.forwarded import PEER, behind_proxies

PROXIES: Final = (ip_network("127.0.0.2"), ip_network("10.0.0.0/24"), ip_network("fd00::5"))


async def receive() -> Message:
    raise AssertionError


async def send(_message: Message) -> None:
    raise AssertionError


async def client_of(peer: str | None, *forwarded: str) -> str | None:
    """Return the caller that an application finds; the connection's own address is kept beside it."""
    found: list[Scope] = []

    async def application(scope: Scope, _receive: Receive, _send: Send) -> None:
        found.append(scope)

    client = None if peer is None else (peer, 4711)
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    scope: Scope = {"type": "http", "client": client, "headers": [(b"host", b"broker.example"), *headers]}
    await behind_proxies(application, PROXIES)(scope, receive, send)
    assert found[0][PEER] == client
    return found[0]["client"] and str(found[0]["client"][0])


@pytest.mark.parametrize("peer", ["127.0.0.2", "::ffff:127.0.0.2", "::ffff:7f00:2", "10.0.0.77", "FD00:0::5"])
async def test_a_declared_proxy_is_believed_however_a_socket_writes_its_address(peer: str) -> None:
    """A socket that takes both shows IPv4 as IPv6 (RFC 4291 §2.5.5.2)."""
    assert await client_of(peer, "203.0.113.7") == "203.0.113.7"


@pytest.mark.parametrize("peer", ["127.0.0.1", "::ffff:127.0.0.1", "10.0.1.0", "fd00::6", "/run/broker.sock", None])
async def test_nobody_else_is(peer: str | None) -> None:
    assert await client_of(peer, "203.0.113.7") == peer


@pytest.mark.parametrize(
    ("forwarded", "caller"),
    [
        (["203.0.113.7"], "203.0.113.7"),
        (["2001:db8::1"], "2001:db8::1"),
        (["203.0.113.7:4711"], "203.0.113.7"),
        (["[2001:db8::1]"], "2001:db8::1"),
        (["[2001:db8::1]:4711"], "2001:db8::1"),
        (["::ffff:203.0.113.7"], "203.0.113.7"),
        (["[::ffff:203.0.113.7]:99"], "203.0.113.7"),
        (["198.51.100.9, 203.0.113.7"], "203.0.113.7"),
        (["198.51.100.9", "203.0.113.7"], "203.0.113.7"),
        (["198.51.100.9,203.0.113.7 , 10.0.0.9"], "203.0.113.7"),
        (["203.0.113.7", "::ffff:10.0.0.9, [fd00::5]:8080"], "203.0.113.7"),
        (["unknown, 203.0.113.7"], "203.0.113.7"),
        (["10.0.0.9, 127.0.0.2"], "10.0.0.9"),
        (["10.0.0.9"], "10.0.0.9"),
    ],
    ids=lambda value: " + ".join(value) if isinstance(value, list) else value,
)
async def test_the_caller_is_the_last_who_is_no_declared_proxy(forwarded: list[str], caller: str) -> None:
    """What stands before can be anybody's invention."""
    assert await client_of("127.0.0.2", *forwarded) == caller


@pytest.mark.parametrize(
    "forwarded",
    [
        [],
        [""],
        [","],
        ["203.0.113.7,"],
        ["203.0.113.7", ""],
        ["203.0.113.7, unknown"],
        ["203.0.113.7, unknown, 10.0.0.9"],
        ["_hidden"],
        ["203.0.113.007"],
        ["203.0.113.7x"],
        ["203.0.113.7:"],
        ["203.0.113.7:99:99"],
        ["[203.0.113.7"],
        ["[2001:db8::1]x"],
        ["2001:db8::1]:99"],
        ['"203.0.113.7"'],
        ["203.0.113.7 198.51.100.9"],
        ["\xb2"],
    ],
    ids=lambda value: ascii(" + ".join(value)),
)
async def test_where_a_declared_proxy_says_nothing_readable_the_caller_is_not_known(forwarded: list[str]) -> None:
    """It is not the proxy: a limit to the network where that stands would be met by everybody."""
    assert await client_of("127.0.0.2", *forwarded) is None
