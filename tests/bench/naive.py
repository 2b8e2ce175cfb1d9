"""`python -m tests.bench.naive`: the design that comes to mind first, FastAPI and httpx, for comparison: no checks."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from redis.asyncio import Redis

BEARER = HTTPBearer()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with httpx.AsyncClient(base_url=os.environ["EHR"], trust_env=False) as client:
        app.state.client, app.state.redis = client, Redis.from_url(os.environ["STORE"])
        yield
        await app.state.redis.aclose()


app = FastAPI(lifespan=_lifespan)


@app.get("/fhir/{path:path}")
async def forward(
    path: str,
    request: Request,
    credentials: HTTPAuthorizationCredentials = Depends(BEARER),  # noqa: B008, FAST002  # as its manual has it
) -> StreamingResponse:
    """Look the handle up, and pass the answer on."""
    await request.app.state.redis.get(credentials.credentials)
    client = request.app.state.client
    sent = client.build_request("GET", f"/{path}", headers={"Authorization": f"Bearer {os.environ['TOKEN']}"})
    answer = await client.send(sent, stream=True)
    return StreamingResponse(answer.aiter_raw(), answer.status_code, media_type="application/fhir+json")


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="critical", access_log=False)
