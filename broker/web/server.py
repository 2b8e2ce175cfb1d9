"""How the application is served: limits and quiet, written out."""

import asyncio
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from broker.web.client_certificate import PEER

HEAD_BYTES: Final = 64 * 1024
"""Most that a request line and its headers may be."""
HEAD_SECONDS: Final = 10.0
"""How long a head may take to arrive, from the connection or, on one that was used before, from its first byte."""
MOST_CONNECTIONS: Final = 1000
KEEP_ALIVE_SECONDS: Final = 20


class _Punctual(H11Protocol):
    """Closes a connection that asks for nothing: each counts toward `MOST_CONNECTIONS`, and anybody can open them.

    Once a request has begun, whoever reads its body watches the clock.
    """

    _give_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

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


def server_config(application: ASGIApp, *, proxies: str = "", **more: Any) -> uvicorn.Config:
    """Return the configuration of a server for the broker's application.

    `proxies` are the addresses whose `X-Forwarded-*` is believed: nobody's unless named. `more` are further options of
    uvicorn's.
    """
    return uvicorn.Config(
        _keeping_peer(application, proxies),
        proxy_headers=False,  # done above, where the address of the connection itself is kept beside the forwarded one
        http=_Punctual,  # h11: the other parser sets no limit to the size of a request's head
        h11_max_incomplete_event_size=HEAD_BYTES,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        access_log=False,  # it would hold codes, states and search values
        log_config=None,
        server_header=False,
        lifespan="off",
        ws="none",
        **more,
    )


def _keeping_peer(application: ASGIApp, proxies: str) -> ASGIApp:
    """Write down who has connected, before `X-Forwarded-For` replaces it."""
    forwarded: Any = ProxyHeadersMiddleware(application, trusted_hosts=proxies) if proxies else application  # type: ignore[arg-type]  # two spellings of ASGI

    async def keeping_peer(scope: Scope, receive: Receive, send: Send) -> None:
        scope[PEER] = scope.get("client")
        await forwarded(scope, receive, send)

    return keeping_peer
