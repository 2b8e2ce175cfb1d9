"""The clinical side: the population, and the FHIR server over a copy of it that a reset makes anew."""

from collections.abc import Callable
from typing import Any, TypeAlias

from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from sandbox.fhir.routes import fhir_routes
from sandbox.interference import interfere
from sandbox.oauth.metadata import oauth_uris
from sandbox.oauth.server import AuthorizationServer
from sandbox.oauth.users import User, demo_users
from sandbox.population import build

Population: TypeAlias = dict[str, dict[str, dict[str, Any]]]


class Ehr:
    """The FHIR server as an ASGI application, and the population as its pages show it."""

    def __init__(self, server: AuthorizationServer, clock: Callable[[], float]) -> None:
        self._server = server
        self._clock = clock
        self.population: Population = build(server.settings.seed, server.settings.patients)
        self.users: tuple[User, ...] = demo_users(self.population)
        self.reset()

    def reset(self) -> None:
        """Undo every write: put the FHIR server back to what the seed says."""
        settings = self._server.settings
        self._fhir = Router(
            fhir_routes(
                self.population,
                lambda: settings.fhir_base,
                self._server.access,
                self._clock,
                lambda: oauth_uris(settings),
            )
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one FHIR request, unless a fault does."""
        arrival = scope["arrival"]
        header = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), None)
        access = self._server.access(header)
        arrival.client_id = access and access.client_id

        async def answer() -> Router:
            return self._fhir

        app = await interfere(self._server.faults, arrival.kind, arrival.client_id, answer)
        await app(scope, receive, send)
