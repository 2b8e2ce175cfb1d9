"""`/livez`: the process answers. `/readyz`: it can do its work."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Response
from starlette.responses import JSONResponse

from broker.errors import BrokerError


def health_routes(check: Callable[[], Awaitable[None]], is_draining: Callable[[], bool]) -> APIRouter:
    """Build the probes. `check` raises a `BrokerError` when the store or the audit trail is not usable."""
    router = APIRouter(tags=["health"])

    @router.get("/livez")
    async def livez() -> Response:
        """200 while the process runs."""
        return JSONResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})

    @router.get("/readyz")
    async def readyz() -> Response:
        """200 when requests can be served, 503 with the failing part otherwise, also while draining."""
        try:
            if is_draining():
                return JSONResponse({"status": "draining"}, 503, headers={"Cache-Control": "no-store"})
            await check()
        except BrokerError as error:
            return JSONResponse({"status": error.code}, 503, headers={"Cache-Control": "no-store"})
        return JSONResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})

    return router
