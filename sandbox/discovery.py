"""Where clients find out what there is: the `.well-known` documents, and what the CapabilityStatement says of them."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from sandbox.faults import Armed, edit
from sandbox.fhir.capability import Publication
from sandbox.interference import interfere
from sandbox.oauth.metadata import oauth_uris, openid_configuration, smart_configuration
from sandbox.oauth.server import AuthorizationServer
from sandbox.personalities import PERSONALITIES
from sandbox.settings import Settings

CLIENT_HEADER = "epic-client-id"
"""Who asks, as Epic lets a client say (EP-08)."""
_SMART_V1 = "/oauth2/smart-v1"
_UNKNOWN_TENANT = "urn:sandbox:error:authorization-server:oauth2:unknown-tenant"


class Discovery:
    """The documents, as the personality shows them and the armed faults spoil them."""

    def __init__(self, server: AuthorizationServer) -> None:
        self._server = server

    def publication(self, client_id: str | None) -> Publication:
        """Return what the CapabilityStatement says of the OAuth endpoints, and how it is written."""
        faults, settings = self._server.faults, self._server.settings
        endpoints = {} if faults.next("oauth_uris", client_id) else oauth_uris(self._smart_configuration(client_id))
        if faults.next("metadata_format", client_id):
            return Publication(endpoints, "xml", only=True)
        return Publication(endpoints, settings.metadata_format)

    async def answer(self, request: Request) -> ASGIApp:
        """Answer for a path with `.well-known` in it; without a document there, with 404."""
        client_id = request.headers.get(CLIENT_HEADER)
        request.scope["arrival"].client_id = client_id
        point, build = self._document(request.scope["path"], client_id)

        async def document() -> ASGIApp:
            return JSONResponse(build(client_id), headers={"Cache-Control": "max-age=300", "Vary": CLIENT_HEADER})

        async def spoiled() -> ASGIApp:
            return await interfere(self._server.faults, point, client_id, document)

        return await interfere(self._server.faults, "well_known", client_id, spoiled if point else _nothing)

    def _document(self, path: str, client_id: str | None) -> tuple[str, Callable[[str | None], dict[str, Any]]]:
        """Return the document that lies at a path: where faults strike it, and how it is made."""
        settings = self._server.settings
        issuer = urlsplit(settings.issuer).path.rstrip("/")
        appended = {f"{issuer}/.well-known/openid-configuration"}
        inserted = {f"/.well-known/{name}{issuer}" for name in ("openid-configuration", "oauth-authorization-server")}
        if path == f"{urlsplit(settings.fhir_base).path}/.well-known/smart-configuration":
            return "smart_configuration", self._smart_configuration_for
        places = inserted if self._server.faults.next("openid_place", client_id) else appended
        return ("openid_configuration" if path in places else ""), self._openid_configuration

    def _smart_configuration_for(self, client_id: str | None) -> dict[str, Any]:
        document = self._smart_configuration(client_id)
        for struck in self._server.faults.all("smart_configuration.answer", client_id):
            document = _CHANGES[struck.fault.effect](document, struck, self._server.settings)
        return document

    def _smart_configuration(self, client_id: str | None) -> dict[str, Any]:
        settings = self._server.settings
        document = PERSONALITIES[settings.personality].dress(smart_configuration(settings), settings)
        for struck in self._server.faults.all("endpoints", client_id):
            if struck.fault.effect != "per_client" or client_id not in self._server.clients:
                elsewhere = f"{settings.public_url}{struck.parameters['path']}"
                document = _with_endpoints(document, settings.oauth_root, elsewhere)
        return document

    def _openid_configuration(self, client_id: str | None) -> dict[str, Any]:
        document = openid_configuration(self._server.settings)
        for struck in self._server.faults.all("openid_configuration.answer", client_id):
            document = edit(document, struck)
        return document


def discovery_routes(server: AuthorizationServer, discovery: Discovery) -> list[BaseRoute]:
    """Return the routes; they come before all others, since documents lie below the FHIR base and the issuer too."""

    async def document(request: Request) -> ASGIApp:
        return await discovery.answer(request)

    async def unknown_tenant(_request: Request) -> JSONResponse:
        error_uri = f"{server.settings.public_url}/errors/{quote(_UNKNOWN_TENANT, safe='')}/instances/1"
        return JSONResponse({"error": "invalid_request", "error_uri": error_uri}, 400)

    return [
        Route("/{place:path}.well-known/{document:path}", document),
        Route(f"{_SMART_V1}/{{endpoint}}", unknown_tenant, methods=["GET", "POST"]),
    ]


async def _nothing() -> ASGIApp:
    return JSONResponse({"error": "there is no such document"}, 404)


def _with_endpoints(document: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """Return a document whose endpoints begin with `new` where they began with `old`."""
    return {
        name: new + value.removeprefix(old) if name.endswith("_endpoint") and value.startswith(old) else value
        for name, value in document.items()
    }


def _edited(document: Mapping[str, Any], struck: Armed, _settings: Settings) -> dict[str, Any]:
    return edit(document, struck)


def _relative(document: Mapping[str, Any], struck: Armed, settings: Settings) -> dict[str, Any]:
    return _with_endpoints(document, f"{settings.public_url}/", struck.parameters["prefix"])


def _moved(document: Mapping[str, Any], struck: Armed, settings: Settings) -> dict[str, Any]:
    return _with_endpoints(document, settings.public_url, struck.parameters["origin"])


_CHANGES: Mapping[str, Callable[[Mapping[str, Any], Armed, Settings], dict[str, Any]]] = {
    "edit": _edited,
    "relative": _relative,
    "move": _moved,
}
