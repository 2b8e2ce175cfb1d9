import pytest

from broker.egress import Egress
from broker.ehr.fhir_server import FhirServer, answer_headers, is_json, request_headers
from broker.errors import InvalidRequest
from broker.secret import Secret
from tests.ehr.known import proofs
from tests.ehr.server import ScriptedServer, reply

PASSED_ON = {
    "accept-language": "de",
    "content-type": "application/fhir+json",
    "if-match": 'W/"1"',
    "if-modified-since": "Sat, 01 Jan 2000 00:00:00 GMT",
    "if-none-exist": "identifier=1",
    "if-none-match": 'W/"2"',
    "x-request-id": "r-1",
}
KEPT_HERE = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-http-method-override",
    "origin",
    "referer",
    "user-agent",
    "accept-encoding",
    "content-encoding",
    "range",
    "x-client-cert",
    "x-app-secret",
]
RELAYED = {
    "content-type": "application/fhir+json",
    "etag": 'W/"1"',
    "last-modified": "Sat, 01 Jan 2000 00:00:00 GMT",
    "preference-applied": "return=minimal",
    "retry-after": "120",
    "x-request-id": "r-2",
}
NOT_RELAYED = [
    "www-authenticate",
    "proxy-authenticate",
    "authorization",
    "set-cookie",
    "server",
    "x-powered-by",
    "location",
    "content-location",
    "link",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "access-control-allow-origin",
    "strict-transport-security",
    "refresh",
    "cache-control",
    "x-internal-host",
]


