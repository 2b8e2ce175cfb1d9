"""What of an EHR's answer reaches the app: status, allow-listed headers, the body with its links turned to the broker.

Refused instead of relayed: redirects (PX-05), HTML and anything that is not FHIR JSON (OA-04), links elsewhere. A raw
token that an EHR echoes is cut out of headers and body (HB-07).
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from broker.egress import StreamedAnswer, packing_of, unpacked
from broker.ehr.fhir_server import FHIR_JSON, answer_headers, is_json
from broker.ehr.packed import passed_packed
from broker.ehr.rewriting import ExtendPage, SecretRemover, UrlRewriter
from broker.ehr.url_map import UrlMap
from broker.errors import EhrMisbehaved, NotAcceptable
from broker.flows.check_answer import Checker, checker, harmless
from broker.interactions import Interaction
from broker.release import Checks
from broker.secret import Secret

_RAW_TYPES = frozenset({"Binary"})
"""Types that may be read as what they hold, not as FHIR JSON."""
_READABLE: Final = frozenset({"identity", "gzip", "deflate", ""})
"""How a body may be packed."""
_STEP_BYTES: Final = 16 << 10
"""Most of a body that is checked at once: it may take a microsecond a byte, and others wait."""
_REWRITTEN_BYTES: Final = 64 << 10
"""Most that is rewritten at once, likewise."""
_UNNAMED = "the EHR answered a body without a Content-Type (OA-04)"
_UNSAFE_RAW = re.compile(r"html|svg|javascript|ecmascript|[/+]xml|[/+]json(?![a-z0-9.-])")
"""Never as themselves under the broker's origin; a Binary of these comes as FHIR JSON. JSON is raw in no encoding."""

_NEVER = re.compile(r"q=0(?:\.0{0,3})?")


@dataclass(frozen=True, slots=True)
class FhirAnswer:
    """What the app gets."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]
    whole: bytes | None = None
    """The body, where it need not be waited for."""


def accept_for(interaction: Interaction, headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the Accept header to send on. Raises `NotAcceptable` for formats whose links cannot be rewritten."""
    asked = dict(interaction.parameters).get("_format") or _accept(headers)
    if not asked.isascii() or not asked.isprintable():
        raise NotAcceptable("the accepted formats cannot stand in a header")
    if interaction.kind in {"read", "vread"} and interaction.type in _RAW_TYPES:
        return asked or "*/*"
    if asked and "json" not in asked.lower() and "*" not in asked:
        raise NotAcceptable("the app accepts no JSON")
    return FHIR_JSON


