"""Token exchange at `/oauth/token` (RFC 8693, HB-05): what is none, whose handle it is not, what would be more."""

import hashlib
import json
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from broker.credentials import HANDLE, mint, new_tag
from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer
from tests.refusals.refusal import assert_oauth_error, audited, nothing_sent
from tests.stage import App, BrokerStage, MovableClock, Sandbox, open_stage
from tests.stage.broker import APP_SECRET_TEXT, days_ahead

pytestmark = pytest.mark.asyncio(loop_scope="module")

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
TOKEN_TYPES = "urn:ietf:params:oauth:token-type:"
ACCESS_TOKEN = f"{TOKEN_TYPES}access_token"
NO_SUBJECT = "subject_token is not valid: unknown, expired, revoked, or not for this client to exchange."
MORE = """
[[ehr]]
id = "other"
fhir_base = "{other_base}"

[[registration]]
id = "other-launch"
ehr = "other"
flow = "launch"
client_id = "broker-launch"
scopes = "patient/*.rs"

[[app]]
id = "acting"
authentication = "client_secret_basic"
redirect_uris = ["http://127.0.0.1:1/callback"]
exchange_from = ["growth-chart", "reports"]
[[app.secret]]
hash = "sha256:{secret_hash}"
expires = {expires}
[[app.access]]
registration = "sandbox-launch"
scopes = "patient/Encounter.rs"
"""


def twos(count: int) -> bytes:
    return b"\2" * count


UNKNOWN = mint(HANDLE, new_tag(twos), twos).reveal()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    sandbox_process: Sandbox, valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[BrokerStage]:
    sandbox_process.reset()
    redis = connect(valkey.url())
    await redis.flushall()
    more = MORE.format(
        other_base=sandbox_process.fhir_base.replace("127.0.0.1", "localhost"),
        secret_hash=hashlib.sha256(APP_SECRET_TEXT.encode()).hexdigest(),
        expires=days_ahead(30),
    )
    async with open_stage(sandbox_process, redis, tmp_path_factory.mktemp("stage"), more=more) as stage:
        yield stage
    await redis.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def acting(stage: BrokerStage) -> AsyncIterator[App]:
    """An app that may exchange others' handles, and has little to use them for."""
    app = App(stage.base, "acting", auth=("acting", APP_SECRET_TEXT))
    yield app
    await app.close()


@pytest_asyncio.fixture(loop_scope="module")
async def handle(app: App) -> str:
    return str((await app.standalone())["access_token"])


async def ask(app: App, handle: str, **changes: str | None) -> httpx2.Response:
    form = {"grant_type": GRANT_TYPE, "subject_token": handle, "subject_token_type": ACCESS_TOKEN, **changes}
    return await app.token(**{name: value for name, value in form.items() if value is not None})


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"subject_token": None}, "subject_token is missing"),
        ({"subject_token": ""}, "subject_token is missing"),
        ({"subject_token_type": None}, "subject_token_type is not access_token"),
        ({"subject_token_type": f"{TOKEN_TYPES}refresh_token"}, "subject_token_type is not access_token"),
        ({"subject_token_type": f"{TOKEN_TYPES}jwt"}, "subject_token_type is not access_token"),
        ({"subject_token_type": "access_token"}, "subject_token_type is not access_token"),
        ({"requested_token_type": f"{TOKEN_TYPES}refresh_token"}, "requested_token_type is not access_token"),
        ({"requested_token_type": f"{TOKEN_TYPES}id_token"}, "requested_token_type is not access_token"),
        ({"actor_token": UNKNOWN, "actor_token_type": ACCESS_TOKEN}, "an actor_token"),
        ({"actor_token": UNKNOWN}, "an actor_token"),
        ({"actor_token_type": ACCESS_TOKEN}, "an actor_token"),
        *(({"patient": text}, "patient is not a FHIR id") for text in ("Patient/p", "a,b", "..", "x" * 65, "ä")),
        *(
            ({name: text}, f"{name} is not a positive number")
            for name in ("expires_in", "uses")
            for text in ("0", "00", "-1", "+1", "1.5", "1e3", " 5", "٣", "1000001", "9" * 30)
        ),
    ],
)
async def test_a_malformed_exchange_is_an_invalid_request(
    stage: BrokerStage, app: App, handle: str, changes: dict[str, str | None], cause: str
) -> None:
    """OA-18, HB-05."""
    with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", cause, hides=[handle, UNKNOWN]):
        answer = await ask(app, handle, **changes)

    assert_oauth_error(answer, 400, "invalid_request", hides=[handle, UNKNOWN])


