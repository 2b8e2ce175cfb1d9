"""A file that comes packed goes on packed where the app takes that, and never with the token in it (HB-07) (BD-12)."""

import gzip
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from broker.egress import Egress
from broker.errors import EhrMisbehaved
from broker.flows.bulk.file import relay_file
from broker.flows.relay import FhirAnswer
from broker.secret import Secret
from tests.ehr.server import reply, scripted_server

TOKEN = Secret("eyJhbGciOi.abc/def~+" * 5)
LINES = b'{"resourceType":"Patient","id":"1"}\n' * 5000
ECHO = LINES + b'{"resourceType":"Basic","id":"' + TOKEN.reveal().encode() + b'"}\n' + LINES


@asynccontextmanager
async def relayed(
    body: bytes, *, packing: str, accepted: str, token: Secret | None = TOKEN
) -> AsyncIterator[FhirAnswer]:
    """Give what an app gets that takes `accepted`, of a file that the EHR has in this packing."""
    egress = Egress(allow_loopback_http=True)
    async with scripted_server({"/file": reply(body, f"Content-Encoding: {packing}")}) as ehr:
        asked = {"accept-encoding": accepted}
        async with egress.stream("GET", f"{ehr.url}/file", headers=asked, timeout=5) as answer:
            yield relay_file(answer, token)
    await egress.close()


async def take(answer: FhirAnswer, into: bytearray) -> None:
    async for chunk in answer.chunks:
        into += chunk


async def body_of(answer: FhirAnswer) -> bytes:
    body = bytearray()
    await take(answer, body)
    return bytes(body)


@pytest.mark.parametrize("token", [TOKEN, None], ids=["with the token", "without it"])
async def test_a_packed_file_passes_byte_for_byte(token: Secret | None) -> None:
    packed = gzip.compress(LINES)

    async with relayed(packed, packing="gzip", accepted="gzip", token=token) as answer:
        assert answer.headers == {"content-type": "application/fhir+ndjson", "content-encoding": "gzip"}
        assert await body_of(answer) == packed


async def test_a_packed_file_that_echoes_the_token_is_refused_and_not_a_letter_of_it_passes() -> None:
    passed = bytearray()
    async with relayed(gzip.compress(ECHO, 0), packing="gzip", accepted="gzip") as answer:
        with pytest.raises(EhrMisbehaved, match="HB-07"):
            await take(answer, passed)

    assert TOKEN.reveal()[:4].encode() not in zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(passed)


async def test_the_token_is_found_across_the_parts_that_a_file_was_packed_in() -> None:
    """(HB-07) (RFC 1952 §2.2)."""
    middle, passed = ECHO.index(TOKEN.reveal().encode()) + 20, bytearray()
    packed = gzip.compress(ECHO[:middle]) + gzip.compress(ECHO[middle:])
    async with relayed(packed, packing="gzip", accepted="gzip") as answer:
        with pytest.raises(EhrMisbehaved, match="HB-07"):
            await take(answer, passed)
    assert not passed


@pytest.mark.parametrize(
    ("packing", "body"), [("gzip", gzip.compress(ECHO)), ("deflate", zlib.compress(ECHO))], ids=["gzip", "deflate"]
)
async def test_an_app_that_takes_no_gzip_gets_it_plain_and_without_the_token(packing: str, body: bytes) -> None:
    async with relayed(body, packing=packing, accepted="identity") as answer:
        assert answer.headers == {"content-type": "application/fhir+ndjson"}
        plain = await body_of(answer)

    assert TOKEN.reveal().encode() not in plain
    assert plain.startswith(LINES)
    assert plain.endswith(LINES)


async def test_a_file_in_another_packing_than_was_asked_for_comes_plain() -> None:
    async with relayed(zlib.compress(LINES), packing="deflate", accepted="gzip") as answer:
        assert "content-encoding" not in answer.headers
        assert await body_of(answer) == LINES


async def test_a_file_in_a_packing_that_cannot_be_looked_into_is_refused() -> None:
    with pytest.raises(EhrMisbehaved, match="Content-Encoding"):
        async with relayed(LINES, packing="br", accepted="gzip"):
            pass
