"""The FastAPI application: routers in, one dialect out for everything that no route answered."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from fastapi import APIRouter, FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker import __version__
from broker.errors import BrokerError, HttpVersionNotSupported, InvalidRequest, NotFound, TooLarge
from broker.web.client_certificate import ClientCertificates
from broker.web.cors import Cors, reader_of
from broker.web.errors import fhir_error, oauth_error, page, problem, unexpected
from broker.web.parameters import request_id, request_id_of

_BELOW = "^/fhir/(?:[^/]+)/"
_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))


def create_application(
    routers: Iterable[APIRouter], fhir: ASGIApp, cors: Cors, certificates: ClientCertificates
) -> FastAPI:
    """Build the application. `fhir` answers everything below `/fhir` that no router does, other methods included.

    So a handle that is tried by any of them leaves a record. It is asked directly, because the framework's own way
    there takes longer than all that the broker does itself.
    """
    app = FastAPI(
        title="SMART on FHIR token broker",
        version=__version__,
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # such a redirect names the host and scheme that the caller wrote
        telemetry={"tracing": False, "logs": False},  # spans would hold codes, states, search values and patient ids
    )
    routed: defaultdict[str, list[re.Pattern[str]]] = defaultdict(list)
    for router in routers:
        app.include_router(router)
        for route in router.routes:
            if isinstance(route, Route) and route.path.startswith("/fhir/"):
                for method in route.methods or ():
                    routed[method].append(route.path_regex)
    app.add_exception_handler(HTTPException, _no_route)
    by_method = {method: _any_of(paths) for method, paths in routed.items()}
    app.add_middleware(_Entrance, cors=cors, certificates=certificates, fhir=fhir, routed=by_method)
    return app


def _any_of(routes: Iterable[re.Pattern[str]]) -> re.Pattern[str]:
    """Return one pattern for all of these below `/fhir/{ehr}/`: each FHIR request is held against it."""
    ends = {re.sub(r"\?P<\w+>", "?:", route.pattern).removeprefix(_BELOW).removesuffix("$") for route in routes}
    return re.compile(f"{_BELOW}(?:{'|'.join(sorted(ends))})$")


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    rid = request_id(request.headers)
    if status == 413:
        return _translate(request.url.path, TooLarge("the body is too large"), rid)
    if status == 405:
        response = _translate(request.url.path, InvalidRequest("wrong method", public="Method not allowed."), rid)
        response.status_code = 405
        response.headers["Allow"] = (
            str((error.headers or {}).get("Allow", "")) if isinstance(error, HTTPException) else ""
        )
        return response
    return _translate(request.url.path, NotFound(f"no route (status {status})"), rid)


def _translate(path: str, error: BrokerError, rid: str) -> Response:
    if path.startswith("/oauth/"):
        return oauth_error(error, request_id=rid)
    return fhir_error(error, request_id=rid) if path.startswith("/fhir/") else problem(error, request_id=rid)


class _Entrance:
    """Answers what nobody foresaw, and adds the headers every answer has; pure ASGI, so streams stay streams."""

    def __init__(
        self,
        app: ASGIApp,
        cors: Cors,
        certificates: ClientCertificates,
        fhir: ASGIApp,
        routed: Mapping[str, re.Pattern[str]],
    ) -> None:
        self.app = app
        self._cors = cors
        self._certificates = certificates
        self._fhir = fhir
        self._routed = routed
        """The paths below `/fhir` that have a route, by method."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                present = {name for name, _ in message["headers"]}
                own = (header for header in _HEADERS if header[0] not in present)
                message["headers"] = [*message["headers"], *own, *self._cors.headers(scope, message["status"])]
            await send(message)

        reader_of(scope)  # here, so that every copy of the scope further in has the same one
        if (preflight := self._cors.preflight(scope)) is not None:
            await send({"type": "http.response.start", "status": 204, "headers": [*preflight, *_HEADERS]})
            await send({"type": "http.response.body", "body": b""})
            return
        try:
            await self._admit(scope, receive, send_with_headers)
        except Exception as error:  # noqa: BLE001  # the outermost room: its type and place are logged, not its text
            if started:
                return
            rid = request_id_of(scope)
            in_browser = scope["path"].startswith(("/launch/", "/callback/", "/reauthorize/"))
            foreseen = error if isinstance(error, BrokerError) else unexpected(error)
            answer = page(foreseen, request_id=rid) if in_browser else _translate(scope["path"], foreseen, rid)
            await answer(scope, receive, send_with_headers)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, unless it brings a certificate header that is not its to bring (OA-25).

        Raises `HttpVersionNotSupported`.
        """
        cause = self._certificates.forgery(scope)
        if cause is None:
            if scope["http_version"] < "1.1" and scope["path"].startswith("/fhir/"):
                raise HttpVersionNotSupported("a FHIR request over HTTP/1.0")
            await self._app_of(scope)(scope, receive, send)
            return
        rid = request_id_of(scope)
        self._certificates.report(cause, rid)
        await _translate(scope["path"], InvalidRequest(cause), rid)(scope, receive, send)

    def _app_of(self, scope: Scope) -> ASGIApp:
        path: str = scope["path"]
        if not path.startswith("/fhir/"):
            return self.app
        method = scope["method"]
        routed = self._routed.get("GET" if method == "HEAD" else method)
        return self._fhir if routed is None or not routed.match(path) else self.app
