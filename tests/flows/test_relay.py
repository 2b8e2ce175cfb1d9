import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx2
import pytest

from broker.egress import StreamedAnswer
from broker.ehr.url_map import UrlMap
from broker.errors import AnswerWithheld, EhrAnswerLost, EhrMisbehaved, NotAcceptable
from broker.flows.relay import FhirAnswer, accept_for, begun, relay, takes_packed
from broker.interactions import Interaction
from broker.membership import Patient
from broker.release import Checks, Rule, Shape
from broker.secret import Secret

EHR = "https://ehr.example/r4"
OURS = "https://broker.example/fhir/epic"
TOKEN = "raw-t0ken"
FHIR = "application/fhir+json"


def interaction(
    kind: str = "search-type", type_: str | None = "Observation", format_: str | None = None
) -> Interaction:
    parameters = () if format_ is None else (("_format", format_),)
    return Interaction(kind, "GET", path="", query="", type=type_, parameters=parameters)


def received(status: int = 200, headers: Mapping[str, str] | None = None, *chunks: bytes) -> StreamedAnswer:
    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    pairs = ({"Content-Type": FHIR} if headers is None else headers).items()
    raw = [(name.encode(), value.encode()) for name, value in pairs]
    return StreamedAnswer(status, httpx2.Headers(raw), body())


def relayed(answer: StreamedAnswer, asked: Interaction | None = None) -> FhirAnswer:
    return relay(
        answer,
        asked or interaction(),
        urls=UrlMap(OURS, EHR, ["http://ehr.internal:8080/r4"]),
        token=Secret(TOKEN),
        extend_page=lambda path, query: "" if path else f"&_sbpage={len(query)}",
    )


async def body_of(answer: FhirAnswer) -> bytes:
    return b"".join([chunk async for chunk in answer.chunks])


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308, 399])
def test_a_redirect_is_refused(status: int) -> None:
    """PX-05."""
    with pytest.raises(EhrMisbehaved, match="redirects"):
        relayed(received(status, {"location": f"{EHR}/Patient/2"}))


@pytest.mark.parametrize("status", [200, 201, 204, 304, 400, 404, 409, 410, 412, 422, 500, 503])
def test_every_other_status_reaches_the_app(status: int) -> None:
    assert relayed(received(status)).status == status


