"""The EHR as its staff see it: the patients, a chart, and a button for each app that can be launched."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from sandbox.ehr import Ehr
from sandbox.launching import LaunchError, begin_launch
from sandbox.oauth.errors import OAuthError, invalid_request
from sandbox.oauth.parameters import from_form, required
from sandbox.oauth.server import AuthorizationServer
from sandbox.pages.chart import contact, sections
from sandbox.pages.embedded import embed, embedded_route
from sandbox.pages.patients import MOST, found, row
from sandbox.pages.rendering import page, see_other

STATIC = Path(__file__).parent / "static"


def home_routes(server: AuthorizationServer, ehr: Ehr) -> list[BaseRoute]:
    """Return the routes below the origin."""

    async def home(request: Request) -> Response:
        query = request.query_params.get("q", "")
        return page(
            "home.html",
            user=ehr.users[0],
            people=[row(patient) for patient in found(ehr.population["Patient"].values(), query)],
            query=query,
            most=MOST,
            clients=list(server.clients.values()),
            fhir_base=server.settings.fhir_base,
        )

    async def chart(request: Request) -> Response:
        patient = ehr.population["Patient"].get(request.path_params["patient"])
        if patient is None:
            return page("error.html", 404, error=invalid_request("There is no patient of that id."))
        return page(
            "chart.html",
            user=ehr.users[0],
            patient=row(patient),
            contact=contact(patient),
            clients=[client for client in server.clients.values() if client.launch_uri],
            sections=sections(ehr.population, patient["id"]),
        )

    def launcher(*, framed: bool) -> Callable[[Request], Awaitable[Response]]:
        async def launch(request: Request) -> Response:
            patient = request.path_params["patient"]
            try:
                client_id = required(await from_form(request), "client_id")
                _, url = begin_launch(server, ehr.population, ehr.users[0], client_id=client_id, patient=patient)
            except (LaunchError, OAuthError) as error:
                return page("error.html", 400, error=invalid_request(str(error)))
            return see_other(embed(server, ehr, patient, url) if framed else url)

        return launch

    return [
        Route("/", home),
        Route("/patients/{patient}", chart),
        Route("/patients/{patient}/launch", launcher(framed=False), methods=["POST"]),
        Route("/patients/{patient}/embedded", launcher(framed=True), methods=["POST"]),
        embedded_route(ehr),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
