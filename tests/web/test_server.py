"""Connections that ask for nothing, or not in time: each takes one of the places there are."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from broker.web import server
from broker.web.server import server_config

HEAD = b"GET / HTTP/1.1\r\nHost: broker.example\r\n"
POST = b"POST / HTTP/1.1\r\nHost: broker.example\r\nContent-Length: 9\r\n\r\n"
SOON = 0.2
Connect = Callable[[], socket.socket]


class Answering:
    """Answers each request as soon as it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.let.set()

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await self.let.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def served(application: ASGIApp) -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        running = uvicorn.Server(server_config(application))
        task = asyncio.create_task(running.serve([listening]))
        try:
            while not running.started:  # noqa: ASYNC110  # uvicorn says it in no other way
                await asyncio.sleep(0.01)
            yield listening.getsockname()[1]
        finally:
            running.should_exit = True
            await task


async def open_to(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def is_closed_by_the_server(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(5):
        return await reader.read() == b""


@pytest.fixture
def application() -> Answering:
    return Answering()


@pytest.fixture
async def port(application: Answering, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(server, "HEAD_SECONDS", SOON)
    async with served(application) as port:
        yield port


@pytest.mark.parametrize("sent", [b"", b"G", HEAD], ids=["nothing", "a letter", "no end"])
async def test_a_connection_without_a_whole_head_is_closed(port: int, sent: bytes) -> None:
    reader, writer = await open_to(port)
    writer.write(sent)
    assert await is_closed_by_the_server(reader)
    writer.close()


async def test_a_head_that_trickles_in_wins_no_time(port: int) -> None:
    reader, writer = await open_to(port)
    closed = asyncio.create_task(is_closed_by_the_server(reader))
    writer.write(HEAD)
    while not closed.done():
        writer.write(b"G")
        await asyncio.sleep(SOON / 4)
    assert closed.result()
    writer.close()


@pytest.mark.parametrize("before", [HEAD + b"\r\n", POST], ids=["done", "body outstanding"])
async def test_a_connection_that_was_used_has_no_longer_for_the_next_head(port: int, before: bytes) -> None:
    reader, writer = await open_to(port)
    writer.write(before)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
    writer.write(b"G")
    assert await is_closed_by_the_server(reader)
    writer.close()


async def test_a_request_under_way_is_not_cut_off(port: int, application: Answering) -> None:
    application.let.clear()
    reader, writer = await open_to(port)
    writer.write(HEAD + b"\r\n")
    await asyncio.sleep(2 * SOON)
    application.let.set()
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
    writer.close()


async def test_idle_connections_keep_nobody_out_for_long(
    application: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", SOON)
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 6)
    async with served(application) as port:
        idle = [await open_to(port) for _ in range(6)]
        kept_out, writer = await open_to(port)
        writer.write(HEAD + b"\r\n")
        assert (await kept_out.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 503")
        writer.close()
        assert all([await is_closed_by_the_server(reader) for reader, _ in idle])

        reader, writer = await open_to(port)
        writer.write(HEAD + b"\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        for _, each in [*idle, (reader, writer)]:
            each.close()


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"X-A: " + b"a" * (2 * server.HEAD_BYTES),
        HEAD + b"X-A: b\r\n" * (server.HEAD_BYTES // 4) + b"\r\n",
        b"GET /" + b"a" * (2 * server.HEAD_BYTES),
        HEAD + b"Host: other.example\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["a header without end", "many headers", "a target without end", "two hosts", "no host"],
)
async def test_a_head_that_is_too_long_or_names_no_one_host_is_refused(port: int, head: bytes) -> None:
    """Whatever the server's parser lets through (RFC 9112 §3.2)."""
    reader, writer = await open_to(port)
    writer.write(head)
    with suppress(ConnectionResetError):  # the rest of the head has nobody to read it
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_a_head_may_be_as_long_however_it_is_cut(port: int) -> None:
    reader, writer = await open_to(port)
    head = b"GET /" + b"a" * (server.HEAD_BYTES - 100) + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    for begin in range(0, len(head), 8 << 10):
        writer.write(head[begin : begin + (8 << 10)])
        await asyncio.sleep(SOON / 100)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
    writer.close()


@pytest.mark.parametrize(
    "rest",
    [b"0\r\nX-A: ", b"0\r\n" + b"X-A: b\r\n" * server.HEAD_BYTES, b"1;a=", b"1\r\nx\r\n0\r\nX-A: "],
    ids=["a trailer", "trailers", "an extension of a chunk", "a trailer after a body"],
)
async def test_what_is_no_part_of_a_body_is_bounded_after_the_head_too(port: int, rest: bytes) -> None:
    """Also while nobody reads the body, because the request was refused."""
    reader, writer = await open_to(port)
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
    writer.write(rest + b"a" * (2 * server.HEAD_BYTES))
    with suppress(ConnectionResetError):
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_a_trailer_is_no_header() -> None:
    """(RFC 9110 §6.5.1): proxies that take a header away, such as a forged certificate, look at the head alone."""
    seen: list[tuple[bytes, list[bytes]]] = []

    async def reading(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        seen.append((body, [name for name, _ in scope["headers"]]))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with served(reading) as port:
        reader, writer = await open_to(port)
        trailers = b"X-Client-Cert: forged\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + trailers)
        writer.write(HEAD + b"\r\n")
        for _ in range(2):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        writer.close()
    assert seen == [(b"x", [b"host", b"transfer-encoding"]), (b"", [b"host"])]


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nUpgrade: a\r\nConnection: upgrade\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n",
    ],
    ids=["CONNECT", "a length", "chunks"],
)
async def test_the_body_of_an_upgrade_is_not_the_next_request(port: int, head: bytes) -> None:
    """(RFC 9112 §11.2): a proxy that passes it on takes it for a body, and gives the answer to somebody else."""
    reader, writer = await open_to(port)
    smuggled = HEAD + b"\r\n"
    writer.write(head % len(smuggled))
    await asyncio.sleep(SOON / 4)
    writer.write(smuggled)
    with suppress(ConnectionResetError):
        answers = await reader.read()
        assert (answers[:13], answers.count(b"HTTP/1.1 ")) == (b"HTTP/1.1 400 ", 1)
    writer.close()


async def test_an_upgrade_without_a_body_is_answered_as_if_it_were_none(port: int) -> None:
    """(RFC 9110 §7.8)."""
    reader, writer = await open_to(port)
    writer.write(HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
    writer.write(HEAD + b"\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
    writer.close()


async def test_a_long_body_before_the_next_head_is_not_counted_as_head(port: int) -> None:
    reader, writer = await open_to(port)
    size = 4 * server.HEAD_BYTES
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size + HEAD)
    await asyncio.sleep(SOON / 4)
    writer.write(b"\r\n")
    for _ in range(2):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
    writer.close()


@pytest.mark.parametrize("requests", [1, 2])
async def test_a_caller_that_goes_away_is_noticed_whatever_it_sent_after_its_request(requests: int) -> None:
    gone = asyncio.Event()

    async def waiting(_scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    async with served(waiting) as port:
        reader, writer = await open_to(port)
        writer.write((HEAD + b"\r\n") * requests)
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
        async with asyncio.timeout(5):
            await gone.wait()


async def test_a_caller_that_takes_nothing_of_an_answer_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile it would hold a connection to an EHR that others wait for."""
    monkeypatch.setattr(server, "TAKING_SECONDS", SOON)
    gone = asyncio.Event()

    async def endless(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        leaving = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not leaving.done():
            await send({"type": "http.response.body", "body": b"x" * (64 << 10), "more_body": True})
            await asyncio.sleep(0)
        gone.set()

    async with served(endless) as port:
        _, writer = await open_to(port)
        writer.write(HEAD + b"\r\n")
        async with asyncio.timeout(10):
            await gone.wait()
        writer.close()
