"""Who takes slowly slows down who sends, through the broker and both ways; nothing piles up in between (PX-12)."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx2
from redis.asyncio import Redis

from tests.stage import BrokerStage, Sandbox, open_stage

PIECE: Final = b'{"fullUrl":"urn:uuid:1","resource":{"resourceType":"Basic"}},' * 1000
MOST: Final = 24 << 20
"""Bytes that may be on their way while nobody takes them: the broker holds far less, the kernel takes the rest."""
BODY: Final = 48 << 20
SETTLED: Final = 0.5
"""Seconds in which nothing more is sent by who has to wait."""
Fhir = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def ehr_whose_fhir_server(fhir: Fhir, sandbox: Sandbox, redis: Redis, state: Path) -> AsyncIterator[BrokerStage]:
    """A broker in front of an EHR whose authorization server is the sandbox, and whose FHIR server is the test's."""
    document = httpx2.get(f"{sandbox.fhir_base}/.well-known/smart-configuration", trust_env=False).content

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/.well-known/" in head.partition(b"\r\n")[0]:
                length = f"Content-Length: {len(document)}\r\nConnection: close\r\n\r\n".encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + length + document)
                await writer.drain()
            else:
                await fhir(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/r4"
    try:
        audience = f'authorize_audience = "{sandbox.fhir_base}"'
        async with open_stage(sandbox, redis, state, fhir_base=base, ehr=audience) as stage:
            yield stage
    finally:
        server.close()


async def settled(count: Callable[[], int]) -> int:
    """Return a count once it has stopped growing."""
    before = -1
    while before != count():
        before = count()
        await asyncio.sleep(SETTLED)
    return before


async def test_an_app_that_takes_slowly_stops_the_ehr(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> None:
    """(PX-12): and takes what was sent, turned as it passes, when it goes on."""
    sent, most = 0, BODY

    async def long_bundle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\n\r\n")
        writer.write(b'{"resourceType":"Bundle","entry":[')
        while sent < most:
            writer.write(PIECE)
            await writer.drain()
            sent += len(PIECE)
        writer.write(b"{}]}")
        await writer.drain()

    async with ehr_whose_fhir_server(long_bundle, sandbox, redis, tmp_path) as stage:
        reports = stage.app("reports")
        form = {"grant_type": "client_credentials", "scope": "system/Observation.rs", "resource": reports.base}
        handle = (await reports.token(**form)).json()["access_token"]
        headers = {"Authorization": f"Bearer {handle}"}

        async with reports.http.stream("GET", f"{reports.base}/Observation", headers=headers) as answer:
            chunks = answer.aiter_bytes()
            taken = len(await anext(chunks))
            waiting = await settled(lambda: sent)
            async for chunk in chunks:
                taken += len(chunk)
        await reports.close()

    assert waiting < MOST
    assert taken == sent + len(b'{"resourceType":"Bundle","entry":[{}]}') > BODY


async def test_an_ehr_that_takes_slowly_stops_the_app(sandbox: Sandbox, redis: Redis, tmp_path: Path) -> None:
    """(PX-12): and gets the whole of it when it goes on."""
    go_on, sent, arrived = asyncio.Event(), 0, 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        await go_on.wait()
        while arrived < BODY:
            arrived += len(await reader.read(1 << 20))
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        text = json.dumps({"resourceType": "Observation", "note": [{"text": "x" * 1000}]}).encode()
        yield text
        sent = len(text)
        while sent < BODY:
            piece = b" " * min(64 << 10, BODY - sent)
            yield piece
            sent += len(piece)

    async with ehr_whose_fhir_server(slow, sandbox, redis, tmp_path) as stage:
        app = stage.app()
        given = await app.standalone(scope="launch/patient patient/Observation.cruds")
        headers = {"Content-Type": "application/fhir+json", "Content-Length": str(BODY)}
        asked = asyncio.create_task(
            app.fhir(given["access_token"], "Observation", method="POST", content=body(), headers=headers)
        )
        waiting = await settled(lambda: sent)
        go_on.set()
        answer = await asked
        await app.close()

    assert 0 < waiting < MOST
    assert (answer.status_code, arrived) == (201, BODY)
