"""A bulk export of a gigabyte, while the EHR's tokens end every 30 seconds and the broker is killed and started again.

Complete is what has every line of every file, once, as the EHR makes them: the hash of each file says so. The app does
what the specification tells it to: it fetches a file anew that broke off, with a new handle when the old one has ended.
"""

import asyncio
import hashlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from sandbox.fhir.exports import MadeUp
from tests.chaos.fleet import Fleet, Replica, fleet
from tests.chaos.outcome import Outcome
from tests.stage import App
from tests.stories.exporting import ASYNC, SCOPE, SECRET, app_toml

FILES: Final = 8
LINES: Final = 128 << 10
"""A kilobyte each: a gigabyte in all."""
LIFETIME_SECONDS: Final = 30
AT_ONCE: Final = 2
SLOW_SECONDS: Final = 3.0
"""How long the app rests after each sixteenth of a file, so that the whole takes longer than some tokens live."""
MOST_SECONDS: Final = 1200
MOST_GROWTH_MB: Final = 32
FEWEST_TOKENS: Final = 3
_TRIES: Final = 20


@dataclass
class Fetcher:
    """The app: it fetches what its manifest lists, whatever happens on the way."""

    base: str
    outcome: Outcome
    app: App
    rest: float
    handle: str = ""

    async def renew(self) -> None:
        """Get a handle, as soon as the broker gives one."""
        for _ in range(_TRIES * 10):
            try:
                answer = await self.app.token(grant_type="client_credentials", scope=SCOPE, resource=self.base)
                self.handle = answer.json()["access_token"]
            except (httpx2.TransportError, KeyError):
                await asyncio.sleep(0.5)
            else:
                self.app.answers.clear()
                return
        raise AssertionError("the broker gives no handle")

    async def ask(self, path: str, **headers: str) -> httpx2.Response:
        """Send a request until it is answered."""
        for _ in range(_TRIES * 10):
            authorization = {"Authorization": f"Bearer {self.handle}"}
            try:
                answer = await self.app.http.get(f"{self.base}/{path}", headers={**authorization, **headers})
            except httpx2.TransportError:
                await asyncio.sleep(0.5)
                continue
            if answer.status_code == 401:
                await self.renew()
            elif answer.status_code < 500:
                return answer
            else:
                await asyncio.sleep(1)
        raise AssertionError(f"no answer to {path}")

    async def file(self, url: str) -> str:
        """Fetch a file, anew where it broke off; return the hash of what came."""
        for _ in range(_TRIES):
            try:
                return await self._stream(url)
            except httpx2.TransportError:
                self.outcome.count("files_that_broke_off")
                await asyncio.sleep(1)
            except PermissionError:
                await self.renew()
        raise AssertionError(f"{url} does not come")

    async def _stream(self, url: str) -> str:
        digest, size, share = hashlib.sha256(), 0, (LINES << 10) // 16
        headers = {"Authorization": f"Bearer {self.handle}", "Accept-Encoding": "identity"}
        async with self.app.http.stream("GET", url, headers=headers) as answer:
            if answer.status_code == 401:
                raise PermissionError
            assert answer.status_code == 200, answer.status_code
            async for chunk in answer.aiter_raw():
                digest.update(chunk)
                if (size + len(chunk)) // share > size // share:
                    await asyncio.sleep(self.rest)
                size += len(chunk)
        self.outcome.count("megabytes", size / (1 << 20))
        return digest.hexdigest()


