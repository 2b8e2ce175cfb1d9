"""Where a link leads by which a person authorizes an existing grant again: `/reauthorize/{link}`.

To open it begins nothing, since mail programs and scanners open links, too; the person goes on by a button.
"""

from fastapi import APIRouter, Request, Response

from broker.errors import BrokerError
from broker.flows.begin_reauthorization import BeginReauthorization
from broker.web.errors import page
from broker.web.pages import ask_page
from broker.web.parameters import request_id
from broker.web.redirects import redirect_response


def reauthorize_routes(begin_reauthorization: BeginReauthorization, *, public_url: str) -> APIRouter:
    """Build the routes."""
    router = APIRouter(tags=["reauthorize"])

    @router.get("/reauthorize/{link}")
    async def look(link: str, request: Request) -> Response:
        """Say what the link is for."""
        rid = request_id(request.headers)
        try:
            asked = await begin_reauthorization.look(link, request_id=rid)
        except BrokerError as error:
            return page(error, request_id=rid)
        return ask_page(app=asked.app, ehr=asked.ehr, url=public_url)

    @router.post("/reauthorize/{link}")
    async def begin(link: str, request: Request) -> Response:
        """Send the browser to the EHR. What is posted is not read."""
        rid = request_id(request.headers)
        try:
            return redirect_response(await begin_reauthorization(link, request_id=rid), public_url=public_url)
        except BrokerError as error:
            return page(error, request_id=rid)

    return router
