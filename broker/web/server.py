"""How the application is served: limits and quiet, written out."""

from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from broker.web.client_certificate import PEER

HEAD_BYTES: Final = 64 * 1024
"""Most that a request line and its headers may be."""
MOST_CONNECTIONS: Final = 1000
KEEP_ALIVE_SECONDS: Final = 20


def server_config(application: ASGIApp, *, proxies: str = "", **more: Any) -> uvicorn.Config:
    """Return the configuration of a server for the broker's application.

    `proxies` are the addresses whose `X-Forwarded-*` is believed: nobody's unless named. `more` are further options of
    uvicorn's.
    """
    return uvicorn.Config(
        _keeping_peer(application, proxies),
        proxy_headers=False,  # done above, where the address of the connection itself is kept beside the forwarded one
        http="h11",  # the other parser sets no limit to the size of a request's head
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
