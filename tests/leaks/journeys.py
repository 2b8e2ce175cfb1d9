"""The program that `test_leaks.py` runs: every journey, well and badly, with every sink caught.

It is a process of its own because a TracerProvider is set once a process. It writes `evidence.json`: what the journeys
left behind, and what is there after one leak was planted in each sink by the way that real leaks would take.
"""

import asyncio
import base64
import json
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx2
import structlog
from joserfc.jwk import RSAKey
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from broker import log
from broker.audit import AuditRecord
from broker.errors import NotFound
from broker.launches import AppRequest
from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer, wheel_server
from tests.leaks.echoing_ehr import EchoingEhr, running_echo
from tests.leaks.evidence import Evidence, listening, stage_sinks, watched
from tests.leaks.newer import newer_journeys, open_newer, watched_keys
from tests.leaks.told import settings, told_journeys
from tests.stage import App, BrokerStage, Sandbox, open_stage, running_sandbox
from tests.stage.app import LAUNCH_URI, REDIRECT_URI
from tests.stage.broker import APP_SECRET_TEXT, KEY

SEARCHED = "Zyxwvut-Searched-Name"
"""A search value that stands for PHI."""
PLANT = "canary-planted-in"
SCOPE = "launch/patient offline_access patient/*.rs"
MORE = """
[[ehr]]
id = "echo"
fhir_base = "{fhir_base}"

[[registration]]
id = "echo-launch"
ehr = "echo"
flow = "launch"
client_id = "broker-echo"
authentication = "client_secret_basic"
client_secret = "env:STAGE_SECRET"
scopes = "launch launch/patient offline_access patient/*.cruds"
app = "echoed"

[[app]]
id = "echoed"
authentication = "none"
redirect_uris = ["{redirect_uri}"]
launch_uri = "{launch_uri}"
[[app.access]]
registration = "echo-launch"
scopes = "launch launch/patient offline_access patient/*.cruds"
"""


class Run:
    """One stage with its apps, and what is to be done on it."""

    def __init__(self, stage: BrokerStage, evidence: Evidence, apps: AsyncExitStack, echo: EchoingEhr) -> None:
        self.stage = stage
        self.evidence = evidence
        self.echo = echo
        self._apps = apps

    async def app(self, client_id: str = "growth-chart", ehr: str = "sandbox") -> App:
        """Make an app whose answers are noted."""
        app = self.stage.app(client_id)
        app.base = f"{self.stage.public_url}/fhir/{ehr}"
        return await self._apps.enter_async_context(listening(app, self.evidence, self.stage.public_url))

    async def standalone(self, app: App, scope: str = SCOPE) -> dict[str, Any]:
        """Run a standalone launch with a state that nobody else has."""
        state = secrets.token_urlsafe(20)
        self.evidence.add("state of the app", state)
        landing = await app.authorize(scope=scope, state=state)
        self.evidence.add("verifier of the app", app.verifier)
        arrived = landing.url.startswith(REDIRECT_URI) and "code" in landing.parameters
        return await app.exchange(landing) if arrived else {}


async def good_journeys(run: Run) -> None:
    """EHR launch, standalone, backend, paging, refresh, introspection, revocation, a write."""
    app, reports = await run.app(), await run.app("reports")
    backend = await reports.token(grant_type="client_credentials", scope="system/Patient.rs", resource=reports.base)
    handle = backend.json()["access_token"]
    bundle = (await reports.fhir(handle, "Patient?_count=2")).json()
    patients = [entry["resource"] for entry in bundle["entry"]]
    for patient in patients:
        names = [patient["name"][0]["family"], patient["birthDate"], *(i["value"] for i in patient["identifier"])]
        run.evidence.phi += [patient["id"], *(name for name in names if len(name) > 4)]
    link = next(link["url"] for link in bundle["link"] if link["relation"] == "next")
    await reports.fhir(handle, link.removeprefix(reports.base).lstrip("/"))
    await reports.fhir(handle, f"Patient?name={SEARCHED}")

    given = await app.launched(run.stage.sandbox.launch("broker-launch", patients[0]["id"]))
    await app.fhir(given["access_token"], f"Observation?patient={given['patient']}&code={SEARCHED}")
    narrow = await run.standalone(app, f"offline_access patient/Observation.cruds?code={SEARCHED}")
    await app.token(grant_type="refresh_token", refresh_token=narrow["refresh_token"])
    again = (await app.token(grant_type="refresh_token", refresh_token=given["refresh_token"])).json()
    for endpoint in ("introspect", "revoke"):
        url = f"{run.stage.public_url}/oauth/{endpoint}"
        await app.http.post(url, data={"client_id": app.client_id, "token": again["access_token"]})
    await app.token(grant_type="refresh_token", refresh_token=given["refresh_token"])  # a replay
    await show_reprs(run)