def takes_packed(interaction: Interaction, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the EHR may pack the body: it passes as it is, and the app takes gzip (PX-11)."""
    passes = interaction.kind in {"read", "vread"} and interaction.type in _RAW_TYPES
    return passes and takes_gzip(headers)


def takes_gzip(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether an app takes a body that is packed by gzip (RFC 9110 §12.5.3)."""
    asked = ",".join(value.decode("latin-1") for name, value in headers if name.lower() == b"accept-encoding")
    words = (word.replace(" ", "").lower().partition(";") for word in asked.split(","))
    return any(coding == "gzip" and not _NEVER.fullmatch(weight) for coding, _, weight in words)


def relay(
    received: StreamedAnswer,
    interaction: Interaction,
    *,
    urls: UrlMap,
    token: Secret,
    extend_page: ExtendPage,
    checks: Checks | None = None,
) -> FhirAnswer:
    """Build the app's answer; with `checks` of what is released only. Raises `EhrMisbehaved`."""
    if not 200 <= received.status < 600:
        raise EhrMisbehaved(f"the EHR answered status {received.status}")
    if 300 <= received.status < 400 and received.status != 304:
        raise EhrMisbehaved(f"the EHR redirects (status {received.status}); a token is never sent after it (PX-05)")
    require_readable(received)
    as_json = is_json(received.headers)
    raw = interaction.type in _RAW_TYPES and not as_json
    if "content-type" in received.headers and not as_json:
        _require_harmless(received, raw=raw)
    headers = {**answer_headers(received.headers), **_locations(received.headers, urls, interaction.path)}
    remover = SecretRemover(token)
    clean = {name: remover.text(value) for name, value in headers.items() if value.isascii()}
    rewriter = None if raw else UrlRewriter(urls, extend_page)
    checked = None
    if checks is not None:
        checked, clean = checker(checks, received.status), harmless(clean, checks)
    if received.whole is not None:
        return FhirAnswer(received.status, clean, received.chunks, _whole_body(received, remover, checked, rewriter))
    chunks = received.chunks if "content-type" in received.headers else _nothing(received.chunks)
    if raw and received.is_packed and checked is None:
        return FhirAnswer(received.status, {**clean, "content-encoding": "gzip"}, passed_packed(chunks, token))
    if received.is_packed:
        chunks = unpacked(chunks)
    if checked is not None:
        chunks = _in_steps(chunks)
    body = _released(chunks, remover, checked)
    return FhirAnswer(received.status, clean, _rewritten(body, rewriter) if rewriter else body)


def require_readable(received: StreamedAnswer) -> None:
    """Raise `EhrMisbehaved` for a Content-Encoding that was not asked for: nobody could look for the token in it."""
    if packing_of(received.headers) not in _READABLE:
        raise EhrMisbehaved("the EHR answered in a Content-Encoding that was not asked for, and cannot be looked into")


def _require_harmless(received: StreamedAnswer, *, raw: bool) -> None:
    media_type = received.headers["content-type"].lower()
    if not raw or _UNSAFE_RAW.search(media_type):
        raise EhrMisbehaved(f"the EHR answered {received.status} with something that is not FHIR JSON (OA-04)")


def _locations(headers: Mapping[str, str], urls: UrlMap, path: str) -> dict[str, str]:
    found = {name: headers[name] for name in ("location", "content-location") if name in headers}
    turned = {name: urls.location_at_broker(url, path) for name, url in found.items()}
    return {name: url for name, url in turned.items() if url is not None}


def _whole_body(
    received: StreamedAnswer, remover: SecretRemover, checked: Checker | None, rewriter: UrlRewriter | None
) -> bytes:
    body = received.whole or b""
    if body and "content-type" not in received.headers:
        raise EhrMisbehaved(_UNNAMED)
    clean = remover.feed(body) + remover.finish()
    clean = checked.feed(clean) + checked.finish() if checked else clean
    return rewriter.feed(clean) + rewriter.finish() if rewriter else clean


async def _nothing(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass on a body without a type only if there is none: what nobody names cannot be checked."""
    async for chunk in chunks:
        if chunk:
            raise EhrMisbehaved(_UNNAMED)
        yield chunk


async def _in_steps(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Give a body bit by bit, and everybody else a turn after each: sending need not wait, least of all for nothing."""
    async for chunk in chunks:
        for begin in range(0, len(chunk), _STEP_BYTES):
            yield chunk[begin : begin + _STEP_BYTES]
            await asyncio.sleep(0)


async def _released(
    chunks: AsyncIterator[bytes], remover: SecretRemover, checked: Checker | None
) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        if out := remover.feed(chunk):
            yield checked.feed(out) if checked else out
    rest = remover.finish()
    yield checked.feed(rest) + checked.finish() if checked else rest


async def _rewritten(chunks: AsyncIterator[bytes], rewriter: UrlRewriter) -> AsyncIterator[bytes]:
    """Give a body with its URLs turned. What was checked as one thing comes in one piece, of up to 8 MiB."""
    async for chunk in chunks:
        for begin in range(0, len(chunk), _REWRITTEN_BYTES):
            if begin:
                await asyncio.sleep(0)  # others have their turn
            yield rewriter.feed(chunk[begin : begin + _REWRITTEN_BYTES])
    yield rewriter.finish()


async def begun(answer: FhirAnswer) -> FhirAnswer:
    """Wait for the first bytes that may be released: until then it can still become a refusal (`AnswerWithheld`)."""
    if answer.whole is not None:
        return answer
    async for chunk in answer.chunks:
        if chunk:
            return replace(answer, chunks=_after(chunk, answer.chunks))
    return answer


async def _after(first: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in chunks:
        yield chunk


def _accept(headers: Iterable[tuple[bytes, bytes]]) -> str:
    return ",".join(value.decode("latin-1") for name, value in headers if name.lower() == b"accept")
