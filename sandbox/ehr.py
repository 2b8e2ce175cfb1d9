"""The clinical side: the population, and the FHIR server over a copy of it that a reset makes anew."""

from collections.abc import Callable
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox.discovery import Discovery
from sandbox.distortion import distorted
from sandbox.faults import Armed
from sandbox.fhir import page_links
from sandbox.fhir.exports import JOBS, MadeUp, Presigned
from sandbox.fhir.outcome import outcome
from sandbox.fhir.repository import Repository
from sandbox.fhir.routes import fhir_routes
from sandbox.interference import interfere
from sandbox.oauth.dpop import challenge
from sandbox.oauth.presented import Presented
from sandbox.oauth.server import AuthorizationServer
from sandbox.oauth.users import User, demo_users
from sandbox.population import build
from sandbox.storage import Storage

Population: TypeAlias = dict[str, dict[str, dict[str, Any]]]
MERGED = "4107"
"""What Epic's outcome says of a patient whose record was merged into another (PX-15)."""


class Ehr:
    """The FHIR server as an ASGI application, and the population as its pages show it."""

    def __init__(
        self, server: AuthorizationServer, clock: Callable[[], float], discovery: Discovery, storage: Storage
    ) -> None:
        self._server = server
        self._clock = clock
        self._discovery = discovery
        self._storage = storage
        self.population: Population = build(server.settings.seed, server.settings.patients)
        self._untouched = Repository(self.population, clock)
        self.users: tuple[User, ...] = demo_users(self.population)
        self.embedded: dict[str, tuple[str, str]] = {}
        """The launches that wait in a frame of the chart: patient and URL by an id."""
        self.reset()

    def reset(self) -> None:
        """Undo every write: put the FHIR server back to what the seed says."""
        server = self._server
        self.embedded.clear()
        self._storage.clear()
        self._fhir = Router(
            fhir_routes(
                self._untouched.copy(self._clock),
                lambda: server.settings.fhir_base,
                server.access,
                self._clock,
                self._discovery.publication,
                page_links=lambda: server.settings.page_links,
                one_export=lambda: server.settings.one_bulk_job,
                presigned=self._presigned,
                made_up=lambda: MadeUp(server.settings.bulk_files, server.settings.bulk_lines),
                in_parts=lambda client_id: server.faults.next("bulk.parts", client_id) is not None,
            )
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one FHIR request, unless a fault does."""
        arrival = scope["arrival"]
        presented = Presented.of(Request(scope), self._server.settings)
        access = self._server.access(presented.authorization)
        arrival.client_id = access and access.client_id
        if refusal := self._server.proof_refusal(presented):
            await challenge(refusal)(scope, receive, send)
            return
        path = scope["path"].removeprefix(urlsplit(self._server.settings.fhir_base).path)
        point = point_of(scope["method"], path, scope["query_string"].decode("latin-1"))

        async def answer() -> ASGIApp:
            if point == "fhir.patient" and (merged := self._server.faults.next(point, arrival.client_id)):
                return self._merged(path, merged)
            return self._spoiled(arrival.client_id, point)

        async def answer_there() -> ASGIApp:
            return await interfere(self._server.faults, point, arrival.client_id, answer)

        app = await interfere(
            self._server.faults,
            arrival.kind,
            arrival.client_id,
            answer_there if point in {"fhir.page", "bulk.kick_off", "bulk.status"} else answer,
        )
        await app(scope, receive, send)

    def _spoiled(self, client_id: str | None, point: str) -> ASGIApp:
        """Return the FHIR server, behind the faults that change its good answers."""
        struck = [armed for place in _DISTORTED.get(point, ()) for armed in self._server.faults.all(place, client_id)]
        return distorted(self._fhir, struck, self._server.settings.public_url, self._storage) if struck else self._fhir

    def _merged(self, path: str, struck: Armed) -> JSONResponse:
        """Return the redirect to the record that a patient's was merged into."""
        ids = list(self.population["Patient"])
        old = path.rpartition("/")[2]
        following = ids[(ids.index(old) + 1) % len(ids)] if old in ids else ids[0]
        location = f"{self._server.settings.fhir_base}/Patient/{struck.parameters['into'] or following}"
        document = outcome("information", "informational", f"{MERGED}: the patient was merged.")
        return JSONResponse(document, 301, {"Location": location}, media_type="application/fhir+json")

    def _presigned(self, client_id: str) -> Presigned | None:
        struck = self._server.faults.next("bulk.presigned", client_id)
        return Presigned(self._storage.put, struck.parameters["requires_access_token"]) if struck else None


_DISTORTED = {
    "fhir": ("fhir.storage",),
    "fhir.patient": ("fhir.storage",),
    "fhir.page": ("fhir.links", "fhir.storage"),
    "fhir.search": ("fhir.links", "fhir.storage"),
    "bulk.kick_off": ("bulk.accepted",),
    "bulk.status": ("bulk.manifest", "bulk.separate"),
    "bulk.file": ("bulk.file",),
}
"""Where the faults that change an answer strike, by the point a request is at."""


def point_of(method: str, path: str, query: str) -> str:
    """Return the place in the table of faults of a request below the FHIR base."""
    segments = [part for part in path.split("/") if part]
    if segments[-1:] == ["$export"]:
        return "bulk.kick_off"
    match segments:
        case [first, _] if first == JOBS:
            return "bulk.status"
        case [first, _, _] if first == JOBS:
            return "bulk.file"
        case ["Patient", _] if method == "GET":
            return "fhir.patient"
    if page_links.read(dict(parse_qsl(query))) is not None:
        return "fhir.page"
    searches = len(segments) == 1 and method == "GET"
    return "fhir.search" if searches or segments[-1:] == ["_search"] or segments[-1:] == ["$everything"] else "fhir"
