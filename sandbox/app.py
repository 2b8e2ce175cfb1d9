"""The composition root: settings in, one ASGI application out."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx2
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox.brands import brand_routes
from sandbox.control import control_routes
from sandbox.cors import CrossOrigin
from sandbox.discovery import Discovery, discovery_routes
from sandbox.ehr import Ehr
from sandbox.journal import Journal
from sandbox.marks import Entropy
from sandbox.oauth.id_tokens import SigningKey
from sandbox.oauth.metadata import smart_style
from sandbox.oauth.routes import oauth_routes
from sandbox.oauth.server import AuthorizationServer
from sandbox.pages.authorize import authorize_routes
from sandbox.pages.home import home_routes
from sandbox.recorder import Recorder
from sandbox.settings import Settings
from sandbox.storage import Storage, storage_route

FHIR_PATH = "/api/FHIR/R4"
LARGEST_BODY = 8 * 1024 * 1024
"""Bytes of a request body."""
JWKS_TIMEOUT = 5.0
"""Seconds to fetch a client's JWK Set."""


def create_app(
    settings: Settings,
    real_clock: Callable[[], float],
    entropy: Entropy = os.urandom,
    signing_key: SigningKey | None = None,
) -> Starlette:
    """Return the sandbox; `real_clock` gives seconds since 1970-01-01T00:00:00Z; without a signing key it makes one."""
    # No redirects and no proxies: a client's keys come from the URL it registered or not at all.
    http = httpx2.AsyncClient(timeout=JWKS_TIMEOUT, follow_redirects=False, trust_env=False)

    def clock() -> float:
        return real_clock() + server.settings.clock_ahead

    journal = Journal(clock)
    server = AuthorizationServer(settings, clock, entropy, http, journal, signing_key or SigningKey.generate())
    discovery = Discovery(server)
    storage = Storage(lambda: server.settings.other_origin, entropy, journal)
    ehr = Ehr(server, clock, discovery, storage)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with http:
            yield

    async def style(_request: Request) -> JSONResponse:
        return JSONResponse(smart_style())

    app = Starlette(
        routes=[
            *discovery_routes(server, discovery),
            Mount(FHIR_PATH, app=ehr),
            Mount("/oauth2", routes=[*authorize_routes(server, ehr), *oauth_routes(server)]),
            Route("/static/smart-style-v1.json", style),
            *brand_routes(server),
            storage_route(storage),
            *control_routes(server, ehr),
            *home_routes(server, ehr),
        ],
        middleware=[
            # Against DNS rebinding: a page of another site must not reach this machine by a name of its own.
            Middleware(TrustedHostMiddleware, allowed_hosts=_hosts(settings), www_redirect=False),
            Middleware(_OAuthPath, server=server),
            Middleware(CrossOrigin, server=server),
            Middleware(Recorder, journal=journal, settings=settings),
            Middleware(_BaseWithoutSlash),
        ],
        lifespan=lifespan,
        max_body_size=LARGEST_BODY,
    )
    app.state.server = server
    return app


class _BaseWithoutSlash:
    """Takes `{base}` for `{base}/`, as FHIR means it: a search page or a batch is not to be redirected."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == FHIR_PATH:
            scope = {**scope, "path": f"{FHIR_PATH}/"}
        await self._app(scope, receive, send)


class _OAuthPath:
    """Takes the endpoints where the personality advertises them for those below `/oauth2`."""

    def __init__(self, app: ASGIApp, server: AuthorizationServer) -> None:
        self._app = app
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        advertised = f"{self._server.settings.oauth_path}/"
        if scope["type"] == "http" and scope["path"].startswith(advertised):
            scope = {**scope, "path": f"/oauth2/{scope['path'].removeprefix(advertised)}"}
        await self._app(scope, receive, send)


def _hosts(settings: Settings) -> list[str]:
    return [urlsplit(settings.public_url).hostname or "", "127.0.0.1", "localhost", "::1"]
