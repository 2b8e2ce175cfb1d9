"""The journeys, over real HTTP, each in one line: what happened, what the app held, what the EHR had issued."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
import uvicorn
from fhirclient.client import FHIRClient

from broker.cli.demo.app import GrowthChart
from broker.cli.demo.search import search_answers, search_files
from broker.cli.demo.stage import Stage

_MOST_REDIRECTS: Final = 12
_SHORT_LIFETIME_SECONDS: Final = 1
_CHART: Final = re.compile(r'href="(/patients/[^"/]+)"')


@dataclass
class Story:
    """The running demo with a browser at hand."""

    stage: Stage
    chart: GrowthChart
    browser: httpx.AsyncClient
    sandbox: httpx.AsyncClient
    answers: list[bytes]
    step: int = 0

    async def open(self, url: str) -> str:
        """Follow a URL through the EHR, the broker and the app to a page; returns the page."""
        for _ in range(_MOST_REDIRECTS):
            response = await self.browser.get(url)
            if "location" not in response.headers:
                if response.is_success:
                    return response.text
                raise RuntimeError(f"the browser ended at status {response.status_code}: {response.text[:200]}")
            url = str(response.url.join(response.headers["location"]))
        raise RuntimeError(f"more than {_MOST_REDIRECTS} redirects")

    def client(self) -> FHIRClient:
        """Return the app's fhirclient of the newest session."""
        return list(self.chart.sessions.values())[-1]

    async def arm(self, fault: str, **parameters: int) -> None:
        """Let the simulated EHR behave in some way."""
        (await self.sandbox.post("/__faults", json={"name": fault, **parameters})).raise_for_status()

    async def issued(self, kind: str) -> str:
        """Return the SHA-256 prefix of the newest token of that kind that the EHR issued."""
        entries = (await self.sandbox.get("/__journal", params={"kind": "issued"})).json()
        newest: dict[str, Any] = [entry for entry in entries if entry["token"] == kind][-1]
        return f"sha256:{newest['sha256'][:12]}…"

    async def tell(self, what: str, held: str | None, kind: str = "access_token") -> None:
        """Print one step."""
        self.step += 1
        holds = f"app holds {held[:12]}…" if held else "app holds nothing"
        print(f"  {self.step}. {what:<58} {holds:<24} EHR issued {await self.issued(kind)}", flush=True)


async def play(stage: Stage, *, began: float, stay: bool) -> int:
    """Play everything, search for leaks, and stay up if asked; returns the number of leaks."""
    chart = GrowthChart(stage.fhir_base, stage.app_url)
    async with _serving(chart, stage), _clients(stage) as (browser, sandbox):
        story = Story(stage, chart, browser, sandbox, chart.received)
        print("\nThe journeys:")
        await _ehr_launch(story)
        await _standalone_launch(story)
        await _backend_read(story)
        await _refresh_at_expiry(story)
        await _revoke(story)
        leaks = _search(story)
        print(f"\nPlayed in {time.monotonic() - began:.1f} s.")
        if stay and not leaks:
            await _stay(stage)
    return leaks


async def _ehr_launch(story: Story) -> None:
    await story.arm("authorize_auto_approve", times=-1)
    home = await story.open(f"{story.stage.sandbox_url}/")
    chart = str(_CHART.findall(home)[0])
    pressed = await story.sandbox.post(f"{chart}/launch", data={"client_id": "broker-launch"})
    page = await story.open(pressed.headers["location"])
    patient = await asyncio.to_thread(lambda: story.client().patient)
    name = story.client().human_name(patient.name[0])
    if name not in page:
        raise RuntimeError("the launched page does not show the patient")
    await story.tell(f"EHR launch: fhirclient shows {name}", story.client().server.auth.access_token)


async def _standalone_launch(story: Story) -> None:
    await story.open(story.stage.app_url)
    await story.tell(
        "Standalone launch: fhirclient read its patient and vitals", story.client().server.auth.access_token
    )


