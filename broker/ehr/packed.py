"""A packed body that passes as it is: looked into for the raw token all the same (HB-07).

What is packed cannot be cut. So a piece waits while the last of what it stands for may be the beginning of the token,
and where the token is, the answer ends.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from broker.egress import Unpacker
from broker.ehr.spellings import Spellings
from broker.errors import EhrMisbehaved
from broker.secret import Secret

MOST_HELD: Final = 256 << 10
"""Bytes that may wait behind the piece in which what may be the token begins."""


async def passed_packed(chunks: AsyncIterator[bytes], token: Secret) -> AsyncIterator[bytes]:
    """Give the pieces of a gzip body as they are. Raises `EhrMisbehaved`, `EhrAnswerLost`."""
    unpacker, spellings = Unpacker(), Spellings(token.reveal().encode())
    held, waiting, end = b"", 0, b""
    async for chunk in chunks:
        told = 0
        for part in unpacker.feed(chunk):
            told += len(part)
            window = end + part
            found, begun = spellings.look(window)
            if found:
                raise EhrMisbehaved("the EHR repeats the token in a packed answer (HB-07)")
            end = window[len(window) - begun :]
            await asyncio.sleep(0)  # few bytes may stand for very many, and others wait
        if len(end) > told:  # what may be the token began in a piece that waits
            waiting += len(chunk)
            if waiting > MOST_HELD:
                raise EhrMisbehaved("the EHR packed hardly anything into very much")
        else:  # it begins in this one
            if held:
                yield held
            held, waiting = b"", 0
        held += chunk
        if not end:
            yield held
            held = b""
    unpacker.finish()
    yield held
