"""The raw ASGI side of the proxy: bodies that stall, apps that leave."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message

from broker.errors import InvalidRequest, TooLarge
from broker.flows.relay import FhirAnswer
from broker.web import fhir

CHUNK = b"x" * (128 << 10)


async def test_a_long_answer_ends_when_the_app_has_gone() -> None:
    taken, gone = 0, asyncio.Event()
    sent: list[Message] = []

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            if taken == 10:
                gone.set()
            await asyncio.sleep(0)
            yield CHUNK

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await fhir._send_answer(FhirAnswer(200, {}, chunks()), "r", receive, send, head=False)

    assert taken < 20
    assert all(message["more_body"] for message in sent)


async def test_a_body_that_stalls_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir, "SILENCE_SECONDS", 0.01)

    async def receive() -> Message:
        await asyncio.Event().wait()
        return {}

    with pytest.raises(InvalidRequest, match="stalled"):
        [chunk async for chunk in fhir._read_body(receive)]


async def test_a_body_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir, "BODY_BYTES", 3 * len(CHUNK))

    async def receive() -> Message:
        return {"type": "http.request", "body": CHUNK, "more_body": True}

    with pytest.raises(TooLarge):
        [chunk async for chunk in fhir._read_body(receive)]
