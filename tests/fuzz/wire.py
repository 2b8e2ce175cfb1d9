"""Requests as bytes on a socket: what no HTTP client would send, and how the answers are read."""

import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.client import BadStatusLine, HTTPException, HTTPResponse
from typing import Final

from tests.fuzz.answers import Answer

PATIENCE_SECONDS: Final = 10.0


@contextmanager
def connection(port: int) -> Iterator[socket.socket]:
    """Connect to the broker."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as connected:
        yield connected


def request(method: str, target: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> bytes:
    """Write a request that is framed as it should be, whatever stands in it."""
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers)]
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, *length, "", ""]).encode("latin-1") + body


def read_answer(connected: socket.socket, method: str, path: str) -> Answer | None:
    """Return the answer to one request; None when the broker hung up without any."""
    response = HTTPResponse(connected, method=method)
    try:
        response.begin()
        body = response.read()
    except (BadStatusLine, ConnectionError):
        return None
    except HTTPException as error:
        raise AssertionError(f"an answer that breaks off: {error!r}") from None
    finally:
        response.close()
    headers = {name.lower(): ", ".join(response.headers.get_all(name, [])) for name in response.headers}
    return Answer(path, response.status, headers, body, is_head=method == "HEAD")
