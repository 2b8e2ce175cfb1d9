"""The authorization server over HTTP, except for the pages a user sees."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from sandbox.interference import interfere
from sandbox.journal import SHOWN_PARAMETERS, Arrival, redact
from sandbox.oauth import authorize, inspection, instances, pushed, token
from sandbox.oauth.authentication import claimed_client_id
from sandbox.oauth.clients import GRANT_TYPES
from sandbox.oauth.errors import NO_STORE, OAuthError, invalid_request
from sandbox.oauth.parameters import Parameters, from_form
from sandbox.oauth.presented import Presented
from sandbox.oauth.server import AuthorizationServer

Answer: TypeAlias = Callable[[AuthorizationServer, Parameters, Presented], Awaitable[Response]]
Endpoint: TypeAlias = Callable[[Request], Awaitable[ASGIApp]]


def oauth_routes(server: AuthorizationServer) -> list[BaseRoute]:
    """Return the routes below the issuer; those of the forms are there a second time for mTLS (RFC 8705 §5)."""
    forms: tuple[tuple[str, Answer], ...] = (
        ("token", _answer_token),
        ("introspect", _introspect),
        ("revoke", _revoke),
        ("par", _push),
    )
    posted = [(name, _posted(server, name, answer)) for name, answer in forms]
    return [
        *(Route(f"/{name}", endpoint, methods=["POST"]) for name, endpoint in posted),
        *(Route(f"/mtls/{name}", endpoint, methods=["POST"]) for name, endpoint in posted),
        Route("/register", _register(server), methods=["POST"]),
        Route("/jwks", _key_set(server)),
    ]


async def _answer_token(server: AuthorizationServer, form: Parameters, presented: Presented) -> Response:
    return JSONResponse(await token.answer(server, form, presented), headers=NO_STORE)


async def _introspect(server: AuthorizationServer, form: Parameters, presented: Presented) -> Response:
    return JSONResponse(await inspection.introspect(server, form, presented), headers=NO_STORE)


async def _revoke(server: AuthorizationServer, form: Parameters, presented: Presented) -> Response:
    if server.settings.revocation == "off":
        return Response(None, 404)
    await inspection.revoke(server, form, presented)
    return Response(None, headers=NO_STORE)


async def _push(server: AuthorizationServer, form: Parameters, presented: Presented) -> Response:
    if server.settings.pushed_requests == "off":
        return Response(None, 404)
    client = await server.authenticate(form, presented, server.settings.pushed_authorization_request_endpoint)
    document = {"request_uri": authorize.push(server, client, form), "expires_in": pushed.LIFETIME}
    return JSONResponse(document, 201, NO_STORE)


def _posted(server: AuthorizationServer, point: str, answer: Answer) -> Endpoint:
    """Return the endpoint of a form; parameters in the URL are refused, where servers and proxies would log them."""

    async def read(request: Request) -> ASGIApp:
        arrival: Arrival = request.scope["arrival"]
        try:
            if request.url.query:
                raise invalid_request("parameters belong in the body")
            form = await from_form(request)
        except OAuthError as error:
            return error.response(server.settings.token_errors)
        arrival.parameters = redact(form.items(), SHOWN_PARAMETERS)
        arrival.client_id = claimed_client_id(form, request.headers.get("authorization"))
        if point == "token":
            arrival.grant_type = form.get("grant_type")
            if arrival.grant_type in GRANT_TYPES:
                server.journal.count(f"token.{arrival.grant_type}")

        async def respond() -> ASGIApp:
            try:
                return await answer(server, form, Presented.of(request, server.settings))
            except OAuthError as error:
                return error.response(server.settings.token_errors)

        return await interfere(server.faults, point, arrival.client_id, respond)

    return read


def _register(server: AuthorizationServer) -> Endpoint:
    """Return the endpoint where dynamic clients are registered (EP-17); it always says no without a reason."""

    async def read(request: Request) -> ASGIApp:
        if not server.settings.dynamic_clients:
            return Response(None, 404)
        try:
            presented = Presented.of(request, server.settings)
            return JSONResponse(instances.register(server, presented, await request.body()), 201, NO_STORE)
        except OAuthError as error:
            return error.response()

    return read


def _key_set(server: AuthorizationServer) -> Endpoint:
    """Return the endpoint of the id_token keys."""

    async def answer() -> ASGIApp:
        return JSONResponse(server.signing_key.key_set(), headers={"Cache-Control": "max-age=300"})

    async def read(_request: Request) -> ASGIApp:
        return await interfere(server.faults, "jwks", None, answer)

    return read
