"""How the application is served: limits and quiet, written out."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from broker.limits import Network
from broker.web.forwarded import behind_proxies

HEAD_BYTES: Final = 64 * 1024
"""Most that a request line and its headers may be."""
HEAD_SECONDS: Final = 10.0
"""How long a head may take to arrive, from the connection or, on one that was used before, from its first byte."""
TAKING_SECONDS: Final = 30.0
"""How long a caller may take nothing of an answer: meanwhile it holds a connection to an EHR that others wait for."""
MOST_CONNECTIONS: Final = 1000
KEEP_ALIVE_SECONDS: Final = 20
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_NO_REQUEST: Final = "Invalid HTTP request received."


class _Punctual(HttpToolsProtocol):
    """llhttp, Node's parser, with what it leaves open: a limit to a head, one `Host`, and connections that stand still.

    And what it or uvicorn takes for something else: trailers for headers, the body of an Upgrade for the next request.

    Each connection counts toward `MOST_CONNECTIONS`, and anybody can open them. Once a request has begun, whoever reads
    its body watches the clock.
    """

    _in_body = False
    _head_bytes = 0
    """Of what was told of a head."""
    _untold_bytes = 0
    """Bytes that arrived since a head ended or something of a body came: of a header, a chunk's extension, trailers."""
    _running: RequestResponseCycle | None = None
    """The request that is being answered; others may have come after it."""
    _give_up: asyncio.TimerHandle | None = None
    _not_taken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        self._untold_bytes += len(data)
        super().data_received(data)
        if self._untold_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(_NO_REQUEST)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        self._was_taken()
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:  # uvicorn tells the last that came
            self._running.disconnected = True
            self._running.message_event.set()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_body, self._head_bytes = False, 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, and no trailer: it would be one that no proxy has looked at (RFC 9110 §6.5.1)."""
        if not self._in_body:
            super().on_header(name, value)
            self._head_bytes += len(name) + len(value)

    def on_headers_complete(self) -> None:
        """Go on to the application. Raises `ValueError`, which is answered 400."""
        self._in_body, self._untold_bytes = True, 0
        if self._head_bytes > HEAD_BYTES:
            raise ValueError("a head that is too long")
        if b"#" in self.url:
            raise ValueError("a fragment, which would be dropped unseen (RFC 9112 §3.2)")
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise ValueError("no Host, or two (RFC 9112 §3.2)")
        if self.parser.should_upgrade() and (self.parser.get_method() == b"CONNECT" or self._has_body()):
            raise ValueError("what follows would be taken for the next request (RFC 9112 §11.2)")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._untold_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._untold_bytes = 0
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._not_taken is None:
            self._not_taken = self.loop.call_later(TAKING_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._was_taken()

    def _has_body(self) -> bool:
        return any(name in _FRAMING for name, _ in self.headers)

    def _watch(self) -> None:
        """Set the clock, or leave it as it is, while no request is under way."""
        if self.cycle is not None and not self.cycle.response_complete:  # type: ignore[redundant-expr]  # None at first
            self._unwatch()
        elif self._give_up is None:
            self._give_up = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _unwatch(self) -> None:
        if self._give_up is not None:
            self._give_up.cancel()
            self._give_up = None

    def _was_taken(self) -> None:
        if self._not_taken is not None:
            self._not_taken.cancel()
            self._not_taken = None


def server_config(application: ASGIApp, *, proxies: Sequence[Network] = (), **more: Any) -> uvicorn.Config:
    """Return the configuration of a server for the broker's application.

    `proxies` are those whose `X-Forwarded-For` is believed: nobody's unless named. `more` are further options of
    uvicorn's.
    """
    return uvicorn.Config(
        behind_proxies(application, proxies),
        proxy_headers=False,  # done above; uvicorn takes whoever it cannot make out for the proxy
        http=_Punctual,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        access_log=False,  # it would hold codes, states and search values
        log_config=None,
        server_header=False,
        lifespan="off",
        ws="none",
        **more,
    )