async def prove(
    folder: Path,
    *,
    files: int = FILES,
    lines: int = LINES,
    lifetime: int = LIFETIME_SECONDS,
    rest: float = SLOW_SECONDS,
) -> Outcome:
    """Export all of it, and kill the broker when half of the files are there."""
    outcome = Outcome({"files": files, "file_megabytes": lines / 1024, "token_seconds": lifetime, "restarts": 0})
    async with fleet(folder) as stage, _exporter(stage, outcome, rest) as app:
        stage.sandbox.switch(bulk_files=files, bulk_lines=lines)
        began, watch = time.monotonic(), _Watch(stage.replicas[-1])
        manifest = await _manifest(app)
        large = [entry for entry in manifest["output"] if entry["count"] == lines]
        outcome.must(len(large) == files, f"{len(large)} large files are listed")
        async with asyncio.timeout(MOST_SECONDS):
            fetched, _ = await asyncio.gather(
                _fetched(app, large, watch), _killed_half_way(stage, outcome, watch, files)
            )
        expected = [_hash(MadeUp(files, lines), entry) for entry in large]
        outcome.must(fetched == expected, "a file is not what the EHR made")
        seconds = time.monotonic() - began
        tokens = int(stage.sandbox.counts()["token.client_credentials"])
        outcome.results |= {"seconds": seconds, "rss_growth_mb": max(watch.grown), "tokens_used": tokens}
        outcome.must(max(watch.grown) <= MOST_GROWTH_MB, f"memory grew by {max(watch.grown):.0f} MB")
        outcome.must(tokens >= FEWEST_TOKENS, "tokens were not renewed while it went on")
    return outcome


@asynccontextmanager
async def _exporter(stage: Fleet, outcome: Outcome, rest: float) -> AsyncIterator[Fetcher]:
    """Give the broker another app, which it reads when it starts, and return that app."""
    config = stage.folder / "broker.toml"
    config.write_text(config.read_text() + app_toml("nightly"))
    stage.sandbox.fault("token_lifetime", seconds=int(outcome.results["token_seconds"]))
    await _restarted(stage, outcome)
    base = f"{stage.replicas[-1].origin}/fhir/sandbox"
    http = httpx2.AsyncClient(trust_env=False, timeout=60)
    fetcher = Fetcher(base, outcome, App(base, "nightly", auth=("nightly", SECRET), http=http), rest)
    await fetcher.renew()
    yield fetcher
    await http.aclose()


async def _restarted(stage: Fleet, outcome: Outcome) -> Replica:
    """Kill the broker, and start another one in its place; return it once it serves."""
    last = stage.replicas[-1]
    last.kill()
    outcome.count("restarts")
    listener = socket.create_server(("127.0.0.1", int(last.origin.rpartition(":")[2])))
    return await (await stage.start(listener=listener)).ready()


async def _killed_half_way(stage: Fleet, outcome: Outcome, watch: "_Watch", files: int) -> None:
    """Kill the broker while the second half of the files is under way."""
    while outcome.results.get("fetched", 0) < files // 2:  # noqa: ASYNC110  # what is fetched says it in no other way
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    watch.look_at(await _restarted(stage, outcome))


async def _manifest(app: Fetcher) -> dict[str, Any]:
    kick_off = await app.ask("Patient/$export?_type=Observation,Patient", **ASYNC)
    assert kick_off.status_code == 202, kick_off.text
    status = kick_off.headers["content-location"].removeprefix(f"{app.base}/")
    answer = await app.ask(status)
    while answer.status_code == 202:
        await asyncio.sleep(float(answer.headers["retry-after"]))
        answer = await app.ask(status)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def _fetched(app: Fetcher, entries: list[dict[str, Any]], watch: "_Watch") -> list[str]:
    """Fetch files, some at once, and watch the broker's memory meanwhile."""
    places = asyncio.Semaphore(AT_ONCE)

    async def fetch(entry: dict[str, Any]) -> str:
        async with places:
            fetched = await app.file(entry["url"])
            app.outcome.count("fetched")
            return fetched

    watching = asyncio.create_task(watch.go_on())
    try:
        return list(await asyncio.gather(*map(fetch, entries)))
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


class _Watch:
    """Watches how much more memory a broker takes than it did when it was ready to serve."""

    def __init__(self, replica: Replica) -> None:
        self.grown = [0.0]
        self.look_at(replica)

    def look_at(self, replica: Replica) -> None:
        """Watch another one from now on."""
        self._replica, self._before = replica, _megabytes(replica.process_id)

    async def go_on(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            if not self._replica.ended:
                self.grown.append(_megabytes(self._replica.process_id) - self._before)
            await asyncio.sleep(0.25)


def _megabytes(process_id: int) -> float:
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def _hash(made_up: MadeUp, entry: dict[str, Any]) -> str:
    """Return the hash of a file as the EHR makes it; its number there is its place in the manifest."""
    digest = hashlib.sha256()
    for chunk in made_up.content(int(entry["url"].rpartition("-")[2])):
        digest.update(chunk)
    return digest.hexdigest()