async def show_reprs(run: Run) -> None:
    """Note how everything that holds or could hold a secret prints."""
    broker, app = run.stage.broker, await run.app()
    given = await run.standalone(app)
    handle, grant = await broker.handles.redeem(given["access_token"], "sandbox")
    refresh = await broker.handles.find_refresh(given["refresh_token"])
    tokens = await broker.grants.open_tokens(grant)
    things = (broker, broker.settings, handle, refresh, grant, grant.terms, tokens, tokens.access_token)
    run.evidence.reprs += [text for thing in things for text in (repr(thing), str(thing), f"{thing}")]
    run.evidence.add("raw token", tokens.access_token.reveal())
    assert await broker.revoke_grant(grant.tag, cause="test") == "revoked"


REFUSED_PATHS = (
    f"Patient?name={SEARCHED};x",
    "Patient/%2e",
    f"Observation?patient={SEARCHED}",
    f"$export?_a={SEARCHED}",
)
FHIR_FAULTS = ("fhir_401", "fhir_403", "fhir_429", "fhir_500", "fhir_html", "fhir_redirect", "fhir_drop",
               "fhir_drop_mid_body")  # fmt: skip
LAUNCH_FAULTS = ("token_500", "token_html", "token_invalid_grant", "token_invalid_client", "token_drop",
                 "id_token_bad_nonce", "id_token_bad_signature", "id_token_expired", "authorize_error",
                 "authorize_wrong_state", "jwks_down")  # fmt: skip


async def bad_journeys(run: Run) -> None:
    """Refusals, faults of the EHR, and an exception that nobody foresaw."""
    app, sandbox = await run.app(), run.stage.sandbox
    given = await run.standalone(app)
    handle, patient = given["access_token"], f"Patient/{given['patient']}"
    for path in (*REFUSED_PATHS, f"{patient}?access_token={handle}", f"Patient/{handle}", f"Patient?name={handle}"):
        await app.fhir(handle, path)
    await app.fhir(handle, patient, headers={"X-Request-Id": handle, "X-HTTP-Method-Override": handle})
    for presented in (handle[:-1], handle + "x", f"{handle} {handle}"):
        await app.fhir(presented, patient)
    for url in (f"/oauth/{handle}", f"/jwks/{handle}", f"/nowhere/{handle}?token={handle}", f"/fhir/{handle}/metadata"):
        await app.http.get(run.stage.public_url + url, headers={"Cookie": f"a={handle}"})
    for name in FHIR_FAULTS:
        sandbox.fault(name)
        with suppress(httpx2.RemoteProtocolError):
            await app.fhir(handle, f"Observation?patient={given['patient']}&code={SEARCHED}")
        sandbox.clear_faults()
    for name in LAUNCH_FAULTS:
        sandbox.fault(name)
        await run.standalone(app)
        sandbox.clear_faults()
    code = secrets.token_urlsafe(20)
    run.evidence.add("code that nobody issued", code)
    callback = f"{run.stage.public_url}/callback/sandbox-launch?code={code}&state={code}&error_description={code}"
    await app.browser.open(callback)
    await app.token(grant_type="authorization_code", code=code, code_verifier=code * 2, redirect_uri=REDIRECT_URI)
    await app.token(grant_type="password", password=APP_SECRET_TEXT, client_secret=APP_SECRET_TEXT)
    with patch("broker.flows.forward.decide", side_effect=RuntimeError(f"{handle} {SEARCHED}")):
        await app.fhir(handle, patient)


async def echoed_journeys(run: Run) -> None:
    """The same at an EHR that repeats what it is sent."""
    app = await run.app("echoed", "echo")
    given = await run.standalone(app)
    run.evidence.phi.append("echoed-patient-7")
    for path in (
        "Patient/echoed-patient-7",
        "Observation?_count=200",
        "Observation?_count=500",
        "Observation?_count=403",
    ):
        await app.fhir(given["access_token"], path)
    await app.fhir(given["access_token"], "Observation?_count=302")
    await app.fhir(given["access_token"], "Observation?_count=401")
    run.echo.refuses = True
    await app.fhir(given["access_token"], "Observation?_count=401")
    await run.standalone(app)
    async for tag in run.stage.broker.grants.tags():
        if (await run.stage.broker.grants.read(tag)).terms.ehr == "echo":
            await run.stage.broker.revoke_grant(tag, cause="test")
    run.evidence.add("told to the echoing EHR", *run.echo.told)


