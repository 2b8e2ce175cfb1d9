"""What EHRs redirect browsers to: `/launch/{registration}` and `/callback/{registration}`."""

from fastapi import APIRouter, Request, Response

from broker.errors import BrokerError
from broker.flows.begin_launch import BeginLaunch
from broker.flows.finish_launch import FinishLaunch
from broker.web.errors import page
from broker.web.parameters import query_parameters, request_id
from broker.web.redirects import launch_cookies, redirect_response


def launch_routes(begin_launch: BeginLaunch, finish_launch: FinishLaunch, *, secure: bool) -> APIRouter:
    """Build the routes; `secure` says that the public URL is https."""
    router = APIRouter(tags=["launch"])

    @router.get("/launch/{registration}")
    async def launch(registration: str, request: Request) -> Response:
        """EHR launch URL: `iss` and `launch` (AL-01)."""
        rid = request_id(request.headers)
        try:
            given = query_parameters(request)
            redirect = await begin_launch(registration, given.get("iss", ""), given.get("launch", ""), request_id=rid)
        except BrokerError as error:
            return page(error, request_id=rid)
        return redirect_response(redirect, secure=secure)

    @router.get("/callback/{registration}")
    @router.get("/callback/{registration}/{ehr}")
    async def callback(registration: str, request: Request, ehr: str | None = None) -> Response:
        """Redirect URI at the EHR (RG-02): `code` and `state`, or an error."""
        rid = request_id(request.headers)
        try:
            given, cookies = query_parameters(request), launch_cookies(request, secure=secure)
            redirect = await finish_launch(registration, ehr, given, cookies, request_id=rid)
        except BrokerError as error:
            return page(error, request_id=rid)
        return redirect_response(redirect, secure=secure)

    return router
