"""What apps authorize at: `/oauth/authorize`, `/oauth/token`, `/oauth/introspect`, `/oauth/revoke`."""

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from broker.errors import BrokerError, InvalidClient, InvalidRequest
from broker.flows.authenticate_app import AuthenticateApp
from broker.flows.authorize_app import AuthorizeApp
from broker.flows.introspect import Introspect
from broker.flows.revoke import RevokeHandle
from broker.flows.token import Token
from broker.web.errors import NO_STORE, oauth_error, page
from broker.web.parameters import form_parameters, query_parameters, request_id
from broker.web.redirects import launch_cookies, redirect_response


def authorize_routes(authorize_app: AuthorizeApp, *, secure: bool) -> APIRouter:
    """Build `/oauth/authorize`; `secure` says that the public URL is https."""
    router = APIRouter(tags=["oauth"])

    async def authorize(request: Request, parameters: Mapping[str, str], rid: str) -> Response:
        redirect = await authorize_app(parameters, launch_cookies(request, secure=secure), request_id=rid)
        return redirect_response(redirect, secure=secure)

    def refused(request: Request, error: BrokerError, rid: str) -> Response:
        translate = page if "text/html" in request.headers.get("accept", "") else oauth_error
        return translate(error, request_id=rid)

    @router.get("/oauth/authorize")
    async def authorize_get(request: Request) -> Response:
        """RFC 6749 §4.1.1 by query."""
        rid = request_id(request.headers)
        try:
            return await authorize(request, query_parameters(request), rid)
        except BrokerError as error:
            return refused(request, error, rid)

    @router.post("/oauth/authorize")
    async def authorize_post(request: Request) -> Response:
        """The same by form (SMART `authorize-post`, AL-14)."""
        rid = request_id(request.headers)
        try:
            return await authorize(request, await form_parameters(request), rid)
        except BrokerError as error:
            return refused(request, error, rid)

    return router


def token_routes(
    token: Token, introspect: Introspect, revoke: RevokeHandle, authenticate_app: AuthenticateApp, *, public_url: str
) -> APIRouter:
    """Build the endpoints that apps call themselves."""
    router = APIRouter(tags=["oauth"])

    def audience(request: Request) -> str:
        return public_url + request.url.path

    @router.post("/oauth/token")
    async def token_endpoint(request: Request) -> Response:
        """RFC 6749 §3.2: a handle for a code, a refresh handle, or client credentials."""
        rid = request_id(request.headers)
        try:
            form, proof = await form_parameters(request), authorization(request)
            answer = await token(form, proof, audience=audience(request), request_id=rid)
        except BrokerError as error:
            return oauth_error(error, request_id=rid)
        return JSONResponse(answer, headers={**NO_STORE, "X-Request-Id": rid})

    @router.post("/oauth/introspect")
    async def introspection_endpoint(request: Request) -> Response:
        """RFC 7662: what a handle of the asking app may do."""
        rid = request_id(request.headers)
        try:
            form, proof = await form_parameters(request), authorization(request)
            app = await authenticate_app(form, proof, audience=audience(request), request_id=rid)
            answer = await introspect(app, _token(form), request_id=rid)
        except BrokerError as error:
            return oauth_error(error, request_id=rid)
        return JSONResponse(answer, headers={**NO_STORE, "X-Request-Id": rid})

    @router.post("/oauth/revoke")
    async def revocation_endpoint(request: Request) -> Response:
        """RFC 7009: 200 for known and unknown alike."""
        rid = request_id(request.headers)
        try:
            form, proof = await form_parameters(request), authorization(request)
            app = await authenticate_app(form, proof, audience=audience(request), request_id=rid)
            await revoke(app, _token(form), request_id=rid)
        except BrokerError as error:
            return oauth_error(error, request_id=rid)
        return Response(status_code=200, headers={**NO_STORE, "X-Request-Id": rid})

    return router


def authorization(request: Request) -> str | None:
    """Return the Authorization header. Raises `InvalidClient` when there are two."""
    values = request.headers.getlist("authorization")
    if len(values) > 1:
        raise InvalidClient("two Authorization headers")
    return values[0] if values else None


def _token(form: Mapping[str, str]) -> str:
    if "token" not in form:
        raise InvalidRequest("token is missing", public="token is required.")
    return form["token"]
