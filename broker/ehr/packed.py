"""A packed body that passes as it is: looked into for the raw token all the same (HB-07).

What is packed cannot be cut. So a piece waits while what it stands for may be the beginning of the token, and where the
token is, the answer ends.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from broker.egress import Unpacker
from broker.ehr.rewriting import overlap
from broker.errors import EhrMisbehaved
from broker.secret import Secret

MOST_HELD: Final = 256 << 10
"""Bytes that may wait."""


async def passed_packed(chunks: AsyncIterator[bytes], token: Secret) -> AsyncIterator[bytes]:
    """Give the pieces of a gzip body as they are. Raises `EhrMisbehaved`, `EhrAnswerLost`."""
    unpacker, text = Unpacker(), token.reveal().encode()
    spellings = {text, text.replace(b"/", rb"\/")}
    held = end = b""
    async for chunk in chunks:
        for part in unpacker.feed(chunk):
            window = end + part
            if any(spelling in window for spelling in spellings):
                raise EhrMisbehaved("the EHR repeats the token in a packed answer (HB-07)")
            end = window[len(window) - max(overlap(window, spelling) for spelling in spellings) :]
            await asyncio.sleep(0)  # few bytes may stand for very many, and others wait
        held += chunk
        if len(held) > MOST_HELD:
            raise EhrMisbehaved("the EHR packed hardly anything into very much")
        if not end:
            yield held
            held = b""
    unpacker.finish()
    yield held


async def unpacked(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Give what a gzip body stands for. Raises `EhrAnswerLost`."""
    unpacker = Unpacker()
    async for chunk in chunks:
        for part in unpacker.feed(chunk):
            yield part
    unpacker.finish()
