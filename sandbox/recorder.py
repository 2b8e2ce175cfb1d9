"""The journal's place in the path of every request: in before anything looks at it, out with the status."""

from starlette.datastructures import Headers, QueryParams
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.journal import Journal
from sandbox.settings import Settings

CONTROL = "/__"
"""Where the paths of tests and operators begin; they are not part of the EHR and leave no trace."""


class Recorder:
    """ASGI middleware that writes each arrival into the journal; the endpoint finds it as `scope["arrival"]`."""

    def __init__(self, app: ASGIApp, journal: Journal, settings: Settings) -> None:
        self._app = app
        self._journal = journal
        self._fhir = settings.fhir_base.removeprefix(settings.public_url)
        self._kinds = {
            f"{self._fhir}/metadata": "metadata",
            f"{self._fhir}/.well-known/smart-configuration": "smart_configuration",
            "/oauth2/authorize": "authorize",
            "/oauth2/token": "token",
            "/oauth2/introspect": "introspect",
            "/oauth2/revoke": "revoke",
            "/oauth2/par": "par",
            "/oauth2/register": "register",
            "/oauth2/mtls/token": "token",
            "/oauth2/mtls/introspect": "introspect",
            "/oauth2/mtls/revoke": "revoke",
            "/oauth2/mtls/par": "par",
            "/oauth2/jwks": "jwks",
            "/brands.json": "brands",
            "/endpoints.json": "endpoints",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Record one HTTP request."""
        path: str = scope.get("path", "")
        if scope["type"] != "http" or path.startswith(CONTROL):
            await self._app(scope, receive, send)
            return
        query = QueryParams(scope["query_string"]).multi_items()
        arrival = self._journal.arrived(self._kind(path), scope["method"], path, query, Headers(scope=scope))

        async def send_and_record(message: Message) -> None:
            if message["type"] == "http.response.start":
                arrival.status = message["status"]
            await send(message)

        scope["arrival"] = arrival
        await self._app(scope, receive, send_and_record)

    def _kind(self, path: str) -> str:
        if "/.well-known/openid-configuration" in path:
            return "openid_configuration"
        if path.startswith("/storage/"):
            return "storage"
        return self._kinds.get(path) or ("fhir" if path.startswith(f"{self._fhir}/") or path == self._fhir else "page")
