"""The connections to a FHIR server: framing that cannot be confused, bounded memory, and no request sent twice."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from broker.egress import Egress, http1, upstream
from broker.egress.http1 import HEAD_BYTES, HELD_BYTES, Http1Connection
from broker.egress.upstream import MOST_CONNECTIONS, Upstream, request_head
from broker.errors import EhrAnswerLost, EhrMisbehaved, EhrUnreachable, InvalidRequest
from tests.ehr.server import ScriptedServer, hang_up, reply, scripted_server, silence

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def ask(
    egress: Egress,
    url: str,
    *,
    method: str = "GET",
    content: bytes | AsyncIterator[bytes] | None = None,
    timeout: float = 5,
    **headers: str,
) -> tuple[int, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with egress.stream(method, url, headers=named, content=content, timeout=timeout) as answer:
        return answer.status, b"".join([chunk async for chunk in answer.chunks])


def raw(*parts: bytes) -> Script:
    """Answer with these bytes, each sent on its own, and close."""

    async def write(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return write


def dripping(piece: bytes, seconds: float, *, times: int = 1000) -> Script:
    """An answer that comes a piece at a time, one every so many seconds, in chunks."""

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        for _ in range(times):
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(seconds)
        writer.write(b"0\r\n\r\n")

    return drip


# Framing

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n", 200, b"abcde"),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", 200, b"to the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", 200, b"old"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b""),
        (INTERIM + b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok", 201, b"ok"),
    ],
    ids=["chunked", "until closed", "1.0", "204", "304", "interim"],
)  # fmt: skip
@pytest.mark.parametrize("pieces", [1, 1000], ids=["at once", "byte by byte"])
async def test_an_answer_is_read_however_it_is_framed_and_cut(
    egress: Egress, ehr: ScriptedServer, answer: bytes, status: int, body: bytes, pieces: int
) -> None:
    """(PX-12) (RFC 9112 §6, RFC 9110 §15.2)."""
    cut = [answer] if pieces == 1 else [answer[i : i + 1] for i in range(len(answer))]
    ehr.answers["/a"] = raw(*cut)

    assert await ask(egress, f"{ehr.url}/a") == (status, body)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * (HEAD_BYTES + 1),
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
        CHUNKED + b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 20_000,
        CHUNKED + b"2\r\n{}\r\n0\r\nX: " + b"y" * 2 * HEAD_BYTES,
        CHUNKED + b"2;x=" + b"y" * 2 * HEAD_BYTES,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n{}",
    ],
    ids=[
        "too short", "chunk too short", "no last chunk", "no length", "two lengths", "length and chunks",
        "negative length", "upgrade", "bad header", "long header", "many headers", "many trailers", "long trailer",
        "long chunk extension", "packed chunks", "packed to the end",
    ],
)  # fmt: skip
async def test_an_answer_that_can_be_read_in_two_ways_or_is_cut_short_is_a_lost_one(
    egress: Egress, ehr: ScriptedServer, answer: bytes
) -> None:
    """(PX-12) (RFC 9112 §6.3)."""
    ehr.answers["/a"] = raw(answer)

    with pytest.raises(EhrAnswerLost):
        await ask(egress, f"{ehr.url}/a")


async def test_a_second_answer_is_nobodys(egress: Egress, ehr: ScriptedServer) -> None:
    """(RFC 9112 §11.1): else the next caller would get it."""
    ehr.answers["/a"] = reply("mine") + reply("another's")
    ehr.answers["/b"] = reply("next")

    assert await ask(egress, f"{ehr.url}/a") == (200, b"mine")
    assert await ask(egress, f"{ehr.url}/b") == (200, b"next")
    assert ehr.connections == 2


async def test_what_arrives_unasked_between_two_requests_ends_the_connection(
    egress: Egress, ehr: ScriptedServer
) -> None:
    """(RFC 9112 §11.1)."""
    late = asyncio.Event()

    async def twice(writer: asyncio.StreamWriter) -> None:
        writer.write(reply("mine"))
        await writer.drain()
        await late.wait()
        writer.write(reply("another's"))
        await writer.drain()
        await asyncio.sleep(5)

    ehr.answers["/a"], ehr.answers["/b"] = twice, reply("next")
    assert await ask(egress, f"{ehr.url}/a") == (200, b"mine")
    late.set()
    await asyncio.sleep(0.05)

    assert await ask(egress, f"{ehr.url}/b") == (200, b"next")
    assert ehr.connections == 2


@pytest.mark.parametrize(
    ("status", "content", "connections"),
    [("200 OK", b"x", 1), ("201 Created", b"x", 1), ("404 Not Found", b"x", 2), ("400 Bad Request", None, 1)],
)
async def test_nobodys_request_follows_a_body_that_may_not_have_been_read(
    egress: Egress, ehr: ScriptedServer, status: str, content: bytes | None, connections: int
) -> None:
    """(RFC 9112 §11.2): such an EHR takes the body for the next request, and the next caller gets its answer."""
    ehr.answers["/a"] = reply("", status=status)
    ehr.answers["/b"] = reply("next")

    await ask(egress, f"{ehr.url}/a", method="POST", content=content)

    assert await ask(egress, f"{ehr.url}/b") == (200, b"next")
    assert ehr.connections == connections


async def test_what_comes_after_the_body_changes_nothing_that_came_before(egress: Egress, ehr: ScriptedServer) -> None:
    """(RFC 9110 §6.5.1): what was decided by the head would be undone."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\nTransfer-Encoding: chunked\r\n\r\n"
    ehr.answers["/a"] = raw(head, b"2\r\n{}\r\n0\r\nContent-Type: text/html\r\nLocation: /b\r\n\r\n")

    async with egress.stream("GET", f"{ehr.url}/a", headers={}, timeout=5) as answer:
        assert [chunk async for chunk in answer.chunks] == [b"{}"]
    assert answer.headers == {"content-type": "application/fhir+json", "transfer-encoding": "chunked"}


