"""An app inside the chart: the launch runs in a frame of the EHR's own page (AL-22)."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sandbox.ehr import Ehr
from sandbox.oauth.errors import invalid_request
from sandbox.oauth.server import AuthorizationServer
from sandbox.pages.patients import row
from sandbox.pages.rendering import page

FRAMES = "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; frame-src http: https:"
"""What the frame shows is the app's affair: it goes to the app, to the broker, to the sandbox, and back."""


def embed(server: AuthorizationServer, ehr: Ehr, patient: str, launch_url: str) -> str:
    """Return the URL of a page that launches an app in a frame, and shows whose chart it is in."""
    id_ = server.entropy(16).hex()
    ehr.embedded[id_] = patient, launch_url
    return f"{server.settings.public_url}/embedded/{id_}"


def embedded_route(ehr: Ehr) -> BaseRoute:
    """Return the route of those pages."""

    async def embedded(request: Request) -> Response:
        patient, url = ehr.embedded.get(request.path_params["id"], ("", ""))
        if not url:
            return page("error.html", 404, error=invalid_request("This launch is over."))
        shown = page("embedded.html", user=ehr.users[0], patient=row(ehr.population["Patient"][patient]), url=url)
        shown.headers["Content-Security-Policy"] = FRAMES
        return shown

    return Route("/embedded/{id}", embedded)
