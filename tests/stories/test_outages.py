"""Nothing fails open, nothing hangs, nothing is lost: the store, the EHR or the audit trail is gone."""

import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest

from broker.audit import AuditRecord, AuditTrail
from broker.errors import AuditUnavailable
from broker.store import keys
from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer, wheel_server
from tests.stage import App, BrokerStage, Sandbox, open_stage, running_sandbox
from tests.stage.app import REDIRECT_URI
from tests.stories.held import ENDED, Held, code_of, hold, upstream

PATIENCE = 4.0
"""Seconds: one, and what this machine's scheduling may add."""
Ask = Callable[[App, Held, str], Awaitable[httpx2.Response]]


@asynccontextmanager
async def closing(app: App) -> AsyncIterator[App]:
    try:
        yield app
    finally:
        await app.close()


# The store


class Store:
    """A server that can be stopped and killed, and is then there again under the same address."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self.server = EmbeddedServer.start(state, server=wheel_server())

    @contextmanager
    def stopped(self) -> Iterator[None]:
        os.kill(self.server.process_id, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.server.process_id, signal.SIGCONT)

    @contextmanager
    def killed(self) -> Iterator[None]:
        os.kill(self.server.process_id, signal.SIGKILL)
        self.server.stop()
        try:
            yield
        finally:
            self.server = EmbeddedServer.start(self._state, server=wheel_server())


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(tmp_path_factory.mktemp("s"))
    yield store
    store.server.stop()


@pytest.fixture
async def stage(sandbox: Sandbox, store: Store, tmp_path: Path) -> AsyncIterator[BrokerStage]:
    async with (
        connect(store.server.url()) as redis,
        open_stage(sandbox, redis, tmp_path, authentication="client_secret_basic") as stage,
    ):
        yield stage


@pytest.fixture
async def held(stage: BrokerStage, app: App) -> Held:
    return await hold(stage, app)


async def authorize(app: App, _held: Held, _code: str) -> httpx2.Response:
    parameters = {
        "response_type": "code",
        "client_id": "growth-chart",
        "redirect_uri": REDIRECT_URI,
        "scope": "launch/patient patient/*.rs",
        "state": "app-state",
        "aud": app.base,
        "code_challenge": "c" * 43,
        "code_challenge_method": "S256",
    }
    return await app.http.get(f"{origin(app)}/oauth/authorize?{urlencode(parameters)}")


async def launch(app: App, held: Held, _code: str) -> httpx2.Response:
    query = urlencode({"iss": held.stage.sandbox.fhir_base, "launch": "launch-value"})
    return await app.http.get(f"{origin(app)}/launch/sandbox-launch?{query}")


async def callback(app: App, _held: Held, _code: str) -> httpx2.Response:
    query = urlencode({"state": "s" * 43, "code": "some-code"})
    return await app.http.get(f"{origin(app)}/callback/sandbox-launch?{query}")


async def fhir(app: App, held: Held, _code: str) -> httpx2.Response:
    return await app.fhir(held.handle, held.path)


async def exchange(app: App, _held: Held, code: str) -> httpx2.Response:
    return await app.token(
        grant_type="authorization_code", code=code, redirect_uri=REDIRECT_URI, code_verifier=app.verifier
    )


async def rotate(app: App, held: Held, _code: str) -> httpx2.Response:
    return await app.token(grant_type="refresh_token", refresh_token=held.refresh_handle)


async def client_credentials(_app: App, held: Held, _code: str) -> httpx2.Response:
    reports = held.stage.app("reports")
    try:
        return await reports.token(grant_type="client_credentials", scope="system/Patient.rs", resource=held.stage.base)
    finally:
        await reports.close()


def posted(path: str) -> Ask:
    async def ask(app: App, held: Held, _code: str) -> httpx2.Response:
        return await app.http.post(f"{origin(app)}{path}", data={"client_id": app.client_id, "token": held.handle})

    return ask


def got(path: str) -> Ask:
    async def ask(app: App, _held: Held, _code: str) -> httpx2.Response:
        return await app.http.get(f"{origin(app)}{path}")

    return ask


def origin(app: App) -> str:
    return app.base.rpartition("/fhir/")[0]


OAUTH, OUTCOME, PAGE, JSON = "application/json", "application/fhir+json", "text/html", "application/json"
ENDPOINTS: dict[str, tuple[Ask, int, str, str]] = {
    "fhir": (fhir, 503, OUTCOME, '"code": "store_unavailable"'),
    "token: refresh_token": (rotate, 503, OAUTH, '"error": "temporarily_unavailable"'),
    "token: client_credentials": (client_credentials, 503, OAUTH, '"error": "temporarily_unavailable"'),
    "introspect": (posted("/oauth/introspect"), 503, OAUTH, '"error": "temporarily_unavailable"'),
    "revoke": (posted("/oauth/revoke"), 503, OAUTH, '"error": "temporarily_unavailable"'),
    "authorize": (authorize, 503, OAUTH, '"error": "temporarily_unavailable"'),
    "launch": (launch, 503, PAGE, "<code>store_unavailable</code>"),
    "callback": (callback, 503, PAGE, "<code>store_unavailable</code>"),
    "jwks": (got("/jwks/sandbox-backend"), 503, "application/problem+json", '"code": "store_unavailable"'),
    "readyz": (got("/readyz"), 503, JSON, '"store_unavailable"'),
    "livez": (got("/livez"), 200, JSON, '"ok"'),
    "smart-configuration": (got("/fhir/sandbox/.well-known/smart-configuration"), 200, JSON, "token_endpoint"),
    "metadata": (got("/fhir/sandbox/metadata"), 200, OUTCOME, "CapabilityStatement"),
}


@pytest.mark.parametrize("outage", ["stopped", "killed"])
async def test_without_its_store_every_endpoint_refuses_soon_and_nothing_is_lost(
    held: Held, store: Store, outage: str
) -> None:
    app = held.app
    landing = await app.authorize()
    code, before = landing.parameters["code"], upstream(held.stage.sandbox)
    with getattr(store, outage)():
        for name, (ask, status, media_type, text) in ENDPOINTS.items():
            began = time.monotonic()
            answer = await ask(app, held, code)
            assert time.monotonic() - began < PATIENCE, name
            assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (status, media_type), name
            assert text in answer.text, (name, answer.text)
        asked = upstream(held.stage.sandbox) - before
        assert asked <= 1, "the CapabilityStatement, and nothing else"
        if outage == "killed":  # a code shown to a store that hangs may be used when it goes on
            assert (await exchange(app, held, code)).status_code == 503

    assert (await held.read()).status_code == 200
    assert (await exchange(app, held, code)).status_code == 200
    assert (await rotate(app, held, code)).status_code == 200
    assert (await client_credentials(app, held, code)).status_code == 200
    assert (await got("/readyz")(app, held, code)).status_code == 200
    assert (await held.grant()).state == "active"


async def test_a_store_that_is_gone_does_not_let_a_due_token_be_refreshed(held: Held, store: Store) -> None:
    held.stage.clock.advance(ENDED)
    with store.killed():
        assert (await held.read()).status_code == 503

    assert held.refreshes() == 0
    assert (await held.read()).status_code == 200


# The EHR


async def test_an_ehr_that_is_down_is_named_and_its_return_is_noticed(store: Store, tmp_path: Path) -> None:
    with ExitStack() as ehr:
        sandbox = ehr.enter_context(running_sandbox())
        async with (
            connect(store.server.url()) as redis,
            open_stage(sandbox, redis, tmp_path, authentication="client_secret_basic") as stage,
            closing(stage.app()) as app,
        ):
            held = await hold(stage, app)
            ehr.close()

            for late in (0, ENDED):  # the FHIR server, then the token endpoint
                stage.clock.advance(late)
                answer = await held.read()
                assert (answer.status_code, code_of(answer)) == (503, "ehr_unreachable")
                assert answer.headers["retry-after"] == "1"
            asked = await client_credentials(app, held, "")
            assert (asked.status_code, asked.json()["error"]) == (503, "temporarily_unavailable")
            assert (await got("/fhir/sandbox/metadata")(app, held, "")).status_code == 503
            assert (await got("/readyz")(app, held, "")).status_code == 200
            assert (await held.grant()).state == "active"

            stage.clock.advance(5)  # a failure is remembered that long
            with running_sandbox("--port", sandbox.origin.rpartition(":")[2]):
                assert (await got("/fhir/sandbox/metadata")(app, held, "")).status_code == 200


@pytest.mark.parametrize(
    ("fault", "parameters", "status", "code"),
    [
        ("fhir_delay", {"seconds": 1.5}, 504, "ehr_answer_lost"),
        ("fhir_drop", {}, 504, "ehr_answer_lost"),
        ("fhir_html", {}, 502, "ehr_misbehaved"),
        ("fhir_redirect", {}, 502, "ehr_misbehaved"),
    ],
)
async def test_an_ehr_that_does_not_answer_as_it_should_costs_one_answer_and_no_more(
    held: Held, fault: str, parameters: dict[str, Any], status: int, code: str
) -> None:
    directory = held.stage.broker.directory
    directory._ehrs["sandbox"] = directory.ehr("sandbox").model_copy(update={"fhir_timeout": 0.5})
    held.stage.sandbox.fault(fault, **parameters)

    answer = await held.read()

    assert (answer.status_code, code_of(answer)) == (status, code)
    assert held.refreshes() == 0
    assert (await held.read()).status_code == 200


# The audit trail


@contextmanager
def full_disk(audit: AuditTrail) -> Iterator[None]:
    """Put a disk without space under the audit file."""
    descriptor = audit._descriptor
    assert descriptor is not None
    saved, full = os.dup(descriptor), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, descriptor)
    try:
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)
        os.close(full)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is played by /dev/full")
async def test_without_its_audit_trail_the_broker_does_nothing_and_asks_nobody(held: Held) -> None:
    """HB-09."""
    app, sandbox = held.app, held.stage.sandbox
    before = upstream(sandbox)
    silent = {"jwks", "readyz", "livez", "smart-configuration", "metadata"}
    with full_disk(held.stage.broker.audit):
        for name, (ask, status, media_type, text) in ENDPOINTS.items():
            if name not in silent:
                answer = await ask(app, held, "")
                assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (status, media_type)
                assert text.replace("store_unavailable", "audit_unavailable") in answer.text, name
    assert upstream(sandbox) == before

    assert (await held.read()).status_code == 200
    assert (await rotate(app, held, "")).status_code == 200


async def test_a_refresh_that_cannot_be_audited_is_not_sent_and_costs_nothing(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HB-09."""
    record = AuditTrail.record

    def refuse_refreshes(self: AuditTrail, entry: AuditRecord) -> None:
        if entry.event == "grant.refresh":
            raise AuditUnavailable("the disk is full")
        record(self, entry)

    monkeypatch.setattr(AuditTrail, "record", refuse_refreshes)
    held.stage.clock.advance(ENDED)
    answer = await held.read()
    assert (answer.status_code, code_of(answer)) == (503, "audit_unavailable")
    assert held.refreshes() == 0
    assert await held.stage.redis.exists(keys.lease(held.tag)) == 0
    monkeypatch.undo()

    assert (await held.read()).status_code == 200