async def test_the_answer_to_head_has_no_body_whatever_its_length_says(egress: Egress, ehr: ScriptedServer) -> None:
    """(RFC 9110 §9.3.2)."""
    ehr.answers["/a"] = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"

    assert await ask(egress, f"{ehr.url}/a", method="HEAD", timeout=1) == (200, b"")


async def test_an_answer_that_is_not_taken_to_its_end_leaves_nothing_for_the_next(
    egress: Egress, ehr: ScriptedServer
) -> None:
    ehr.answers["/long"], ehr.answers["/b"] = reply(b"x" * 5_000_000), reply("next")
    async with egress.stream("GET", f"{ehr.url}/long", headers={}, timeout=5) as answer:
        assert await anext(aiter(answer.chunks))

    assert await ask(egress, f"{ehr.url}/b") == (200, b"next")
    assert ehr.connections == 2


async def test_a_long_answer_that_is_read_at_once_leaves_a_connection_that_is_read_on() -> None:
    """It is more than is read ahead, so reading stops; it goes on once the answer is taken."""
    body, head = b"x" * (HELD_BYTES + 1), b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n"

    async def answer_the_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply("next"))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer_the_second, "127.0.0.1", 0)
    place = server.sockets[0].getsockname()
    _, connection = await asyncio.get_running_loop().create_connection(Http1Connection, *place)
    asked = asyncio.create_task(connection.exchange(head, None, length=0, silence=5, is_head=False))
    await asyncio.sleep(0)
    connection.data_received(reply(body))
    await asked
    assert connection.whole() is None
    assert await connection.chunk() == body
    assert connection.is_reusable

    await connection.exchange(head, None, length=0, silence=1, is_head=False)
    assert await connection.chunk() == b"next"
    connection.close()
    server.close()


