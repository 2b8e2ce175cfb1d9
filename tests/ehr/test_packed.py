"""A packed body that passes as it is does not bring the raw token to an app either (HB-07)."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Iterable
from urllib.parse import quote

import pytest

from broker.egress import Unpacker, unpacked
from broker.egress.packing import PIECE_BYTES
from broker.ehr.packed import MOST_HELD, passed_packed
from broker.errors import EhrAnswerLost, EhrMisbehaved
from broker.secret import Secret

TOKEN = "eyJhbGciOi.abc/def~+" * 5


async def arriving(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def passed(pieces: Iterable[bytes]) -> tuple[bytes, bool]:
    """What passed, and whether the answer was whole."""
    out = bytearray()
    try:
        async for piece in passed_packed(arriving(pieces), Secret(TOKEN)):
            out += piece
    except EhrMisbehaved:
        return bytes(out), False
    return bytes(out), True


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_a_body_passes_byte_for_byte(size: int) -> None:
    packed = gzip.compress(bytes(range(256)) * 20 + TOKEN[:50].encode() + b"end")

    assert await passed(cut(packed, size)) == (packed, True)


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize(
    "token",
    [TOKEN, TOKEN.replace("/", r"\/"), TOKEN.replace("+", r"\u002b"), quote(TOKEN, safe="")],
    ids=["as it is", "slash", "escaped", "in a URL"],
)
async def test_a_token_does_not_pass_nor_does_most_of_it(size: int, token: str) -> None:
    text = b"x" * 1000 + b'{"diagnostics":"' + token.encode() + b'"}'

    out, whole = await passed(cut(gzip.compress(text, compresslevel=0), size))

    assert not whole
    assert token[:4].encode() not in zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(out)


async def test_a_body_that_stands_for_hardly_anything_is_not_held_without_end() -> None:
    pack = zlib.compressobj(0, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    begun = pack.compress(TOKEN[:10].encode()) + pack.flush(zlib.Z_SYNC_FLUSH)
    empty = b"\x00\x00\x00\xff\xff" * 1000  # stored blocks of no bytes

    out, whole = await passed([begun, *[empty] * (2 + MOST_HELD // len(empty))])

    assert (out, whole) == (b"", False)


async def test_a_large_body_passes_however_often_a_piece_of_it_ends_as_the_token_begins() -> None:
    line = bytes(range(256)) * 1000 + TOKEN[:2].encode()  # stored as it is: a piece is as long as what it stands for
    pack = zlib.compressobj(0, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    pieces = [pack.compress(line) + pack.flush(zlib.Z_SYNC_FLUSH) for _ in range(5)] + [pack.flush()]

    assert await passed(pieces) == (b"".join(pieces), True)


def test_all_that_a_piece_stands_for_is_given_also_where_zlib_has_taken_all_of_it_before() -> None:
    text = (b"ab" * PIECE_BYTES)[: PIECE_BYTES + 100]  # all but the first letters of it is said in very few bytes
    pack = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    begun = pack.compress(text) + pack.flush(zlib.Z_SYNC_FLUSH)

    for end in range(len(begun)):
        said = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(begun[:end])
        assert b"".join(Unpacker().feed(begun[:end])) == said


@pytest.mark.parametrize("body", [gzip.compress(b"x" * 1000, mtime=0)[:-9], b"no gzip"], ids=["cut short", "no gzip"])
async def test_a_body_that_is_not_whole_is_lost(body: bytes) -> None:
    for through in (passed_packed(arriving([body]), Secret(TOKEN)), unpacked(arriving([body]))):
        with pytest.raises(EhrAnswerLost):
            [piece async for piece in through]


async def test_others_have_a_turn_after_each_part_that_is_unpacked() -> None:
    """(PX-12): eight kilobytes would keep all others waiting for as long as eight megabytes are looked into."""
    parts, seen = 0, set[int]()

    async def other() -> None:
        while True:
            seen.add(parts)
            await asyncio.sleep(0)

    waiting = asyncio.create_task(other())
    async for _ in unpacked(arriving([gzip.compress(b"x" * 20 * PIECE_BYTES)])):
        parts += 1
    waiting.cancel()

    assert seen >= set(range(1, 21))