@pytest.mark.parametrize(
    "media_type",
    [
        "text/html",
        "text/html; charset=utf-8",
        "TEXT/HTML",
        "application/xhtml+xml",
        "application/fhir+xml",
        "application/xml",
        "text/xml",
        "text/plain",
        "application/octet-stream",
        "application/fhir+ndjson",
        "multipart/mixed",
        "text/html, application/fhir+json",
        "application/fhir+json; charset=utf-16",
        "",
    ],
)
@pytest.mark.parametrize("status", [200, 400, 500])
def test_what_is_not_fhir_json_is_refused(media_type: str, status: int) -> None:
    """OA-04."""
    with pytest.raises(EhrMisbehaved, match=f"answered {status} with something that is not FHIR JSON"):
        relayed(received(status, {"content-type": media_type}, b"<script>"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", ['{"a":"raw-t0ken"}', ' {"a":1}', "1"], ids=["object", "space", "number"])
async def test_json_in_another_encoding_is_refused_before_any_of_it_goes_out(encoding: str, text: str) -> None:
    """(HB-07) (PX-02): many clients tell by the first bytes what it is."""
    for body in (text.encode(encoding), text.encode(encoding) + b" " * 100_000):
        with pytest.raises(EhrMisbehaved, match="JSON that is not UTF-8"):
            relayed(replace(received(), whole=body))
        for chunks in ([body], [body[n : n + 1] for n in range(8)] + [body[8:]]):
            with pytest.raises(EhrMisbehaved, match="JSON that is not UTF-8"):
                assert not await body_of(relayed(received(200, None, *chunks)))


@pytest.mark.parametrize("body", [b"", b"1", b"{}", b'\xef\xbb\xbf{"a":1}', '{"é":"\0"}'.encode()])
async def test_json_in_utf_8_passes(body: bytes) -> None:
    for n in range(len(body) + 1):
        assert await body_of(relayed(received(200, None, body[:n], body[n:]))) == body


async def test_an_answer_without_content_needs_no_type() -> None:
    answer = relayed(received(204, {}))

    assert (answer.headers, await body_of(answer)) == ({}, b"")


@pytest.mark.parametrize(
    "media_type",
    [
        "application/pdf",
        "image/png",
        "text/plain",
        "application/octet-stream",
        "application/dicom",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ],
)
@pytest.mark.parametrize("kind", ["read", "vread"])
async def test_a_binary_is_relayed_as_what_it_holds(media_type: str, kind: str) -> None:
    """Its bytes are not looked at, but for the token."""
    content = b'\x00\xff{"fullUrl":"' + EHR.encode() + b'/Patient/1"}'

    answer = relayed(received(200, {"content-type": media_type}, content), interaction(kind, "Binary"))

    assert answer.headers == {"content-type": media_type}
    assert await body_of(answer) == content


@pytest.mark.parametrize(
    "media_type",
    [
        "text/html",
        "Text/HTML; charset=utf-8",
        "application/xhtml+xml",
        "image/svg+xml",
        "text/xml",
        "application/xml",
        "application/cda+xml",
        "text/javascript",
        "application/fhir+json; charset=utf-16",
        "application/json;charset=cp037",
        "image/png, text/json",
        "application/x-javascript",
        "application/ecmascript",
    ],
)
def test_a_binary_that_a_browser_would_run_is_refused(media_type: str) -> None:
    with pytest.raises(EhrMisbehaved):
        relayed(received(200, {"content-type": media_type}), interaction("read", "Binary"))


async def test_a_binary_as_fhir_json_has_its_links_turned() -> None:
    body = b'{"fullUrl":"' + EHR.encode() + b'/Binary/1"}'

    answer = relayed(received(200, {"content-type": FHIR}, body), interaction("read", "Binary"))

    assert await body_of(answer) == b'{"fullUrl":"' + OURS.encode() + b'/Binary/1"}'


async def test_a_bundle_comes_with_its_links_turned_and_extended_and_all_else_as_it_was() -> None:
    """PX-06, PX-07."""
    chunks = [
        b'{"resourceType":"Bundle","link":[{"relation":"next","url":"https://ehr.exam',
        b'ple/r4?_getpages=a"}],"entry":[{"fullUrl":"https://ehr.example/r4/Observation/1",',
        b'"resource":{"value":1.10,"extension":[{"url":"https://ehr.example/r4/x"}]}}]}',
    ]

    assert await body_of(relayed(received(200, None, *chunks))) == (
        b'{"resourceType":"Bundle","link":[{"relation":"next","url":"https://broker.example/fhir/epic'
        b'?_getpages=a&_sbpage=11"}],"entry":[{"fullUrl":"https://broker.example/fhir/epic/Observation/1",'
        b'"resource":{"value":1.10,"extension":[{"url":"https://ehr.example/r4/x"}]}}]}'
    )


@pytest.mark.parametrize(
    ("location", "ours"),
    [
        (f"{EHR}/Patient/1/_history/1", f"{OURS}/Patient/1/_history/1"),
        ("https://ehr.example:443/r4/Patient/1", f"{OURS}/Patient/1"),
        ("https://internal.example/r4/Patient/1", None),
        ("https://ehr.example/admin", None),
        ("http://EHR.internal:8080/r4/Patient/1", f"{OURS}/Patient/1"),
        ("Patient/1/_history/1", f"{OURS}/Patient/1/_history/1"),
        ("/r4/Patient/1", f"{OURS}/Patient/1"),
        ("/Patient/1", None),
        ("//ehr.example/r4/Patient/1", f"{OURS}/Patient/1"),
        ("//other.example/r4/Patient/1", None),
        ("https://[", None),
        (f"{EHR}/Patient/é", None),
    ],
)
@pytest.mark.parametrize("name", ["Location", "Content-Location"])
def test_a_location_points_to_the_broker_or_is_left_out(name: str, location: str, ours: str | None) -> None:
    """PX-06."""
    headers = relayed(received(201, {"content-type": FHIR, name: location})).headers

    assert headers.get(name.lower()) == ours


def test_challenges_cookies_and_hop_by_hop_headers_stay_here() -> None:
    """PX-10."""
    headers = {
        "Content-Type": FHIR,
        "ETag": 'W/"1"',
        "WWW-Authenticate": 'Bearer error="canary"',
        "Set-Cookie": "a=canary",
        "Server": "canary",
        "Transfer-Encoding": "chunked",
    }

    assert relayed(received(401, headers)).headers == {"content-type": FHIR, "etag": 'W/"1"'}


async def test_an_echoed_token_is_cut_out_of_headers_and_body() -> None:
    """HB-07."""
    headers = {"content-type": FHIR, "etag": TOKEN, "location": f"{EHR}/x?token={TOKEN}"}

    answer = relayed(received(200, headers, b'{"diagnostics":"Bearer raw-', b't0ken"}'))

    assert answer.headers == {
        "content-type": FHIR,
        "etag": "[removed]",
        "location": f"{OURS}/x?token=[removed]",
    }
    assert await body_of(answer) == b'{"diagnostics":"Bearer [removed]"}'


async def test_an_echoed_token_is_cut_out_of_a_binary_too() -> None:
    answer = relayed(received(200, {"content-type": "text/plain"}, b"raw-t0ken"), interaction("read", "Binary"))

    assert await body_of(answer) == b"[removed]"


def packed(media_type: str, body: bytes) -> StreamedAnswer:
    headers = {"content-type": media_type, "content-encoding": "gzip"}
    return replace(received(200, headers, gzip.compress(body, mtime=0)), is_packed=True)


async def test_a_packed_binary_passes_as_it_is() -> None:
    """PX-11."""
    answer = relayed(packed("application/pdf", b"x" * 1000), interaction("read", "Binary"))

    assert answer.headers == {"content-type": "application/pdf", "content-encoding": "gzip"}
    assert await body_of(answer) == gzip.compress(b"x" * 1000, mtime=0)


async def test_a_packed_binary_that_comes_as_fhir_json_is_unpacked_and_turned() -> None:
    """PX-06."""
    body = b'{"fullUrl":"' + EHR.encode() + b'/Binary/1"}'

    answer = relayed(packed(FHIR, body), interaction("read", "Binary"))

    assert "content-encoding" not in answer.headers
    assert await body_of(answer) == b'{"fullUrl":"' + OURS.encode() + b'/Binary/1"}'


@pytest.mark.parametrize(
    ("kind", "type_", "encodings", "takes"),
    [
        ("read", "Binary", [b"gzip"], True),
        ("vread", "Binary", [b"br, GZIP ; q=0.5"], True),
        ("read", "Binary", [b"br", b"gzip"], True),
        ("read", "Binary", [b"gzip;q=0"], False),
        ("read", "Binary", [b"gzip;q=0.000, br"], False),
        ("read", "Binary", [b"*", b"x-gzip", b"br"], False),
        ("read", "Binary", [], False),
        ("read", "Patient", [b"gzip"], False),
        ("search-type", "Binary", [b"gzip"], False),
        ("update", "Binary", [b"gzip"], False),
    ],
)
def test_only_what_need_not_be_read_is_asked_for_packed(
    kind: str, type_: str, encodings: list[bytes], *, takes: bool
) -> None:
    """PX-11."""
    assert takes_packed(interaction(kind, type_), [(b"Accept-Encoding", value) for value in encodings]) is takes


async def test_a_body_that_breaks_off_is_not_ended_as_if_it_were_whole() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b'{"a":'
        raise EhrAnswerLost("broke off")

    with pytest.raises(EhrAnswerLost):
        await body_of(relayed(StreamedAnswer(200, {"content-type": FHIR}, broken())))


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "*/*",
        "application/*",
        "application/fhir+json",
        "Application/FHIR+JSON",
        "application/json;q=0.5, application/fhir+xml",
        "application/fhir+xml, */*;q=0.1",
        "json",
        "",
    ],
)
@pytest.mark.parametrize("kind", ["search-type", "read", "create", "capabilities"])
def test_an_app_that_takes_json_gets_fhir_json(accept: str | None, kind: str) -> None:
    headers = [] if accept is None else [(b"Accept", accept.encode())]

    assert accept_for(interaction(kind), headers) == FHIR