async def test_a_long_head_is_refused_though_all_of_it_arrives_at_once(ehr: ScriptedServer) -> None:
    """Repeated names are joined, which takes the square of their number: so long nothing else is done."""
    ehr.answers["/a"] = silence
    _, connection = await asyncio.get_running_loop().create_connection(Http1Connection, "127.0.0.1", int(ehr.url[17:]))
    head = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n"
    asked = asyncio.create_task(connection.exchange(head, None, length=0, silence=5, is_head=False))
    await asyncio.sleep(0)

    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + b"a:\r\n" * (HEAD_BYTES // 2) + b"\r\n")

    with pytest.raises(EhrAnswerLost):
        await asked
    assert not connection.is_reusable


# Never twice


async def test_a_read_on_a_connection_that_was_closed_meanwhile_goes_out_again(
    egress: Egress, ehr: ScriptedServer
) -> None:
    """(RFC 9110 §9.2.2): it is safe."""
    await _close_after_one(egress, ehr)

    assert await ask(egress, f"{ehr.url}/b") == (200, b"next")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_a_write_on_such_a_connection_is_not_sent_again(egress: Egress, ehr: ScriptedServer, method: str) -> None:
    """(PX-09): nobody knows whether the first one was processed."""
    await _close_after_one(egress, ehr)
    before = len(ehr.requests)

    with pytest.raises(EhrAnswerLost):
        await ask(egress, f"{ehr.url}/b", method=method, content=b"{}" if method != "DELETE" else None)

    assert len(ehr.requests) - before <= 1


async def test_a_read_that_was_heard_and_not_answered_is_not_sent_again(egress: Egress, ehr: ScriptedServer) -> None:
    ehr.answers["/a"] = hang_up

    with pytest.raises(EhrAnswerLost):
        await ask(egress, f"{ehr.url}/a")

    assert len(ehr.requests) == 1


async def _close_after_one(egress: Egress, ehr: ScriptedServer) -> None:
    """Leave an idle connection that its server gives up as the next request comes in, without a word."""

    async def once(writer: asyncio.StreamWriter) -> None:
        writer.write(reply("first"))
        await writer.drain()
        reader = writer.transport.get_protocol()._stream_reader  # type: ignore[attr-defined]
        await reader.read(1)
        writer.transport.abort()

    ehr.answers["/a"], ehr.answers["/b"] = once, reply("next")
    assert await ask(egress, f"{ehr.url}/a") == (200, b"first")


# Bounds


async def test_an_answer_that_nobody_takes_is_not_read_ahead_without_end(egress: Egress, ehr: ScriptedServer) -> None:
    """(PX-11): back-pressure, from the app to the EHR."""
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    ehr.answers["/a"] = endless
    async with egress.stream("GET", f"{ehr.url}/a", headers={}, timeout=5) as answer:
        await anext(aiter(answer.chunks))
        await asyncio.sleep(0.2)
        first = sent
        await asyncio.sleep(0.2)

        assert sent == first
        assert first < 16 * HELD_BYTES + (8 << 20), "what the kernel's buffers take comes on top"


async def test_few_packed_bytes_that_stand_for_very_many_are_unpacked_bit_by_bit(
    egress: Egress, ehr: ScriptedServer
) -> None:
    """(PX-12)."""
    ehr.answers["/a"] = reply(gzip.compress(b"x" * 50_000_000), "Content-Encoding: gzip")

    async with egress.stream("GET", f"{ehr.url}/a", headers={}, timeout=5) as answer:
        sizes = [len(chunk) async for chunk in answer.chunks]

    assert (sum(sizes), max(sizes)) == (50_000_000, 65536)


async def test_what_was_asked_for_packed_comes_as_it_is(egress: Egress, ehr: ScriptedServer) -> None:
    """(PX-11)."""
    packed = gzip.compress(b"x" * 1000)
    ehr.answers["/a"] = reply(packed, "Content-Encoding: gzip")

    async with egress.stream("GET", f"{ehr.url}/a", headers={"accept-encoding": "gzip"}, timeout=5) as answer:
        assert (answer.is_packed, b"".join([chunk async for chunk in answer.chunks])) == (True, packed)
    assert ehr.requests[0].headers["accept-encoding"] == "gzip"
    async with egress.stream("GET", f"{ehr.url}/a", headers={}, timeout=5) as answer:
        assert (answer.is_packed, b"".join([chunk async for chunk in answer.chunks])) == (False, b"x" * 1000)
    assert ehr.requests[1].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("cut", [1, 7, 10_000], ids=["byte by byte", "in small pieces", "at once"])
async def test_what_was_packed_in_several_parts_is_read_as_one(egress: Egress, ehr: ScriptedServer, cut: int) -> None:
    """(PX-12) (RFC 1952 §2.2)."""
    packed = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two")
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    ehr.answers["/a"] = raw(head, *(packed[at : at + cut] for at in range(0, len(packed), cut)))

    assert await ask(egress, f"{ehr.url}/a") == (200, b"one two")


async def test_very_many_parts_are_read_as_one_too(egress: Egress, ehr: ScriptedServer) -> None:
    """(PX-12)."""
    lines = [b"line %d\n" % number for number in range(3000)]
    ehr.answers["/a"] = reply(b"".join(map(gzip.compress, lines)), "Content-Encoding: gzip")

    assert await ask(egress, f"{ehr.url}/a") == (200, b"".join(lines))


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "304 Not Modified")])
async def test_an_answer_without_a_body_is_whole_though_it_would_be_packed(
    egress: Egress, ehr: ScriptedServer, method: str, status: str
) -> None:
    ehr.answers["/a"] = f"HTTP/1.1 {status}\r\nContent-Encoding: gzip\r\nContent-Length: 90\r\n\r\n".encode()

    assert await ask(egress, f"{ehr.url}/a", method=method) == (int(status[:3]), b"")


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(b"x" * 1000, mtime=0)[:-9],
        zlib.compress(b"x" * 1000)[:-1],
        b"no gzip",
        gzip.compress(b"one", mtime=0) + gzip.compress(b"two", mtime=0)[:-1],
        gzip.compress(b"one", mtime=0) + b"x" * 1_000_000,
    ],
    ids=["gzip cut short", "deflate cut short", "not packed", "second member cut short", "goes on for long"],
)
async def test_a_packed_answer_that_is_not_whole_is_a_lost_one(
    egress: Egress, ehr: ScriptedServer, packed: bytes
) -> None:
    ehr.answers["/a"] = reply(packed, "Content-Encoding: gzip")

    with pytest.raises(EhrAnswerLost, match="cannot be unpacked"):
        await ask(egress, f"{ehr.url}/a")