class TestASubjectThatIsNotTheirs:
    """All of them are answered alike: who asks learns nothing of handles that are not its own (HB-06)."""

    async def refused(self, stage: BrokerStage, app: App, subject: str, cause: str) -> None:
        with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", cause, hides=[subject]):
            answer = await ask(app, subject)
        assert_oauth_error(answer, 400, "invalid_request", hides=[subject])
        assert answer.json()["error_description"] == NO_SUBJECT

    @pytest.mark.parametrize("text", [UNKNOWN, UNKNOWN[:-1] + "x", "sbh_", "eyJhbGciOiJub25lIn0.e30.", "x" * 3000])
    async def test_it_is_unknown_or_no_handle_at_all(self, stage: BrokerStage, app: App, text: str) -> None:
        """OA-18, HB-05."""
        await self.refused(stage, app, text, "unknown, expired or revoked")

    async def test_a_refresh_handle_is_none(self, stage: BrokerStage, app: App) -> None:
        """OA-18, HB-05."""
        refresh_handle = (await app.standalone())["refresh_token"]

        await self.refused(stage, app, refresh_handle, "unknown, expired or revoked")

    async def test_it_has_expired(
        self, stage: BrokerStage, app: App, handle: str, borrowed_clock: MovableClock
    ) -> None:
        """OA-18, HB-02."""
        borrowed_clock.advance(301)

        await self.refused(stage, app, handle, "unknown, expired or revoked")

    async def test_it_is_about_to_expire(
        self, stage: BrokerStage, app: App, handle: str, borrowed_clock: MovableClock
    ) -> None:
        """HB-02."""
        held, _ = await stage.broker.handles.redeem(handle, "sandbox")
        borrowed_clock.advance(held.expires_at - borrowed_clock() - 0.5)

        await self.refused(stage, app, handle, "about to expire")

    async def test_it_was_revoked(self, stage: BrokerStage, app: App, handle: str) -> None:
        """OA-18, HB-08."""
        held, _ = await stage.broker.handles.redeem(handle, "sandbox")
        await stage.broker.handles.revoke(held)

        await self.refused(stage, app, handle, "unknown, expired or revoked")

    @pytest.mark.parametrize("client_id", ["growth-chart", "reports"])
    async def test_it_is_another_apps(self, stage: BrokerStage, app: App, reports: App, client_id: str) -> None:
        """OA-18, HB-05: nobody's handles are exchanged by an app whose settings do not name them."""
        form = {"grant_type": "client_credentials", "scope": "system/Patient.rs", "resource": reports.base}
        if client_id == "growth-chart":
            asking, subject = app, (await reports.token(**form)).json()["access_token"]
        else:
            asking, subject = reports, (await app.standalone())["access_token"]

        await self.refused(stage, asking, subject, f"app {client_id} may not exchange handles of app")
        held, _ = await stage.broker.handles.redeem(subject, "sandbox")
        record = json.loads(stage.audit_lines()[-1])
        named = {name: record[name] for name in ("app", "handle", "grant", "ehr")}
        assert named == {"app": client_id, "handle": held.id, "grant": held.tag, "ehr": "sandbox"}

    async def test_its_grant_has_ended(self, stage: BrokerStage, app: App, handle: str) -> None:
        """OA-18, HB-08."""
        await stage.broker.grants.end(handle[4:16], "needs_reauth", "test")

        with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "failed", "needs_reauth", hides=[handle]):
            answer = await ask(app, handle)
        assert_oauth_error(answer, 400, "invalid_grant", hides=[handle])


@pytest.mark.parametrize("name", ["resource", "audience"])
@pytest.mark.parametrize("target", ["{public}/fhir/other", "{public}/fhir/none", "{public}", "{ehr}", "reports"])
async def test_a_handle_stays_at_its_ehr(stage: BrokerStage, app: App, handle: str, name: str, target: str) -> None:
    """OA-18, OA-20."""
    said = target.format(public=stage.public_url, ehr=stage.sandbox.fhir_base)
    with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", "", hides=[handle, stage.sandbox.origin]):
        answer = await ask(app, handle, **{name: said})

    assert_oauth_error(answer, 400, "invalid_target", hides=[handle, stage.sandbox.origin])


@pytest.mark.parametrize(
    ("scope", "cause"),
    [
        ("patient/*.cruds", "more than the original scope (RF-02)"),
        ("patient/*.rs patient/Observation.c", "more than the original scope (RF-02)"),
        ("user/Patient.rs", "more than the original scope (RF-02)"),
        ("system/*.rs", "more than the original scope (RF-02)"),
        ("patient/Patient.rs online_access", "more than the original scope (RF-02)"),
        ("patient/Patient.rs canary", "more than the original scope (RF-02)"),
        ("patient/Patient.sr", "malformed"),
        ("openid", "nothing of the scope is left for app growth-chart"),
    ],
)
async def test_an_exchange_does_not_widen_the_scope(
    stage: BrokerStage, app: App, handle: str, scope: str, cause: str
) -> None:
    """OA-18, HB-05."""
    with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", cause, hides=[handle, "canary"]):
        answer = await ask(app, handle, scope=scope)

    assert_oauth_error(answer, 400, "invalid_scope", hides=[handle, "canary"])


async def test_an_exchange_for_a_scope_that_says_too_much_is_told_how_much_it_may(
    stage: BrokerStage, app: App, handle: str
) -> None:
    """OA-18, SC-05: with such a handle one request could keep all others waiting."""
    scope = f"patient/Observation.rs?category={','.join(['canary'] * 65)}"
    with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", "says too much", hides=["canary"]):
        answer = await ask(app, handle, scope=scope)

    assert_oauth_error(answer, 400, "invalid_scope", hides=[handle, "canary"])
    assert answer.json()["error_description"] == "The scope has more than 64 alternatives in one value."