def add_own_keys(run: Run) -> None:
    """Note what the broker itself must keep."""
    evidence, broker = run.evidence, run.stage.broker
    evidence.add_key("key-encryption key", KEY)
    evidence.add("secret of the app", APP_SECRET_TEXT, base64.b64encode(f"reports:{APP_SECRET_TEXT}".encode()).decode())
    for registration in broker.settings.registration:
        for secret in registration.client_secret:
            pair = f"{registration.client_id}:{secret.reveal()}"
            evidence.add("secret of the broker", pair.partition(":")[2], base64.b64encode(pair.encode()).decode())
    evidence.add("anything the simulated EHR gave", "canary-")
    evidence.add("JWT", "eyJhbGciOi", "eyJ0eXAiOi")
    evidence.phi.append(SEARCHED)


async def read_sinks(
    run: Run, spans: InMemorySpanExporter, log_file: Path, earlier: Mapping[str, str]
) -> dict[str, str]:
    """Return what stands in each sink now; `earlier` is what the stage before left in its own."""
    now = await stage_sinks(run.stage)
    sys.stderr.flush()
    return {
        "log": log_file.read_text(),  # noqa: ASYNC240  # nothing else waits
        "traces": "\n".join(span.to_json() for span in spans.get_finished_spans()),
        **{name: f"{earlier[name]}\n{text}" for name, text in now.items()},
    }


async def play_newer(sandbox: Sandbox, redis: Any, folder: Path, evidence: Evidence) -> dict[str, str]:
    """Play what came later at a stage of its own; returns what is left in its sinks, and empties the store."""
    key = RSAKey.generate_key(2048, {"kid": "platform"})
    with watched_keys(evidence):
        async with open_newer(sandbox, redis, folder, key) as stage:
            await newer_journeys(stage, evidence, key)
            sinks = await stage_sinks(stage)
    await redis.flushall()
    return sinks


async def plant(run: Run, evidence: Evidence) -> None:
    """Leak once into every sink, secret and patient alike."""

    def leak(sink: str) -> str:
        return f"{PLANT}-{sink} {evidence.phi[0]}"

    structlog.get_logger().warning("planted", detail=leak("log"))
    run.stage.broker.audit.record(AuditRecord(event="handle.use", outcome="denied", reason=leak("audit")))
    await run.stage.redis.set("sb:planted", leak("redis"))
    with trace.get_tracer("planted").start_as_current_span("planted", attributes={"url.query": leak("traces")}):
        evidence.reprs.append(repr(AppRequest(leak("reprs"), "", "", "")))
    NotFound(leak("errors"))

    @run.stage.broker.application.get("/planted")
    async def planted() -> str:
        return leak("answers")

    await (await run.app()).http.get(f"{run.stage.public_url}/planted")


async def play(folder: Path, sandbox: Sandbox, demanding: Sandbox, log_file: Path) -> dict[str, Any]:
    """Play everything, and return the evidence before and after planting."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    log.configure("DEBUG")
    evidence = Evidence()
    with EmbeddedServer.start(folder / "store", server=wheel_server()) as server, watched(evidence):
        async with AsyncExitStack() as opened:
            redis = connect(server.url())
            opened.push_async_callback(redis.aclose)
            earlier = await play_newer(demanding, redis, folder / "newer", evidence)
            echo = await opened.enter_async_context(running_echo())
            more = MORE.format(fhir_base=echo.fhir_base, redirect_uri=REDIRECT_URI, launch_uri=LAUNCH_URI)
            more += settings(folder, evidence)
            stage = await opened.enter_async_context(
                open_stage(
                    sandbox,
                    redis,
                    folder,
                    authentication="client_secret_basic",
                    ehr="fhir_longest_pause = 0",  # else one fault would keep the next from being met
                    more=more,
                )
            )
            run = Run(stage, evidence, await opened.enter_async_context(AsyncExitStack()), echo)
            journeys: list[Callable[[Run], Awaitable[None]]] = [good_journeys, bad_journeys, echoed_journeys]
            for journey in journeys:
                await journey(run)
            await told_journeys(stage, evidence)
            add_own_keys(run)
            evidence.sinks = await read_sinks(run, spans, log_file, earlier)
            clean = evidence.document()
            await plant(run, evidence)
            evidence.sinks = await read_sinks(run, spans, log_file, earlier)
            return {"clean": clean, "planted": evidence.document()}


def main() -> None:
    """Write `evidence.json` into the folder that is given; standard error is `log.txt` there."""
    folder = Path(sys.argv[1])
    (folder / "newer").mkdir()
    with running_sandbox() as sandbox, running_sandbox("--pushed-requests", "required") as demanding:
        evidence = asyncio.run(play(folder, sandbox, demanding, folder / "log.txt"))
    (folder / "evidence.json").write_text(json.dumps(evidence))


if __name__ == "__main__":
    main()