def as_received(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def test_the_headers_that_fhir_needs_go_on() -> None:
    """PX-11."""
    assert request_headers(as_received(PASSED_ON), accept="a/b") == {**PASSED_ON, "accept": "a/b"}


@pytest.mark.parametrize("name", KEPT_HERE)
def test_no_other_header_goes_on(name: str) -> None:
    """PX-04."""
    assert request_headers([(name.encode(), b"canary")], accept="a/b") == {"accept": "a/b"}
    assert request_headers([(name.title().encode(), b"canary")], accept="a/b") == {"accept": "a/b"}


def test_the_apps_accept_is_replaced() -> None:
    assert request_headers([(b"accept", b"text/html"), (b"Accept", b"x/y")], accept="a/b") == {"accept": "a/b"}


def test_header_names_compare_without_case() -> None:
    """DS-12."""
    assert request_headers([(b"IF-MATCH", b"x")], accept="a/b") == {"if-match": "x", "accept": "a/b"}


def test_a_repeated_header_goes_on_as_a_list() -> None:
    """RFC 9110 §5.3."""
    assert request_headers([(b"if-match", b"1"), (b"If-Match", b"2")], accept="a/b")["if-match"] == "1, 2"


@pytest.mark.parametrize("name", PASSED_ON)
@pytest.mark.parametrize("value", [b"x" * 4097, "é".encode(), b"\xff"])
def test_a_header_that_cannot_go_on_is_refused_and_not_dropped(name: str, value: bytes) -> None:
    """Without its If-Match or If-None-Exist, a write would do something else than what was decided on."""
    with pytest.raises(InvalidRequest) as refused:
        request_headers([(name.encode(), value)], accept="a/b")

    assert refused.value.public == f"The header {name} cannot be passed on."


def test_a_header_at_its_limit_goes_on() -> None:
    assert request_headers([(b"if-none-exist", b"x" * 4096)], accept="a/b")["if-none-exist"] == "x" * 4096


def test_the_headers_that_an_app_needs_are_relayed() -> None:
    """PX-11."""
    assert answer_headers(RELAYED) == RELAYED


@pytest.mark.parametrize("name", NOT_RELAYED)
def test_no_other_header_is_relayed(name: str) -> None:
    """PX-10: challenges and cookies stay here; locations go their own way."""
    assert answer_headers({name: "canary"}) == {}


@pytest.mark.parametrize(
    "media_type",
    [
        "application/fhir+json",
        "application/json",
        "application/fhir+json; fhirVersion=4.0; charset=utf-8",
        "Application/FHIR+JSON",
        " application/json ",
        "text/json",
        "application/problem+json",
        "application/vnd.ehr.v1+json",
        "application/json; charset=utf-8, application/fhir+json",
        'application/json;charset="UTF-8"; fhirVersion=4.0',
        "application/json;charset=utf8",
        "application/json; charset=US-ASCII ",
    ],
)
def test_an_answer_that_calls_itself_json_is_json(media_type: str) -> None:
    assert is_json({"content-type": media_type})


@pytest.mark.parametrize(
    "media_type",
    [
        "",
        "text/html",
        "application/fhir+xml",
        "application/fhir+ndjson",
        "text/html, application/fhir+json",
        "application/fhir+json; charset=utf-8, text/html",
        "text/html x+json",
        "text/html+json",
        "application/jsonp",
        "application/+json",
        "json",
        "text/plain; x=+json",
        "application/fhir+json; charset=utf-16",
        'application/fhir+json; charset="utf-16"',
        'application/fhir+json; charset="utf-8',
        "application/fhir+json; Charset = utf-32",
        "application/fhir+json; charset=utf-8; charset=utf-16le",
        "application/fhir+json; charset=utf-8, application/fhir+json; charset=cp037",
        "application/fhir+json; charset*=us-ascii''utf-16",
        "application/fhir+json; charset=utf-8x",
        "application/fhir+json; charset=",
    ],
)
def test_an_answer_that_does_not_call_itself_json_is_none(media_type: str) -> None:
    assert not is_json({"content-type": media_type} if media_type else {})


@pytest.mark.parametrize(
    ("path", "query", "target"),
    [
        ("Patient/1", "", "/r4/Patient/1"),
        ("Patient", "name=a%20b&_id=1", "/r4/Patient?name=a%20b&_id=1"),
        ("", "_getpages=x", "/r4?_getpages=x"),
        ("", "", "/r4"),
    ],
)
async def test_a_request_goes_to_the_fhir_base_with_the_token(
    egress: Egress, ehr: ScriptedServer, path: str, query: str, target: str
) -> None:
    """PX-01, PX-03."""
    ehr.answers[target] = reply("{}", "ETag: W/1")

    answer = await FhirServer(egress, proofs()).send(
        fhir_base=f"{ehr.url}/r4",
        token=Secret("t0ken"),
        method="GET",
        path=path,
        query=query,
        headers={"accept": "application/fhir+json", "authorization": "Bearer handle"},
        content=None,
        timeout=5,
    )
    assert (answer.status, answer.whole) == (200, b"{}")
    answer.close()

    (request,) = ehr.requests
    assert (request.method, request.target) == ("GET", target)
    assert request.headers["authorization"] == "Bearer t0ken"
    assert "t0ken" not in request.target
    assert request.body == b""


@pytest.mark.parametrize(
    "said",
    [b"handling=lenient", b"return=minimal; handling=lenient", b'x;"handling"=lenient', b"HANDLING = lenient", b'x="y'],
)
def test_nothing_goes_on_as_an_app_prefers_it(said: bytes) -> None:
    """SC-05: some servers take the first that they find, some split at a semicolon, and some read quotes."""
    sent = request_headers([(b"prefer", said)], accept="x", preferences=["handling=strict", "return=minimal"])

    assert sent["prefer"] == "handling=strict, return=minimal"
    assert "prefer" not in request_headers([(b"prefer", said)], accept="x")


def test_a_header_is_no_longer_for_being_sent_in_parts() -> None:
    """PX-04."""
    part = (b"if-none-match", b"x" * 2047)

    assert len(request_headers([part, part], accept="x")["if-none-match"]) == 4096
    with pytest.raises(InvalidRequest, match="too long"):
        request_headers([part, part, (b"if-none-match", b"")], accept="x")
