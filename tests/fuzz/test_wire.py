"""What HTTP clients cannot send: broken framing, repeated and endless headers, bytes that are no text."""

from contextlib import suppress

import pytest

from tests.fuzz.answers import assert_sound
from tests.fuzz.target import Target
from tests.fuzz.wire import connection, read_answer, request

FORM = ("Content-Type", "application/x-www-form-urlencoded")
KIB = 1024


def token(body: bytes) -> bytes:
    return request("POST", "/oauth/token", [FORM], body)


NOT_HTTP = {
    "nothing but a line": b"hello\r\n\r\n",
    "TLS": bytes.fromhex("16030100050100000100") + b"\r\n\r\n",
    "NUL in the target": b"GET /oauth/\0token HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in a header": b"GET /livez HTTP/1.1\r\nHost: a\r\nX-A: \0\r\n\r\n",
    "a header without a name": b"GET /livez HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "a space before the colon": b"GET /livez HTTP/1.1\r\nHost : a\r\n\r\n",
    "no Host": b"GET /livez HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two lengths": b"POST /oauth/token HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a negative length": b"POST /oauth/token HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "an unknown coding": b"POST /oauth/token HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    "a header without end": b"GET /livez HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * (KIB * KIB) + b"\r\n\r\n",
    "headers without end": b"GET /livez HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * (KIB * KIB // 8) + b"\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown method": request("BREW", "/oauth/token"),
    "a lower-case method": request("post", "/oauth/token", [FORM], b"a=b"),
    "a target without end": b"GET /" + b"a" * (KIB * KIB) + b" HTTP/1.1\r\nHost: a\r\n\r\n",
}
ODD = {
    "two Authorizations": request("POST", "/oauth/token", [FORM, ("Authorization", "Basic a"), ("Authorization", "b")]),
    "two Authorizations on FHIR": request(
        "GET", "/fhir/sandbox/Patient/1", [("Authorization", "Bearer a"), ("Authorization", "Bearer b")]
    ),
    "two content types": request("POST", "/oauth/token", [FORM, ("Content-Type", "application/json")], b"a=b"),
    "latin-1 in a header": request("GET", "/fhir/sandbox/Patient", [("Authorization", "Bearer \xff\xfe")]),
    "a cookie without end": request("GET", "/callback/sandbox-launch", [("Cookie", "a=" + "b" * (32 * KIB))]),
    "many cookies": request("GET", "/callback/sandbox-launch", [("Cookie", "sb_launch_a=b")] * 300),
    "no UTF-8 in a form": token(b"grant_type=%ff&client_id=\xff"),
    "NUL in a form": token(b"grant_type=refresh_token&client_id=growth-chart&refresh_token=%00\0"),
    "a form of ampersands": token(b"&" * (60 * KIB)),
    "a form too long": token(b"a=" + b"b" * (65 * KIB)),
    "too many parameters": token(b"&".join(b"a%d=b" % number for number in range(101))),
    "a broken escape in the target": request("GET", "/oauth/authorize?client_id=%zz%f"),
    "an encoded slash": request("GET", "/launch/sandbox-launch%2F..%2Ftoken"),
    "NUL, encoded, in the target": request("GET", "/jwks/sandbox-launch%00"),
    "another server's URL": request("GET", "http://attacker.example/launch/sandbox-launch"),
    "an asterisk": request("OPTIONS", "*"),
    "an upgrade": request("GET", "/livez", [("Connection", "Upgrade"), ("Upgrade", "websocket")]),
    "an expectation": request("POST", "/oauth/token", [FORM, ("Expect", "200-maybe")], b"a=b"),
    "a body where none belongs": request("GET", "/readyz", [], b"x" * KIB),
}


def assert_still_serves(target: Target) -> None:
    with connection(target.port) as connected:
        connected.sendall(request("GET", "/livez"))
        answer = read_answer(connected, "GET", "/livez")
    assert answer is not None
    assert answer.status == 200


@pytest.mark.parametrize("name", NOT_HTTP)
def test_what_is_not_http_is_refused_by_the_server_itself(target: Target, name: str) -> None:
    """It reaches no route; the server says as little as it can, or hangs up (PX-04)."""
    answer = None
    with connection(target.port) as connected, suppress(ConnectionError):
        connected.sendall(NOT_HTTP[name])
        answer = read_answer(connected, "GET", "*")

    if answer is not None:
        assert (answer.status, answer.body) == (400, b"Invalid HTTP request received.")
    assert_still_serves(target)


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_gets_an_answer_in_the_dialect_of_its_path(target: Target, name: str) -> None:
    """Errors are the broker's own, whatever the bytes were (OA-01, OA-03, CB-05)."""
    method, uri = ODD[name].split(b" ", 2)[:2]
    with connection(target.port) as connected:
        connected.sendall(ODD[name])
        answer = read_answer(connected, method.decode(), uri.decode("latin-1").partition("?")[0])

    assert answer is not None
    assert_sound(answer, target)
    assert_still_serves(target)


def test_a_body_that_never_comes_costs_the_broker_nothing(target: Target) -> None:
    """The caller hangs up in the middle: nothing is answered, nothing is logged as trouble, the next one is served."""
    with connection(target.port) as connected:
        connected.sendall(b"POST /oauth/token HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\ngrant_type=")
    with connection(target.port) as connected:
        connected.sendall(
            b"POST /fhir/sandbox/Observation HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
        )

    assert_still_serves(target)