@pytest.mark.parametrize(
    "accept", ["application/fhir+xml", "text/html", "text/turtle", "application/xml;q=1", "é, */*", "a\nb, */*"]
)
def test_an_app_that_takes_no_json_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptable):
        accept_for(interaction(), [(b"accept", accept.encode())])


def test_several_accept_headers_count_as_one() -> None:
    assert accept_for(interaction(), [(b"accept", b"text/html"), (b"ACCEPT", b"application/json")]) == FHIR


@pytest.mark.parametrize("format_", ["json", "application/fhir+json", "application/json"])
def test_the_format_parameter_wins(format_: str) -> None:
    assert accept_for(interaction(format_=format_), [(b"accept", b"text/html")]) == FHIR


@pytest.mark.parametrize("format_", ["xml", "application/fhir+xml", "ttl", "html"])
def test_another_format_is_refused(format_: str) -> None:
    with pytest.raises(NotAcceptable):
        accept_for(interaction(format_=format_), [(b"accept", b"application/json")])


@pytest.mark.parametrize("kind", ["read", "vread"])
@pytest.mark.parametrize(
    ("accept", "sent"), [(b"image/png", "image/png"), (b"application/fhir+json", FHIR), (b"", "*/*")]
)
def test_a_binary_may_be_asked_for_as_anything(kind: str, accept: bytes, sent: str) -> None:
    assert accept_for(interaction(kind, "Binary"), [(b"accept", accept)]) == sent


