"""Cross-origin requests (CO-01): discovery is open to every web page, token and FHIR to those of registered clients."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.oauth.clients import Client
from sandbox.oauth.server import AuthorizationServer

METHODS = "GET, POST, PUT, PATCH, DELETE, OPTIONS"
ASKED_HEADERS = (
    "Accept, Authorization, Content-Type, DPoP, If-Match, If-Modified-Since, If-None-Exist, If-None-Match, Prefer, "
    "X-Request-Id"
)
SHOWN_HEADERS = (
    "Content-Location, DPoP-Nonce, ETag, Last-Modified, Location, Retry-After, WWW-Authenticate, X-Request-Id"
)
MAX_AGE = "600"
"""Seconds a browser may remember what it was told."""


class CrossOrigin:
    """ASGI middleware. What it adds waits in `scope["cors"]`, where a fault may take it away."""

    def __init__(self, app: ASGIApp, server: AuthorizationServer) -> None:
        self._app = app
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or let a request pass and say who may read its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        shared = self._shared(scope["path"], headers.get("origin"))
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await _preflight(shared)(scope, receive, send)
            return
        scope["cors"] = shared

        async def send_shared(message: Message) -> None:
            if message["type"] == "http.response.start":
                for name, value in scope["cors"].items():
                    MutableHeaders(scope=message).append(name, value)
            await send(message)

        await self._app(scope, receive, send_shared)

    def _shared(self, path: str, origin: str | None) -> dict[str, str]:
        settings = self._server.settings
        fhir = urlsplit(settings.fhir_base).path
        if "/.well-known/" in path or path in {f"{fhir}/metadata", "/oauth2/jwks", "/brands.json", "/endpoints.json"}:
            return {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": SHOWN_HEADERS}
        if path not in {"/oauth2/token", fhir} and not path.startswith(f"{fhir}/"):
            return {}
        if origin is None or origin not in origins(self._server.clients):
            return {"Vary": "Origin"}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": SHOWN_HEADERS,
            "Vary": "Origin",
        }


def origins(clients: Mapping[str, Client]) -> set[str]:
    """Return the origins of the clients' redirect and launch URLs."""
    urls = [url for client in clients.values() for url in (*client.redirect_uris, client.launch_uri) if url]
    return {f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, urls)}


def _preflight(shared: Mapping[str, str]) -> Response:
    if "Access-Control-Allow-Origin" not in shared:
        return Response(None, 403, dict(shared))
    allowed = {
        "Access-Control-Allow-Methods": METHODS,
        "Access-Control-Allow-Headers": ASKED_HEADERS,
        "Access-Control-Max-Age": MAX_AGE,
    }
    return Response(None, 204, {**shared, **allowed})
