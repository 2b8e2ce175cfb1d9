"""How long a revoked handle goes on working, on whichever of four processes."""

import asyncio
import time
from collections.abc import Sequence

import httpx2


async def revocation(ports: Sequence[int], handles: Sequence[str], *, path: str, client_id: str) -> dict[str, float]:
    """Revoke each handle at one process while all are asked with it, and measure until the last one refuses."""
    async with httpx2.AsyncClient(trust_env=False, timeout=10) as http:
        taken = [await _revoke(http, ports, handle, path, client_id) for handle in handles]
    taken.sort()
    return {"revocation_p99_ms": taken[int(len(taken) * 0.99)], "revocation_processes": float(len(ports))}


async def _revoke(http: httpx2.AsyncClient, ports: Sequence[int], handle: str, path: str, client_id: str) -> float:
    """Return the milliseconds from sending the revocation to sending the last request that succeeded all the same."""
    urls = [f"http://127.0.0.1:{port}/fhir/plain/{path}" for port in ports]
    assert {await _status(http, url, handle) for url in urls} == {200}
    asking = [asyncio.create_task(_last_success(http, url, handle)) for url in urls]
    await asyncio.sleep(0.01)
    began = time.perf_counter()
    form = {"token": handle, "client_id": client_id}
    revoked = await http.post(f"http://127.0.0.1:{ports[0]}/oauth/revoke", data=form)
    assert revoked.status_code == 200, revoked.text
    return max(0.0, *(1000 * (last - began) for last in await asyncio.gather(*asking)))


async def _last_success(http: httpx2.AsyncClient, url: str, handle: str) -> float:
    """Ask until it is refused; return when the last request that succeeded was sent."""
    last = sent = time.perf_counter()
    while await _status(http, url, handle) == 200:
        last, sent = sent, time.perf_counter()
    return last


async def _status(http: httpx2.AsyncClient, url: str, handle: str) -> int:
    answer = await http.get(url, headers={"Authorization": f"Bearer {handle}"})
    assert answer.status_code in {200, 401}, answer.text
    return answer.status_code