@pytest.mark.parametrize("format_", ["text/plain\r\nX-Header: a", "é", "a\0"])
def test_a_format_that_cannot_stand_in_a_header_is_refused(format_: str) -> None:
    with pytest.raises(NotAcceptable):
        accept_for(interaction("read", "Binary", format_), [])


def test_a_search_for_binaries_is_json_like_any_other() -> None:
    with pytest.raises(NotAcceptable):
        accept_for(interaction("search-type", "Binary"), [(b"accept", b"image/png")])


MINE = (
    b'{"resourceType":"Patient","id":"me","x":1.10,"link":[{"other":{"reference":"https://ehr.example/r4/Patient/1"}}]}'
)
OTHERS = MINE.replace(b'"me"', b'"pat-2"')
CHECKS = Checks("searchset", (Rule("Patient", (), Patient("me", EHR)),))


def checked(checks: Checks, body: bytes, *, is_whole: bool, status: int = 200) -> FhirAnswer:
    headers = {"content-type": FHIR, "etag": 'W/"3"', "last-modified": "Sun, 01 Nov 2026 00:00:00 GMT"}
    answer = received(status, headers, *(() if is_whole else (body[:40], body[40:])))
    return relay(
        replace(answer, whole=body) if is_whole else answer,
        interaction(),
        urls=UrlMap(OURS, EHR),
        token=Secret(TOKEN),
        extend_page=lambda _path, _query: "",
        checks=checks,
    )


@pytest.mark.parametrize(("shape", "kept"), [("resource", True), ("searchset", False), ("history", False)])
def test_the_version_of_a_bundle_tells_of_what_was_withheld(shape: Shape, *, kept: bool) -> None:
    """PX-14."""
    body = MINE if shape == "resource" else b'{"resourceType":"Bundle"}'
    answer = checked(replace(CHECKS, shape=shape), body, is_whole=True)

    assert (set(answer.headers) == {"content-type", "etag", "last-modified"}) is kept
    assert set(answer.headers) >= {"content-type"}


async def released(checks: Checks, body: bytes, *, is_whole: bool, status: int = 200) -> bytes:
    answer = await begun(checked(checks, body, is_whole=is_whole, status=status))
    return answer.whole if answer.whole is not None else await body_of(answer)


@pytest.mark.parametrize("is_whole", [True, False])
async def test_whether_a_body_comes_whole_or_in_pieces_it_is_checked(*, is_whole: bool) -> None:
    """PX-14: URLs are turned in what is left."""
    body = b'{"resourceType":"Bundle","total":2,"entry":[{"resource":%b},{"resource":%b}]}' % (OTHERS, MINE)

    out = await released(CHECKS, body, is_whole=is_whole)

    turned = MINE.replace(EHR.encode(), OURS.encode())
    assert out.startswith(b'{"resourceType":"Bundle","entry":[{"resource":%b},' % turned)
    assert b"pat-2" not in out


@asynccontextmanager
async def others() -> AsyncIterator[Callable[[], int]]:
    """Give what says how often another task had its turn by now."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    waiting = asyncio.create_task(other())
    yield lambda: turns
    waiting.cancel()


async def test_others_have_their_turns_while_a_long_body_is_checked() -> None:
    """PX-14: also while nothing of it is released, so that no sending waits."""
    body = b'{"resourceType":"Bundle","entry":[{"resource":%b}%b]}' % (MINE, b",{}" * 100_000)

    async with others() as turns:
        await released(CHECKS, body, is_whole=False)

        assert turns() >= len(body) // (16 << 10)


async def test_others_have_their_turns_while_what_was_checked_as_one_is_rewritten() -> None:
    """(PX-12) (PX-14)."""
    entry = b'{"fullUrl":"https://ehr.example/r4/Patient/me"},'
    body = MINE.replace(b'"x":1.10', b'"x":[%b1]' % (entry * 40_000))
    chunks = checked(replace(CHECKS, shape="resource"), body, is_whole=False).chunks

    async with others() as turns:
        first, before = await anext(chunks), turns()
        rest = [chunk async for chunk in chunks]

        assert turns() - before >= len(body) // (64 << 10) - 1
    assert b"".join([first, *rest]) == body.replace(EHR.encode(), OURS.encode())


@pytest.mark.parametrize("is_whole", [True, False])
async def test_what_may_not_be_released_is_a_refusal_before_anything_is_answered(*, is_whole: bool) -> None:
    """PX-14."""
    single = replace(CHECKS, shape="resource")

    assert await released(single, MINE, is_whole=is_whole) == MINE.replace(EHR.encode(), OURS.encode())
    for status in (200, 404):
        with pytest.raises(AnswerWithheld):
            await released(single, OTHERS, is_whole=is_whole, status=status)
    with pytest.raises(EhrMisbehaved):
        await released(CHECKS, OTHERS, is_whole=is_whole)
