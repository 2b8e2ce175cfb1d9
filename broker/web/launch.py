"""What EHRs redirect browsers to: `/launch/{registration}` and `/callback/{registration}`."""

from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter, Request, Response

from broker.apps import Directory
from broker.errors import BrokerError, InvalidRequest
from broker.flows.ask_ehr import Redirect
from broker.flows.begin_launch import BeginLaunch
from broker.flows.finish_launch import FinishLaunch, Reauthorized
from broker.flows.presented import TAB_KEY, AskTab
from broker.web.errors import page
from broker.web.parameters import Parameters, request_id
from broker.web.redirects import presented_by, redirect_response

Work = Callable[[str], Awaitable[Redirect | Reauthorized | AskTab]]
"""Given the request's id, says where the browser goes next."""


def launch_routes(
    begin_launch: BeginLaunch, finish_launch: FinishLaunch, directory: Directory, parameters: Parameters
) -> APIRouter:
    """Build the routes."""
    router = APIRouter(tags=["launch"])
    public_url = directory.public_url

    async def answer(registration: str, request: Request, work: Work) -> Response:
        rid = request_id(request.headers)
        try:
            return redirect_response(await work(rid), public_url=public_url)
        except BrokerError as error:
            return page(error, request_id=rid, frame_ancestors=directory.frame_ancestors(registration))

    @router.get("/launch/{registration}")
    async def launch(registration: str, request: Request) -> Response:
        """EHR launch URL: `iss` and `launch` (AL-01)."""

        async def begin(rid: str) -> Redirect:
            given = parameters.query(request, rid)
            return await begin_launch(registration, given.get("iss", ""), given.get("launch", ""), request_id=rid)

        return await answer(registration, request, begin)

    @router.get("/callback/{registration}")
    @router.get("/callback/{registration}/{ehr}")
    async def callback(registration: str, request: Request, ehr: str | None = None) -> Response:
        """Redirect URI at the EHR (RG-02): `code` and `state`, or an error."""

        async def finish(rid: str) -> Redirect | Reauthorized | AskTab:
            presented = presented_by(request, None, public_url=public_url)
            given = parameters.query(request, rid)
            return await finish_launch(registration, ehr, given, presented, request_id=rid)

        return await answer(registration, request, finish)

    @router.post("/callback/{registration}")
    @router.post("/callback/{registration}/{ehr}")
    async def callback_with_proof(registration: str, request: Request, ehr: str | None = None) -> Response:
        """The same, posted by the broker's own page with what the tab has kept (AL-22)."""

        async def finish(rid: str) -> Redirect | Reauthorized | AskTab:
            given = await _posted_by_tab(request, parameters, rid)
            presented = presented_by(request, given, public_url=public_url)
            return await finish_launch(registration, ehr, given, presented, request_id=rid)

        return await answer(registration, request, finish)

    return router


async def _posted_by_tab(request: Request, parameters: Parameters, rid: str) -> Mapping[str, str]:
    given = await parameters.form(request, rid)
    if TAB_KEY not in given:
        raise parameters.refused(InvalidRequest("a callback was posted, and not by the broker's page"), rid)
    return given
