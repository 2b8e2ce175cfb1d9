"""Bodies that come packed (RFC 9110 §8.4.1): unpacked bit by bit, since a few bytes may stand for very many."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Final

from broker.errors import EhrAnswerLost

PIECE_BYTES: Final = 64 << 10
"""Most that is unpacked at once."""
_TAKEN_BYTES: Final = 16 << 10
"""Most that is handed to zlib at once: at the end of each member it copies what is left."""
_PACKED: Final = frozenset({"gzip", "deflate"})


def packing_of(headers: Mapping[str, str]) -> str:
    """Return how a body is packed, in lower case; `identity` where it is not."""
    return headers.get("content-encoding", "identity").lower()


def stays_packed(asked: Mapping[str, str], got: Mapping[str, str]) -> bool:
    """Whether a body is packed as it was asked for, and so is given as it arrives."""
    return "gzip" in asked.get("accept-encoding", "") and packing_of(got) == "gzip"


def is_unpackable(got: Mapping[str, str]) -> bool:
    """Whether a body is packed in a way that is known here."""
    return packing_of(got) in _PACKED


async def unpacked(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Give what a body stands for, 64 KiB at a time. Raises `EhrAnswerLost`.

    What few bytes may stand for has no bound: a page of like results packs to a ninetieth and deflate reaches a
    thousandth, so there is little between the two; and who wants to give us work can send it plainly. Others have
    their turn after each part instead.
    """
    unpacker = Unpacker()
    async for chunk in chunks:
        for part in unpacker.feed(chunk):
            yield part
            await asyncio.sleep(0)  # nothing else need ever wait: more may be here already, and none of it be released
    unpacker.finish()


class Unpacker:
    """Unpacks one body."""

    def __init__(self) -> None:
        self._unpack = _member()
        self._begun = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Give what a piece stands for, 64 KiB at a time. Raises `EhrAnswerLost`."""
        for at in range(0, len(piece), _TAKEN_BYTES):
            yield from self._take(piece[at : at + _TAKEN_BYTES])

    def _take(self, piece: bytes) -> Iterator[bytes]:
        self._begun, is_full = True, False
        try:
            while piece or is_full:
                if self._unpack.eof:  # what was packed in several parts is several members (RFC 1952 §2.2)
                    self._unpack = _member()
                part = self._unpack.decompress(piece, PIECE_BYTES)
                yield part
                piece = self._unpack.unconsumed_tail or self._unpack.unused_data
                is_full = len(part) == PIECE_BYTES and not self._unpack.eof  # zlib may have more of it, without a byte
        except zlib.error:
            raise EhrAnswerLost("the answer broke off (it cannot be unpacked)") from None

    def finish(self) -> None:
        """Raise `EhrAnswerLost` unless the body is whole. One of no bytes is: a 304's, or that of a HEAD."""
        if self._begun and not self._unpack.eof:
            raise EhrAnswerLost("the answer broke off (it cannot be unpacked)")


def _member() -> "zlib._Decompress":
    return zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip, or deflate