async def test_silence_within_a_body_is_noticed(egress: Egress, ehr: ScriptedServer) -> None:
    async def stalls(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await writer.drain()
        await silence(writer)

    ehr.answers["/a"] = stalls

    with pytest.raises(EhrAnswerLost, match=r"nothing arrived for 0\.2 s"):
        await ask(egress, f"{ehr.url}/a", timeout=0.2)


@pytest.mark.parametrize("begun", [b"", CHUNKED, CHUNKED + b"1\r\nx\r\n0\r\n"], ids=["head", "chunk", "trailers"])
async def test_bytes_that_bring_nothing_of_the_answer_are_silence(
    egress: Egress, ehr: ScriptedServer, begun: bytes
) -> None:
    """One byte now and then would keep a request and its connection for days."""

    async def drips(writer: asyncio.StreamWriter) -> None:
        writer.write(begun or b"HTTP/1.1 200 OK\r\nX: ")
        writer.write(b"1;x=" if begun == CHUNKED else b"X: " * bool(begun))
        while True:
            writer.write(b"y")
            await writer.drain()
            await asyncio.sleep(0.05)

    ehr.answers["/a"] = drips

    with pytest.raises(EhrAnswerLost, match=r"nothing arrived for 0\.3 s"):
        async with asyncio.timeout(3):
            await ask(egress, f"{ehr.url}/a", timeout=0.3)


async def test_a_body_of_which_little_comes_now_and_then_ends(
    egress: Egress, ehr: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold a place that others wait for, and each byte is heard in time."""
    monkeypatch.setattr(http1, "SLOW_SECONDS", 0.3)
    ehr.answers["/a"] = dripping(b"x", 0.05)

    with pytest.raises(EhrAnswerLost, match="came too slowly"):
        async with asyncio.timeout(3):
            await ask(egress, f"{ehr.url}/a", timeout=1)


async def test_a_body_that_comes_slowly_may_take_its_time_if_it_is_long(
    egress: Egress, ehr: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "SLOW_SECONDS", 0.1)
    ehr.answers["/a"] = dripping(b"x" * 65536, 0.05, times=10)

    assert await ask(egress, f"{ehr.url}/a", timeout=1) == (200, b"x" * 655_360)


async def test_the_time_that_the_app_takes_is_not_the_ehrs(
    egress: Egress, ehr: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "SLOW_SECONDS", 0.2)
    ehr.answers["/a"] = dripping(b"x", 0.0, times=4)

    async with egress.stream("GET", f"{ehr.url}/a", headers={}, timeout=1) as answer:
        async for _ in answer.chunks:
            await asyncio.sleep(0.3)


async def test_no_more_connections_than_allowed_are_open_and_who_waits_too_long_is_refused(
    ehr: ScriptedServer,
) -> None:
    """(RF-08): a request that found no connection was certainly not sent."""
    dialled: list[Http1Connection] = []

    async def dial(_: float) -> Http1Connection:
        connection = Http1Connection()
        await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", int(ehr.url[17:]))
        dialled.append(connection)
        return connection

    upstream = Upstream(dial, most=2)
    first, _ = await upstream.take(5), await upstream.take(5)
    with pytest.raises(EhrUnreachable, match="all are in use"):
        await upstream.take(0.1)

    waiting = asyncio.create_task(upstream.take(5))
    await asyncio.sleep(0)
    upstream.give_back(first)
    assert await waiting is first
    cancelled = asyncio.create_task(upstream.take(5))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    upstream.give_back(first)
    assert await upstream.take(5) is first
    assert len(dialled) == 2
    for connection in dialled:
        connection.close()


async def test_who_gives_up_waiting_at_the_moment_that_a_place_is_free_is_told_so() -> None:
    async def dial(_: float) -> Http1Connection:
        return Http1Connection()

    upstream = Upstream(dial, most=1)
    first = await upstream.take(5)
    waiting = asyncio.create_task(upstream.take(5))
    await asyncio.sleep(0)
    waiting.cancel()
    upstream.give_back(first)

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await upstream.take(5) is first


async def test_a_connection_that_cannot_be_made_gives_its_place_back() -> None:
    async def dial(_: float) -> Http1Connection:
        raise EhrUnreachable("no connection")

    upstream = Upstream(dial, most=1)
    for _ in range(3):
        with pytest.raises(EhrUnreachable, match=r"no connection$"):
            await upstream.take(1)


async def test_idle_connections_are_closed_though_no_other_request_comes(
    egress: Egress, ehr: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an EHR could name one place after the other, and each would keep some."""
    monkeypatch.setattr(upstream, "IDLE_SECONDS", 0.2)
    ended: list[float] = []

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(reply("once"))
        await writer.drain()
        await writer.transport.get_protocol()._stream_reader.read()  # type: ignore[attr-defined]
        ended.append(asyncio.get_running_loop().time())

    ehr.answers["/a"] = answer
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(ask(egress, f"{ehr.url}/a") for _ in range(3)))
    assert not ended
    async with asyncio.timeout(5):
        while len(ended) < 3:  # noqa: ASYNC110  # nothing here tells when it is closed
            await asyncio.sleep(0.01)
    assert min(ended) - began >= 0.2


async def test_an_origin_has_the_same_connections_however_it_is_spelt(egress: Egress, ehr: ScriptedServer) -> None:
    """(RFC 3986 §6.2.2.1)."""
    ehr.answers["/a"] = reply("one")
    for host in ("localhost", "LocalHost", "LOCALHOST"):
        assert await ask(egress, f"{ehr.url.replace('127.0.0.1', host)}/a") == (200, b"one")

    assert ehr.connections == 1


async def test_each_ehr_has_its_own_connections(egress: Egress, ehr: ScriptedServer) -> None:
    """One that is slow, or slowly sent to, keeps nobody from another."""
    ehr.answers["/a"] = silence
    async with scripted_server({"/b": reply("next")}) as other, AsyncExitStack() as stack:
        tasks = [asyncio.create_task(ask(egress, f"{ehr.url}/a")) for _ in range(MOST_CONNECTIONS + 5)]
        stack.callback(lambda: [task.cancel() for task in tasks])
        await asyncio.sleep(0.1)
        assert await ask(egress, f"{other.url}/b", timeout=1) == (200, b"next")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# Requests


@pytest.mark.parametrize(
    ("method", "content", "framing"),
    [
        ("GET", None, {}),
        ("DELETE", None, {}),
        ("POST", None, {"content-length": "0"}),
        ("POST", b"", {"content-length": "0"}),
        ("PUT", b"{}", {"content-length": "2"}),
    ],
)
async def test_a_body_is_announced_as_it_is(
    egress: Egress, ehr: ScriptedServer, method: str, content: bytes | None, framing: dict[str, str]
) -> None:
    """(RFC 9110 §8.6)."""
    ehr.answers["/a"] = reply("")

    await ask(egress, f"{ehr.url}/a", method=method, content=content, accept="x")

    (request,) = ehr.requests
    sent = {name: value for name, value in request.headers.items() if name != "user-agent"}
    assert sent == {"host": ehr.url[7:], "accept": "x", "accept-encoding": "identity", **framing}


async def test_a_body_whose_length_the_app_said_goes_on_with_it(egress: Egress, ehr: ScriptedServer) -> None:
    """Some EHRs refuse chunks."""

    async def body() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    ehr.answers["/a"] = reply("")
    await ask(egress, f"{ehr.url}/a", method="PUT", content=body(), content_length="7")

    assert (ehr.requests[0].body, ehr.requests[0].headers["content-length"]) == (b"one two", "7")
    assert "transfer-encoding" not in ehr.requests[0].headers


async def test_an_ehr_that_has_heard_enough_is_not_sent_the_rest(egress: Egress) -> None:
    """(PX-11): 413 in the middle of a long upload."""
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b"x" * 65536
            await asyncio.sleep(0)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply("too long", status="413 Content Too Large"))
        await writer.drain()
        await reader.read(1 << 16)
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a"
    try:
        assert await ask(egress, url, method="PUT", content=body()) == (413, b"too long")
    finally:
        server.close()
    assert sent < 1000


