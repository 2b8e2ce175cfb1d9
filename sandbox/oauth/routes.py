"""The authorization server over HTTP, except for the pages a user sees."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from sandbox.faults import edit
from sandbox.interference import interfere
from sandbox.journal import SHOWN_PARAMETERS, Arrival, redact
from sandbox.oauth import inspection, metadata, token
from sandbox.oauth.authentication import claimed_client_id
from sandbox.oauth.clients import GRANT_TYPES
from sandbox.oauth.errors import NO_STORE, OAuthError, invalid_request
from sandbox.oauth.parameters import Parameters, from_form
from sandbox.oauth.server import AuthorizationServer

Endpoint: TypeAlias = Callable[[Request], Awaitable[ASGIApp]]


def oauth_routes(server: AuthorizationServer) -> list[BaseRoute]:
    """Return the routes below the issuer."""

    async def answer_token(request: Request, form: Parameters) -> ASGIApp:
        arrival: Arrival = request.scope["arrival"]
        arrival.grant_type = form.get("grant_type")
        if arrival.grant_type in GRANT_TYPES:
            server.journal.count(f"token.{arrival.grant_type}")

        async def answer() -> ASGIApp:
            try:
                document = await token.answer(server, form, request.headers.get("authorization"))
            except OAuthError as error:
                return error.response()
            return JSONResponse(document, headers=NO_STORE)

        return await interfere(server.faults, "token", arrival.client_id, answer)

    async def introspect(request: Request, form: Parameters) -> ASGIApp:
        document = await inspection.introspect(server, form, request.headers.get("authorization"))
        return JSONResponse(document, headers=NO_STORE)

    async def revoke(request: Request, form: Parameters) -> ASGIApp:
        await inspection.revoke(server, form, request.headers.get("authorization"))
        return Response(None, headers=NO_STORE)

    return [
        Route("/token", _posted(answer_token), methods=["POST"]),
        Route("/introspect", _posted(introspect), methods=["POST"]),
        Route("/revoke", _posted(revoke), methods=["POST"]),
        Route("/jwks", _document(server, "jwks", server.signing_key.key_set)),
        Route(
            "/.well-known/openid-configuration",
            _document(server, "openid_configuration", lambda: metadata.openid_configuration(server.settings)),
        ),
    ]


def smart_configuration_route(server: AuthorizationServer) -> BaseRoute:
    """Return the route of the SMART configuration, below the FHIR base."""
    return Route(
        "/.well-known/smart-configuration",
        _document(server, "smart_configuration", lambda: metadata.smart_configuration(server.settings)),
    )


def _posted(endpoint: Callable[[Request, Parameters], Awaitable[ASGIApp]]) -> Endpoint:
    """Return the endpoint of a form; parameters in the URL are refused, where servers and proxies would log them."""

    async def read(request: Request) -> ASGIApp:
        try:
            if request.url.query:
                raise invalid_request("parameters belong in the body")
            form = await from_form(request)
            arrival: Arrival = request.scope["arrival"]
            arrival.parameters = redact(form.items(), SHOWN_PARAMETERS)
            arrival.client_id = claimed_client_id(form, request.headers.get("authorization"))
            return await endpoint(request, form)
        except OAuthError as error:
            return error.response()

    return read


def _document(server: AuthorizationServer, point: str, build: Callable[[], dict[str, Any]]) -> Endpoint:
    """Return the endpoint of a JSON document that faults may strike."""

    async def answer() -> ASGIApp:
        document = build()
        for struck in server.faults.all(f"{point}.answer"):
            document = edit(document, struck)
        return JSONResponse(document, headers={"Cache-Control": "max-age=300"})

    async def read(_request: Request) -> ASGIApp:
        return await interfere(server.faults, point, None, answer)

    return read