async def test_an_exchange_does_not_widen_what_was_exchanged_before(stage: BrokerStage, app: App, handle: str) -> None:
    """OA-18, HB-05."""
    narrow = (await ask(app, handle, scope="patient/Patient.r")).json()["access_token"]

    with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", "more than the original scope"):
        answer = await ask(app, narrow, scope="patient/Patient.rs")

    assert_oauth_error(answer, 400, "invalid_scope", hides=[handle, narrow])


async def test_an_exchange_changes_no_patient(stage: BrokerStage, app: App, handle: str) -> None:
    """HB-02, CX-01."""
    with (
        nothing_sent(stage.sandbox),
        audited(stage, "handle.mint", "denied", "another patient than that of handle", hides=["canary-patient"]),
    ):
        answer = await ask(app, handle, patient="canary-patient")

    assert_oauth_error(answer, 400, "invalid_scope", hides=[handle, "canary-patient"])


async def test_an_app_whose_policy_has_nothing_of_the_scope_gets_nothing(
    stage: BrokerStage, acting: App, handle: str
) -> None:
    """HB-05."""
    cause = "nothing of the scope is left for app acting"
    with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", cause, hides=[handle]):
        answer = await ask(acting, handle, scope="patient/Patient.r")

    assert_oauth_error(answer, 400, "invalid_scope", hides=[handle])


async def test_an_app_whose_policy_does_not_name_the_registration_is_unauthorized(
    stage: BrokerStage, acting: App, reports: App
) -> None:
    """HB-05."""
    form = {"grant_type": "client_credentials", "scope": "system/Patient.rs", "resource": reports.base}
    subject = (await reports.token(**form)).json()["access_token"]

    cause = "app 'acting' has no backend access to EHR 'sandbox'"
    with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", cause, hides=[subject]):
        answer = await ask(acting, subject)

    assert_oauth_error(answer, 400, "unauthorized_client", hides=[subject])


@pytest.mark.parametrize("secret", ["", "wrong", APP_SECRET_TEXT[:-1]])
async def test_who_does_not_prove_to_be_the_actor_is_no_actor(stage: BrokerStage, handle: str, secret: str) -> None:
    """OA-18: the actor is the client that authenticates."""
    stranger = App(stage.base, "acting", auth=("acting", secret))
    with nothing_sent(stage.sandbox), audited(stage, "app.authenticate", "denied", "", hides=[handle]):
        answer = await ask(stranger, handle)
    await stranger.close()

    assert_oauth_error(answer, 401, "invalid_client", hides=[handle])


# A refresh that does not name its app (SMART App Launch, step 7)


async def nameless(stage: BrokerStage, app: App, refresh_handle: str, **more: str) -> httpx2.Response:
    form = {"grant_type": "refresh_token", "refresh_token": refresh_handle, **more}
    return await app.http.post(f"{stage.public_url}/oauth/token", data=form)


async def test_an_app_that_has_to_prove_itself_is_not_taken_from_its_refresh_handle(
    stage: BrokerStage, app: App
) -> None:
    """RF-01, OA-24."""
    issued = await stage.broker.handles.issue(
        tag=(await app.standalone())["access_token"][4:16],
        app="reports",
        ehr="sandbox",
        scopes=(await stage.broker.handles.redeem((await app.standalone())["access_token"], "sandbox"))[0].scopes,
        family="f" * 24,
        lifetime=60,
        refresh_lifetime=60,
        announce=lambda _: None,
    )
    assert issued.refresh_handle is not None
    held = issued.refresh_handle.reveal()

    with nothing_sent(stage.sandbox), audited(stage, "app.authenticate", "denied", "unknown client_id", hides=[held]):
        answer = await nameless(stage, app, held)

    assert_oauth_error(answer, 401, "invalid_client", hides=[held])


@pytest.mark.parametrize("text", ["", "sbr_", "x" * 100, UNKNOWN])
async def test_a_refresh_handle_that_nobody_knows_names_nobody(stage: BrokerStage, app: App, text: str) -> None:
    """RF-01, OA-24."""
    with nothing_sent(stage.sandbox), audited(stage, "app.authenticate", "denied", "unknown client_id"):
        answer = await nameless(stage, app, text)

    assert_oauth_error(answer, 401, "invalid_client")


@pytest.mark.parametrize("claim", [{"client_id": "acting"}, {"client_secret": "x"}])
async def test_who_says_who_it_is_is_taken_at_its_word(stage: BrokerStage, app: App, claim: dict[str, str]) -> None:
    """RF-01, OA-24."""
    refresh_handle = (await app.standalone())["refresh_token"]

    with nothing_sent(stage.sandbox):
        answer = await nameless(stage, app, refresh_handle, **claim)

    assert_oauth_error(answer, 401, "invalid_client", hides=[refresh_handle])
