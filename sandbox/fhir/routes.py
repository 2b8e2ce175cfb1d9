"""HTTP in, HTTP out: the FHIR server as routes below the FHIR base."""

import secrets
from collections.abc import Callable
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from sandbox.access import Access
from sandbox.fhir.capability import Publication, capability_statement
from sandbox.fhir.exchange import Answer, Call
from sandbox.fhir.exports import Exports, MadeUp, Presigned
from sandbox.fhir.interactions import answer
from sandbox.fhir.outcome import FhirError
from sandbox.fhir.paging import Paging
from sandbox.fhir.repository import Repository
from sandbox.fhir.rights import Rights
from sandbox.fhir.server import Server
from sandbox.fhir.xml import to_xml
from sandbox.settings import PageLinks

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]

Authorize = Callable[[str | None], Access | None]


def random_id() -> str:
    """Return an id as EHRs make them: long, opaque, within FHIR's `[A-Za-z0-9-.]{1,64}`."""
    return f"e{secrets.token_urlsafe(16).replace('_', '.')}3"


def fhir_routes(
    repository: Repository,
    base_url: Callable[[], str],
    authorize: Authorize,
    clock: Callable[[], float],
    publication: Callable[[str | None], Publication],
    *,
    new_id: Callable[[], str] = random_id,
    page_links: Callable[[], PageLinks] = lambda: "opaque",
    one_export: Callable[[], bool] = lambda: False,
    presigned: Callable[[str], Presigned | None] = lambda _client_id: None,
    in_parts: Callable[[str], bool] = lambda _client_id: False,
    made_up: Callable[[], MadeUp] = MadeUp,
) -> list[BaseRoute]:
    """Return the routes of one FHIR server, which writes to `repository`.

    `base_url` is the absolute FHIR base without a slash at its end, asked on each request. `authorize` gets the
    Authorization header and answers None when it opens nothing. `clock` is in seconds since 1970.
    `publication` is asked what to say to whom the Epic-Client-ID header names, or to nobody in particular (EP-08).
    With `one_export` a client has one bulk export at a time (OR-08); `presigned` says whether its files lie elsewhere,
    `in_parts` whether its manifest comes in parts, `made_up` what it holds besides.
    Batches and page links use the base without a slash at its end: whoever mounts the routes sees to that.
    """
    paging = Paging(repository, base_url, new_id, style=page_links)
    exports = Exports(repository, base_url, clock, new_id, one_export, presigned, in_parts, made_up)
    server = Server(repository, paging, exports, base_url, new_id)

    async def metadata(request: Request) -> Response:
        published = publication(request.headers.get("epic-client-id"))
        statement = capability_statement(base_url(), published.endpoints)
        if published.wants_json(request.query_params.get("_format"), request.headers.get("accept", "")):
            return _response(request, Answer(200, statement))
        xml = Answer(200, content=to_xml(statement), media_type="application/fhir+xml; charset=utf-8")
        return _response(request, xml)

    async def interact(request: Request) -> Response:
        try:
            return _response(request, answer(server, await _call(request, authorize)))
        except FhirError as error:
            return _response(request, Answer(error.status, error.resource, error.headers))

    return [Route("/metadata", metadata), Route("/{path:path}", interact, methods=METHODS)]


async def _call(request: Request, authorize: Authorize) -> Call:
    """Return the request as a Call; raises FhirError (401) before anything of it is looked at."""
    authorization = request.headers.get("authorization")
    access = authorize(authorization)
    if access is None:
        challenge = "Bearer" if authorization is None else 'Bearer error="invalid_token"'
        raise FhirError(401, "login", "A live access token is needed.", {"WWW-Authenticate": challenge})
    return Call(
        method="GET" if request.method == "HEAD" else request.method,
        segments=tuple(part for part in str(request.path_params["path"]).split("/") if part),
        query=tuple(parse_qsl(request.url.query, keep_blank_values=True)),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=await request.body(),
        rights=Rights(access),
    )


def _response(request: Request, sent: Answer) -> Response:
    headers = {"Cache-Control": "no-store", **sent.headers}
    if "x-request-id" in request.headers:
        headers["X-Request-Id"] = request.headers["x-request-id"]
    if sent.stream is not None:
        return StreamingResponse(sent.stream, sent.status, headers, sent.media_type)
    if sent.body:
        headers["Content-Type"] = sent.media_type
    return Response(sent.body, sent.status, headers)
