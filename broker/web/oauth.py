"""What apps authorize at: `/oauth/authorize`, `/oauth/token`, `/oauth/introspect`, `/oauth/revoke`."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse

from broker.apps import App
from broker.errors import BrokerError
from broker.flows.authenticate_app import AuthenticateApp
from broker.flows.authorize_app import AuthorizeApp
from broker.flows.introspect import Introspect
from broker.flows.proof.proof import Proof
from broker.flows.revoke import RevokeHandle
from broker.flows.token import Token
from broker.web.arrival import Arrivals
from broker.web.client_certificate import ClientCertificates
from broker.web.cors import reader_of
from broker.web.errors import NO_STORE, oauth_error, page
from broker.web.parameters import Parameters, request_id
from broker.web.redirects import presented_by, redirect_response


def authorize_routes(authorize_app: AuthorizeApp, parameters: Parameters, *, public_url: str) -> APIRouter:
    """Build `/oauth/authorize`."""
    router = APIRouter(tags=["oauth"])

    async def authorize(request: Request, given: Mapping[str, str], rid: str) -> Response:
        form = given if request.method == "POST" else None
        presented = presented_by(request, form, public_url=public_url)
        return redirect_response(await authorize_app(given, presented, request_id=rid), public_url=public_url)

    def refused(request: Request, error: BrokerError, rid: str) -> Response:
        translate = page if "text/html" in request.headers.get("accept", "") else oauth_error
        return translate(error, request_id=rid)

    @router.get("/oauth/authorize")
    async def authorize_get(request: Request) -> Response:
        """RFC 6749 §4.1.1 by query."""
        rid = request_id(request.headers)
        try:
            return await authorize(request, parameters.query(request, rid), rid)
        except BrokerError as error:
            return refused(request, error, rid)

    @router.post("/oauth/authorize")
    async def authorize_post(request: Request) -> Response:
        """The same by form (SMART `authorize-post`, AL-14)."""
        rid = request_id(request.headers)
        try:
            return await authorize(request, await parameters.form(request, rid), rid)
        except BrokerError as error:
            return refused(request, error, rid)

    return router


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Has the app of a request prove who it is, and lets its pages read the answer."""

    authenticate_app: AuthenticateApp
    certificates: ClientCertificates
    parameters: Parameters
    public_url: str

    async def __call__(self, request: Request, form: Mapping[str, str], rid: str) -> App:
        """Raises `InvalidClient`, `StoreUnavailable`."""
        certificate, endpoint = self.certificates.read(request.scope, rid), self.public_url + request.scope["path"]
        proof = Proof(form, self.parameters.authorization(request, rid), certificate, endpoint=endpoint)
        app = await self.authenticate_app(proof, request_id=rid)
        reader_of(request.scope).is_app(app.id)
        return app


class _PlainRoute(APIRoute):
    """A route whose endpoint reads the request itself: what FastAPI does to read it takes longer than all else."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the endpoint as it is."""
        return self.endpoint


def token_routes(
    token: Token,
    introspect: Introspect,
    revoke: RevokeHandle,
    authenticate: Authenticate,
    parameters: Parameters,
    arrivals: Arrivals,
) -> APIRouter:
    """Build the endpoints that apps call themselves."""
    router = APIRouter(tags=["oauth"], route_class=_PlainRoute)

    @router.post("/oauth/token")
    async def token_endpoint(request: Request) -> Response:
        """RFC 6749 §3.2: a handle for a code, a refresh handle, client credentials, or another handle."""
        rid = request_id(request.headers)
        try:
            form = await token.with_client_id(
                await parameters.form(request, rid), parameters.authorization(request, rid)
            )
            app = await authenticate(request, form, rid)
            proofs = request.headers.getlist("dpop")
            arrival = arrivals.of(request.scope, rid)
            answer = await token(app, form, arrival, request_id=rid, proofs=proofs)
        except BrokerError as error:
            return oauth_error(error, request_id=rid)
        return JSONResponse(answer, headers={**NO_STORE, "X-Request-Id": rid, **token.check_dpop.headers(proofs)})

    @router.post("/oauth/introspect")
    async def introspection_endpoint(request: Request) -> Response:
        """RFC 7662: what a handle of the asking app may do."""
        rid = request_id(request.headers)
        try:
            form = await parameters.form(request, rid)
            app = await authenticate(request, form, rid)
            proofs = request.headers.getlist("dpop")
            asked, arrival = parameters.required(form, "token", rid), arrivals.of(request.scope, rid)
            answer = await introspect(app, asked, arrival, request_id=rid, proofs=proofs)
        except BrokerError as error:
            return oauth_error(error, request_id=rid)
        return JSONResponse(answer, headers={**NO_STORE, "X-Request-Id": rid, **introspect.check_dpop.headers(proofs)})

    @router.post("/oauth/revoke")
    async def revocation_endpoint(request: Request) -> Response:
        """RFC 7009: 200 for known and unknown alike."""
        rid = request_id(request.headers)
        try:
            form = await parameters.form(request, rid)
            app = await authenticate(request, form, rid)
            await revoke(app, parameters.required(form, "token", rid), request_id=rid)
        except BrokerError as error:
            return oauth_error(error, request_id=rid)
        return Response(status_code=200, headers={**NO_STORE, "X-Request-Id": rid})

    return router
