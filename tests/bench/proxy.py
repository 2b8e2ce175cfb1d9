"""What a read through the broker costs beside the cheapest answer that the same server gives, in the same run."""

import asyncio
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import httpx2

from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer, wheel_server
from tests.stage import App, open_stage, running_sandbox

ROUNDS = 5
REQUESTS = 200


async def measure() -> dict[str, float]:
    """Read one Patient through to the simulated EHR, and a cached document: milliseconds each, and their ratio."""
    with tempfile.TemporaryDirectory() as folder, running_sandbox() as sandbox:
        state = Path(folder)
        with EmbeddedServer.start(state, server=wheel_server()) as store:
            redis = connect(store.url())
            try:
                async with open_stage(sandbox, redis, state) as stage:
                    return await _paired(stage.app())
            finally:
                await redis.aclose()


async def _paired(app: App) -> dict[str, float]:
    response = await app.standalone()
    patient, handle = response["patient"], response["access_token"]
    client = httpx2.AsyncClient(trust_env=False)
    metadata = f"{app.base}/metadata"

    async def through() -> None:
        answer = await client.get(f"{app.base}/Patient/{patient}", headers={"Authorization": f"Bearer {handle}"})
        assert answer.status_code == 200, answer.text

    async def near() -> None:
        assert (await client.get(metadata)).status_code == 200

    async with client:
        await _milliseconds(through)
        pairs = [(await _milliseconds(near), await _milliseconds(through)) for _ in range(ROUNDS)]
    cached, proxied = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
    await app.close()
    return {
        "cached_metadata_ms_p50": cached,
        "patient_read_ms_p50": proxied,
        "read_vs_cached_metadata": median(pair[1] / pair[0] for pair in pairs),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


async def _milliseconds(call: Callable[[], Awaitable[None]]) -> float:
    times = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        await call()
        times.append((time.perf_counter() - began) * 1e3)
    await asyncio.sleep(0)
    return median(times)
