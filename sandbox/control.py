"""The other side of the sandbox: how tests and operators register clients, arm faults and read the journal.

These paths begin with `/__`. They ask for no credentials, so they answer programs only: a request that a web page made
is refused, whatever it asks for.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from sandbox.ehr import Ehr
from sandbox.launching import begin_launch
from sandbox.marks import digest, mint
from sandbox.oauth.clients import Client
from sandbox.oauth.server import AuthorizationServer
from sandbox.pages.embedded import embed
from sandbox.personalities import PERSONALITIES, wear
from sandbox.switching import switch, switches


def control_routes(server: AuthorizationServer, ehr: Ehr) -> list[BaseRoute]:
    """Return the routes."""
    control = Control(server, ehr)
    endpoints = (
        ("POST", "/__clients", control.register),
        ("GET", "/__clients", control.clients),
        ("DELETE", "/__clients/{client_id:path}", control.unregister),
        ("POST", "/__launch", control.launch),
        ("POST", "/__faults", control.arm),
        ("GET", "/__faults", control.faults),
        ("DELETE", "/__faults", control.disarm),
        ("GET", "/__journal", control.journal),
        ("GET", "/__counts", control.counts),
        ("GET", "/__settings", control.settings),
        ("POST", "/__settings", control.switch),
        ("GET", "/__personality", control.personality),
        ("POST", "/__personality", control.play),
        ("POST", "/__expire", control.expire),
        ("POST", "/__reset", control.reset),
    )
    return [Route(path, _program(endpoint), methods=[method]) for method, path, endpoint in endpoints]


def add_client(server: AuthorizationServer, document: Any) -> Client:
    """Register a client, in place of one of the same id; raises `RegistrationError`."""
    new_secret = mint("secret", server.entropy)
    client = Client.parse(document, new_secret)
    if client.client_secret == new_secret:
        server.journal.issued("client_secret", digest(new_secret), client.client_id, None)
    server.clients[client.client_id] = client
    return client


class Control:
    """One method for each thing that can be asked; a `ValueError` becomes a 400 that says what was wrong."""

    def __init__(self, server: AuthorizationServer, ehr: Ehr) -> None:
        self._server = server
        self._ehr = ehr
        self._began_as = server.settings

    async def register(self, request: Request) -> Response:
        """Register a client; this answer alone shows its secret."""
        client = add_client(self._server, await _json(request))
        secret = {"client_secret": client.client_secret} if client.client_secret else {}
        return JSONResponse(client.registration() | secret, 201)

    async def clients(self, _request: Request) -> Response:
        """List the clients."""
        return JSONResponse([client.registration() for client in self._server.clients.values()])

    async def unregister(self, request: Request) -> Response:
        """Remove a client; its tokens stay."""
        known = self._server.clients.pop(request.path_params["client_id"], None)
        return Response(status_code=204 if known else 404)

    async def launch(self, request: Request) -> Response:
        """Begin an EHR launch, as a chart's button does; in a frame of the chart if it is to be `embedded`."""
        chosen = _members(await _json(request), "client_id", "patient", "encounter", "embedded")
        embedded = chosen.pop("embedded")
        if not isinstance(embedded, bool | None):
            raise ValueError("embedded is true or false")  # noqa: TRY004  # becomes a 400, as every ValueError here
        value, url = begin_launch(self._server, self._ehr.population, self._ehr.users[0], **chosen)
        if embedded:
            url = embed(self._server, self._ehr, chosen["patient"], url)
        return JSONResponse({"launch": value, "url": url}, 201)

    async def arm(self, request: Request) -> Response:
        """Arm a fault."""
        return JSONResponse(self._server.faults.arm(await _json(request)).document(), 201)

    async def faults(self, _request: Request) -> Response:
        """List the faults that wait."""
        return JSONResponse(self._server.faults.listing())

    async def disarm(self, _request: Request) -> Response:
        """Disarm every fault."""
        self._server.faults.clear()
        return Response(status_code=204)

    async def journal(self, request: Request) -> Response:
        """Return the journal, or its entries of one kind."""
        return JSONResponse(self._server.journal.entries(request.query_params.get("kind")))

    async def counts(self, _request: Request) -> Response:
        """Return the numbers by name."""
        return JSONResponse(self._server.journal.counts())

    async def settings(self, _request: Request) -> Response:
        """Return the settings that can be changed, as they are."""
        return JSONResponse(switches(self._server.settings))

    async def switch(self, request: Request) -> Response:
        """Change settings, until the reset or another personality."""
        self._server.settings = switch(self._server.settings, await _json(request))
        return JSONResponse(switches(self._server.settings))

    async def personality(self, _request: Request) -> Response:
        """Say whom the sandbox plays, and whom it could."""
        return JSONResponse({"name": self._server.settings.personality, "known": list(PERSONALITIES)})

    async def play(self, request: Request) -> Response:
        """Play another vendor; what the command line said of the settings that it changes waits for the reset."""
        name = _members(await _json(request), "name")["name"]
        self._server.settings = wear(self._began_as, name)
        return JSONResponse({"name": name})

    async def expire(self, _request: Request) -> Response:
        """Let every access token expire."""
        return JSONResponse({"expired": self._server.ledger.expire_access_tokens()})

    async def reset(self, request: Request) -> Response:
        """Put everything back; the clients stay unless `{"clients": "drop"}` is posted."""
        document = await _json(request) if await request.body() else {}
        clients = _members(document, "clients")["clients"]
        if clients not in {None, "keep", "drop"}:
            raise ValueError("clients is keep or drop")
        if clients == "drop":
            self._server.clients.clear()
        self._server.settings = self._began_as
        self._server.forget()
        self._server.faults.clear()
        self._server.journal.clear()
        self._ehr.reset()
        return Response(status_code=204)


def _program(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint for programs: a browser says where a request comes from, and is refused."""

    async def answer(request: Request) -> Response:
        if "origin" in request.headers or request.headers.get("sec-fetch-site", "none") != "none":
            return JSONResponse({"error": "web pages may not use this"}, 403)
        try:
            return await endpoint(request)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)

    return answer


async def _json(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except ValueError:
        raise ValueError("the body is not JSON") from None


def _members(document: Any, *names: str) -> dict[str, Any]:
    if not isinstance(document, dict) or not set(document) <= set(names):
        raise ValueError(f"the body is an object with {', '.join(names)}")
    return {name: document.get(name) for name in names}