async def test_a_request_that_was_not_sent_whole_leaves_no_gap_for_the_next_one(
    egress: Egress, ehr: ScriptedServer
) -> None:
    """(RFC 9112 §9.3): an EHR may answer before it has heard all, and takes the next request for the rest."""
    heard, answered, ended = bytearray(), asyncio.Event(), asyncio.Semaphore(0)

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply("", status="403 Forbidden"))
        while more := await reader.read(65536):
            heard.extend(more)
        writer.close()
        ended.release()

    async def body() -> AsyncIterator[bytes]:
        yield b"a part"
        await answered.wait()
        raise InvalidRequest("the app went away")

    server = await asyncio.start_server(early, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a"
    asyncio.get_running_loop().call_later(0.1, answered.set)
    try:
        with pytest.raises(InvalidRequest):
            await ask(egress, url, method="PUT", content=body(), content_length="1000")
        assert (await ask(egress, url, authorization="Bearer another's"))[0] == 403
    finally:
        await egress.close()
        server.close()
    await ended.acquire()
    await ended.acquire()
    assert heard == b"a part"


async def test_an_ehr_that_hangs_up_in_the_middle_of_a_body_is_noticed_at_the_next_piece(egress: Egress) -> None:
    """A write that may have been processed: 504, and nothing that only one event loop raises."""
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(5):
            sent += 1
            yield b"x"
            await asyncio.sleep(0.05)

    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read(1)
        writer.transport.abort()

    server = await asyncio.start_server(hangs_up, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a"
    try:
        with pytest.raises(EhrAnswerLost):
            await ask(egress, url, method="PUT", content=body())
    finally:
        server.close()
    assert sent == 2


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/a HTTP/1.1\r\nx: y\r\n", {}),
        ("/a\nx", {}),
        ("/ä", {}),
        ("/a", {"accept": "a\r\nauthorization: canary"}),
        ("/a", {"accept": "a\0"}),
        ("/a b", {}),
    ],
)
def test_what_could_be_read_as_another_header_or_request_is_never_sent(target: str, headers: dict[str, str]) -> None:
    """(RFC 9112 §11.2)."""
    with pytest.raises(EhrMisbehaved):
        request_head("GET", target, "ehr.example", headers, length=0)