async def _backend_read(story: Story) -> None:
    token = await _reports(
        story,
        "/oauth/token",
        grant_type="client_credentials",
        scope="system/Patient.rs",
        resource=story.stage.fhir_base,
    )
    handle = token.json()["access_token"]
    bundle = await story.browser.get(
        f"{story.stage.fhir_base}/Patient?_count=3", headers={"Authorization": f"Bearer {handle}"}
    )
    story.answers += [token.content, bundle.content]
    await story.tell(f"Backend services: read {bundle.json()['total']} patients without a user", handle)


async def _refresh_at_expiry(story: Story) -> None:
    await story.arm("token_lifetime", seconds=_SHORT_LIFETIME_SECONDS)
    await story.open(story.stage.app_url)
    (await story.sandbox.delete("/__faults")).raise_for_status()
    await asyncio.sleep(_SHORT_LIFETIME_SECONDS + 0.1)
    before = (await story.sandbox.get("/__counts")).json()["token.refresh_token"]
    smart = story.client()
    await asyncio.to_thread(smart.server.request_json, f"Patient/{smart.patient_id}")
    after = (await story.sandbox.get("/__counts")).json()["token.refresh_token"]
    if after - before != 1:
        raise RuntimeError(f"{after - before} refreshes instead of one")
    await story.tell("Refresh: the EHR's token had expired, the app saw nothing", smart.server.auth.access_token)


async def _revoke(story: Story) -> None:
    smart = story.client()
    handle = smart.server.auth.access_token
    form = {"token": handle, "client_id": "growth-chart"}
    (await story.browser.post(f"{story.stage.broker_url}/oauth/revoke", data=form)).raise_for_status()
    refused = await story.browser.get(
        f"{story.stage.fhir_base}/Patient/{smart.patient_id}", headers={"Authorization": f"Bearer {handle}"}
    )
    story.answers.append(refused.content)
    if refused.status_code != httpx.codes.UNAUTHORIZED:
        raise RuntimeError(f"a revoked handle was answered {refused.status_code}")
    await story.tell("Revoke: the handle's next call was refused (401)", None)


def _search(story: Story) -> int:
    files, leaking = search_files(story.stage.state)
    answers, leaking_answers = search_answers(story.answers)
    print(f"\nSearched for EHR secrets: {files} files in {story.stage.state} (store, log, audit), {answers} answers.")
    print(f"Found: {len(leaking) + leaking_answers}")
    for name in leaking:
        print(f"  LEAK in {name}")
    return len(leaking) + leaking_answers


async def _stay(stage: Stage) -> None:
    print(
        f"\nLook around (log in as doctor / clinic or patient / mychart):"
        f"\n  the EHR: open a chart, press Launch app   {stage.sandbox_url}/"
        f"\n  the app on its own (standalone launch)    {stage.app_url}/"
        f"\n  what the broker tells an app              {stage.fhir_base}/.well-known/smart-configuration"
        f"\n  grants and handles                        ./run broker grants list --state {stage.state}"
        f"\n\nCtrl-C ends everything.",
        flush=True,
    )
    await asyncio.Event().wait()


async def _reports(story: Story, path: str, **form: str) -> httpx.Response:
    auth = ("reports", story.stage.report_secret.reveal())
    return (await story.browser.post(story.stage.broker_url + path, data=form, auth=auth)).raise_for_status()


class _Server(uvicorn.Server):
    """Leaves Ctrl-C to the command that it is a part of."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _serving(chart: GrowthChart, stage: Stage) -> AsyncIterator[None]:
    config = uvicorn.Config(
        chart.application(), log_config=None, log_level="critical", access_log=False, lifespan="off"
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[stage.app_listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def _clients(stage: Stage) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    async with (
        httpx.AsyncClient(trust_env=False, timeout=20) as browser,
        httpx.AsyncClient(base_url=stage.sandbox_url, trust_env=False, timeout=20) as sandbox,
    ):
        yield browser, sandbox
