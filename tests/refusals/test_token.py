"""`/oauth/token`: who may have a handle, for what, how often (RFC 6749 §3.2, §4, §5.2, §6; RFC 7523; HB-02, OA-01)."""

import httpx2
import pytest

from broker.credentials import CODE, REFRESH_HANDLE, mint, new_tag
from broker.refresh.renewal import REFUSED_SECONDS
from tests.refusals.refusal import assert_oauth_error, assert_outcome, audited, logged, nothing_sent
from tests.stage import App, BrokerStage
from tests.stage.app import REDIRECT_URI
from tests.stage.broker import APP_SECRET_TEXT

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORM = "application/x-www-form-urlencoded"
INVALID_TOKEN = 'Bearer realm="token broker", error="invalid_token"'


def ones(count: int) -> bytes:
    return b"\1" * count


UNKNOWN_CODE = mint(CODE, new_tag(ones), ones).reveal()
UNKNOWN_REFRESH = mint(REFRESH_HANDLE, new_tag(ones), ones).reveal()


async def post(stage: BrokerStage, app: App, content: str, **headers: str) -> httpx2.Response:
    """Post a body as it is."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await app.http.post(f"{stage.public_url}/oauth/token", content=content, headers=named)


async def code_of(app: App) -> str:
    """Run a standalone launch up to the app's code."""
    return (await app.authorize()).parameters["code"]


async def exchange(app: App, code: str, changes: dict[str, str] | None = None) -> httpx2.Response:
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT_URI}
    return await app.token(**{**form, "code_verifier": app.verifier, **(changes or {})})


async def refresh(app: App, handle: str, **more: str) -> httpx2.Response:
    return await app.token(grant_type="refresh_token", refresh_token=handle, **more)


class TestTheRequestItself:
    @pytest.mark.parametrize(
        "content_type",
        ["application/json", "text/plain", "multipart/form-data; boundary=x", "", "application/x-www-form-urlencoded2"],
    )
    async def test_it_is_a_form(self, stage: BrokerStage, app: App, content_type: str) -> None:
        with nothing_sent(stage.sandbox), logged("not a form", hides=["growth-chart"]):
            answer = await post(stage, app, "grant_type=password&client_id=growth-chart", content_type=content_type)

        assert_oauth_error(answer, 400, "invalid_request")

    @pytest.mark.parametrize("name", ["grant_type", "client_id", "code", "anything"])
    async def test_no_parameter_comes_twice(self, stage: BrokerStage, app: App, name: str) -> None:
        """OA-01."""
        body = f"grant_type=password&client_id=growth-chart&code=canary-code&{name}=1&{name}=1"
        with nothing_sent(stage.sandbox), logged("a parameter is repeated", hides=["canary-code"]):
            answer = await post(stage, app, body, content_type=FORM)

        assert_oauth_error(answer, 400, "invalid_request", hides=["canary-code"])

    @pytest.mark.parametrize("body", ["a=%ff", "&".join(f"p{n}=1" for n in range(101))])
    async def test_it_can_be_read(self, stage: BrokerStage, app: App, body: str) -> None:
        with nothing_sent(stage.sandbox), logged("the parameters cannot be read"):
            answer = await post(stage, app, body, content_type=FORM)

        assert_oauth_error(answer, 400, "invalid_request")

    async def test_it_is_not_endless(self, stage: BrokerStage, app: App) -> None:
        with nothing_sent(stage.sandbox), logged("the form is too long", hides=["zzzz"]):
            answer = await post(stage, app, "code=" + "z" * 70_000, content_type=FORM)

        assert_oauth_error(answer, 413, "invalid_request", hides=["zzzz"])

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
    async def test_it_is_posted(self, stage: BrokerStage, app: App, method: str) -> None:
        answer = await app.http.request(method, f"{stage.public_url}/oauth/token?code=canary-code")

        assert_oauth_error(answer, 405, "invalid_request", hides=["canary-code"])
        assert answer.headers["allow"] == "POST"

    async def test_an_endpoint_that_does_not_exist_is_404(self, stage: BrokerStage, app: App) -> None:
        assert_oauth_error(await app.http.get(f"{stage.public_url}/oauth/tokens"), 404, "invalid_request")

    @pytest.mark.parametrize(
        ("grant_type", "error", "cause"),
        [
            (None, "invalid_request", "grant_type is missing"),
            ("", "invalid_request", "grant_type is missing"),
            ("password", "unsupported_grant_type", "a grant_type that is not offered"),
            ("implicit", "unsupported_grant_type", "a grant_type that is not offered"),
            ("Authorization_Code", "unsupported_grant_type", "a grant_type that is not offered"),
            ("urn:ietf:params:oauth:grant-type:jwt-bearer", "unsupported_grant_type", "a grant_type that is not"),
        ],
    )
    async def test_it_names_a_grant_type_that_is_offered(
        self, stage: BrokerStage, app: App, grant_type: str | None, error: str, cause: str
    ) -> None:
        """OA-03, OA-24."""
        form = {} if grant_type is None else {"grant_type": grant_type}
        with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", cause):
            answer = await app.token(**form, username="u", password="canary-password")

        assert_oauth_error(answer, 400, error, hides=["canary-password"])


class TestCodes:
    @pytest.mark.parametrize(
        ("changes", "error", "cause"),
        [
            ({"code": ""}, "invalid_request", "code is missing"),
            ({"code": "x"}, "invalid_grant", "malformed code"),
            ({"code": UNKNOWN_CODE}, "invalid_grant", "unknown or expired code"),
            ({"code": UNKNOWN_CODE[:-1] + "0"}, "invalid_grant", "malformed code"),
            ({"code": UNKNOWN_CODE.replace("sbc_", "sbh_")}, "invalid_grant", "malformed code"),
            ({"code": UNKNOWN_CODE + " "}, "invalid_grant", "malformed code"),
            ({"code_verifier": ""}, "invalid_request", "code_verifier is missing or malformed"),
            ({"code_verifier": "v" * 42}, "invalid_request", "code_verifier is missing or malformed"),
            ({"code_verifier": "v" * 129}, "invalid_request", "code_verifier is missing or malformed"),
            ({"code_verifier": "v" * 42 + "+"}, "invalid_request", "code_verifier is missing or malformed"),
        ],
    )
    async def test_a_request_that_can_name_no_code_spends_none(
        self, stage: BrokerStage, app: App, changes: dict[str, str], error: str, cause: str
    ) -> None:
        """OA-16."""
        code = await code_of(app)
        secrets = [code, app.verifier, *changes.values()]
        with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", cause, hides=secrets):
            answer = await exchange(app, code, changes)

        assert_oauth_error(answer, 400, error, hides=[value for value in secrets if len(value) > 1])
        assert (await exchange(app, code)).status_code == 200

    @pytest.mark.parametrize(
        ("changes", "cause"),
        [
            ({"redirect_uri": REDIRECT_URI + "/"}, "redirect_uri is not the one of the authorization request"),
            ({"redirect_uri": ""}, "redirect_uri is not the one of the authorization request"),
            ({"code_verifier": "v" * 43}, "code_verifier does not match the code_challenge"),
            ({"code_verifier": "{challenge}"}, "code_verifier does not match the code_challenge"),
        ],
    )
    async def test_a_code_that_is_shown_with_something_wrong_is_spent(
        self, stage: BrokerStage, app: App, changes: dict[str, str], cause: str
    ) -> None:
        """OA-16, OA-24."""
        code = await code_of(app)
        challenge = next(r for r in reversed(app.browser.seen) if "code_challenge" in str(r.url)).url.params
        changes = {name: value.format(challenge=challenge["code_challenge"]) for name, value in changes.items()}
        with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", cause, hides=[code, app.verifier]):
            answer = await exchange(app, code, changes)
        assert_oauth_error(answer, 400, "invalid_grant", hides=[code, app.verifier])

        assert_oauth_error(await exchange(app, code), 400, "invalid_grant", hides=[code])

    async def test_a_code_of_another_client_is_spent(self, stage: BrokerStage, app: App, second: App) -> None:
        """CB-03."""
        code = await code_of(app)
        second.verifier = app.verifier
        with (
            nothing_sent(stage.sandbox),
            audited(stage, "handle.mint", "denied", "the code was issued to another app", hides=[code]),
        ):
            answer = await exchange(second, code)

        assert_oauth_error(answer, 400, "invalid_grant", hides=[code])
        assert_oauth_error(await exchange(app, code), 400, "invalid_grant", hides=[code])

    async def test_a_replayed_code_ends_the_handles_it_gave(self, stage: BrokerStage, app: App) -> None:
        """CB-03."""
        code = await code_of(app)
        given = (await exchange(app, code)).json()
        patient = f"Patient/{given['patient']}"
        assert (await app.fhir(given["access_token"], patient)).status_code == 200

        with (
            nothing_sent(stage.sandbox),
            audited(stage, "handle.mint", "denied", "a used code was presented again", hides=[code]),
        ):
            answer = await exchange(app, code)
            assert_oauth_error(answer, 400, "invalid_grant", hides=[code])
            refused = await app.fhir(given["access_token"], patient)
            assert_outcome(refused, 401, "invalid_token", challenge=INVALID_TOKEN, hides=[given["access_token"]])
            assert_oauth_error(await refresh(app, given["refresh_token"]), 400, "invalid_grant")

    async def test_a_replayed_code_leaves_other_authorizations_of_the_app_alone(self, app: App) -> None:
        other = await app.standalone()
        code = await code_of(app)
        await exchange(app, code)
        await exchange(app, code)

        assert (await app.fhir(other["access_token"], f"Patient/{other['patient']}")).status_code == 200

    async def test_a_code_lives_a_minute(self, stage: BrokerStage, app: App) -> None:
        """CB-03."""
        before = {key async for key in stage.redis.scan_iter(match="sb:{*}:code:*")}
        code = await code_of(app)
        (key,) = {key async for key in stage.redis.scan_iter(match="sb:{*}:code:*")} - before
        assert 55_000 < await stage.redis.pttl(key) <= 60_000
        await stage.redis.delete(key)

        with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", "unknown or expired code"):
            answer = await exchange(app, code)
        assert_oauth_error(answer, 400, "invalid_grant", hides=[code])

    async def test_a_code_of_a_revoked_grant_gives_nothing(self, stage: BrokerStage, app: App) -> None:
        before = {key async for key in stage.redis.scan_iter(match="sb:{*}:grant")}
        code = await code_of(app)
        (key,) = {key async for key in stage.redis.scan_iter(match="sb:{*}:grant")} - before
        await stage.broker.revoke_grant(key.decode().partition("{")[2].partition("}")[0], cause="test")

        with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "failed", "is revoked", hides=[code]):
            answer = await exchange(app, code)
        assert_oauth_error(answer, 400, "invalid_grant", hides=[code])


class TestRefreshHandles:
    async def test_a_replay_ends_the_family(self, stage: BrokerStage, app: App) -> None:
        """OA-24, RF-15."""
        first = await app.standalone()
        second = (await refresh(app, first["refresh_token"])).json()
        patient = f"Patient/{first['patient']}"
        for given in (first, second):
            assert (await app.fhir(given["access_token"], patient)).status_code == 200

        with (
            nothing_sent(stage.sandbox),
            audited(stage, "handle.mint", "denied", "was reused", hides=[first["refresh_token"]]),
        ):
            answer = await refresh(app, first["refresh_token"])
            assert_oauth_error(answer, 400, "invalid_grant", hides=[first["refresh_token"]])
            for given in (first, second):
                refused = await app.fhir(given["access_token"], patient)
                assert_outcome(refused, 401, "invalid_token", challenge=INVALID_TOKEN, hides=[given["access_token"]])
            assert_oauth_error(await refresh(app, second["refresh_token"]), 400, "invalid_grant")

    async def test_another_client_cannot_use_it_and_does_not_spend_it(
        self, stage: BrokerStage, app: App, second: App
    ) -> None:
        given = await app.standalone()
        with (
            nothing_sent(stage.sandbox),
            audited(stage, "handle.mint", "denied", "the refresh handle was issued to another app"),
        ):
            answer = await refresh(second, given["refresh_token"])

        assert_oauth_error(answer, 400, "invalid_grant", hides=[given["refresh_token"]])
        assert (await refresh(app, given["refresh_token"])).status_code == 200

    @pytest.mark.parametrize(
        "scope",
        [
            "patient/*.cruds",
            "patient/Observation.rsd",
            "user/Patient.rs",
            "patient/*.rs online_access",
            "patient/*.sr",
            "  ",
        ],
    )
    async def test_a_wider_or_malformed_scope_is_refused_and_spends_nothing(
        self, stage: BrokerStage, app: App, scope: str
    ) -> None:
        """RF-02, RF-11."""
        given = await app.standalone()
        with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", "the re"):
            answer = await refresh(app, given["refresh_token"], scope=scope)

        assert_oauth_error(answer, 400, "invalid_scope", hides=[given["refresh_token"]])
        assert (await refresh(app, given["refresh_token"])).status_code == 200

    async def test_a_narrower_handle_leaves_the_refresh_handle_as_wide_as_it_was(self, app: App) -> None:
        """RF-02, RFC 6749 §6: a new refresh token has the scope of the one it replaces."""
        given = await app.standalone()
        narrow = (await refresh(app, given["refresh_token"], scope="patient/Patient.r")).json()
        assert narrow["scope"] == "patient/Patient.r"
        assert (await app.fhir(narrow["access_token"], "Observation?_count=1")).status_code == 403

        again = (await refresh(app, narrow["refresh_token"])).json()
        assert again["scope"] == given["scope"]

    @pytest.mark.parametrize(
        ("handle", "error", "cause"),
        [
            ("", "invalid_request", "refresh_token is missing"),
            ("x", "invalid_grant", "malformed refresh handle"),
            (UNKNOWN_REFRESH, "invalid_grant", "unknown or expired refresh handle"),
            (UNKNOWN_REFRESH[:-1] + "0", "invalid_grant", "malformed refresh handle"),
            (UNKNOWN_REFRESH.replace("sbr_", "sbh_"), "invalid_grant", "malformed refresh handle"),
        ],
    )
    async def test_what_is_not_a_refresh_handle_is_refused(
        self, stage: BrokerStage, app: App, handle: str, error: str, cause: str
    ) -> None:
        hides = [handle] if len(handle) > 1 else []
        with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", cause, hides=hides):
            answer = await refresh(app, handle)

        assert_oauth_error(answer, 400, error, hides=hides)

    async def test_a_handle_is_not_a_refresh_handle(self, stage: BrokerStage, app: App) -> None:
        given = await app.standalone()
        with nothing_sent(stage.sandbox):
            assert_oauth_error(await refresh(app, given["access_token"]), 400, "invalid_grant")
            refused = await app.fhir(given["refresh_token"], f"Patient/{given['patient']}")
        assert_outcome(refused, 401, "invalid_token", challenge=INVALID_TOKEN, hides=[given["refresh_token"]])


class TestClientCredentials:
    @pytest.mark.parametrize(
        ("changes", "error", "cause"),
        [
            ({"resource": ""}, "invalid_request", "resource is missing"),
            ({"resource": "{ehr}"}, "invalid_target", "the audience is not a FHIR base of this broker"),
            ({"resource": "{base}#x"}, "invalid_target", "the audience is not a FHIR base of this broker"),
            ({"resource": "{base}/Patient"}, "invalid_target", "the audience is not a FHIR base of this broker"),
            ({"resource": "{other}"}, "unauthorized_client", "app 'reports' has no backend access to EHR 'other'"),
            ({"scope": ""}, "invalid_scope", "backend services take resource scopes only"),
            ({"scope": "system/*.rs"}, "invalid_scope", "the scope is more than the app's policy allows"),
            ({"scope": "system/Patient.cruds"}, "invalid_scope", "the scope is more than the app's policy allows"),
            ({"scope": "system/Patient.rs system/Condition.rs"}, "invalid_scope", "more than the app's policy allows"),
            ({"scope": "user/Patient.rs"}, "invalid_scope", "the scope is more than the app's policy allows"),
            ({"scope": "patient/Patient.rs"}, "invalid_scope", "the scope is more than the app's policy allows"),
            ({"scope": "launch system/Patient.rs"}, "invalid_scope", "backend services take resource scopes only"),
            ({"scope": "openid system/Patient.rs"}, "invalid_scope", "backend services take resource scopes only"),
            ({"scope": "offline_access system/Patient.rs"}, "invalid_scope", "backend services take resource scopes"),
            ({"scope": "system/Patient.sr"}, "invalid_scope", "the requested scope is malformed"),
        ],
    )
    async def test_a_backend_app_gets_what_its_policy_names_and_only_that(
        self, stage: BrokerStage, reports: App, changes: dict[str, str], error: str, cause: str
    ) -> None:
        """BS-04, BS-08, OA-20."""
        places = {"base": stage.base, "ehr": stage.sandbox.fhir_base, "other": f"{stage.public_url}/fhir/other"}
        changes = {name: value.format(**places) for name, value in changes.items()}
        form = {"grant_type": "client_credentials", "resource": stage.base, "scope": "system/Patient.rs", **changes}
        with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", cause, hides=[APP_SECRET_TEXT]):
            answer = await reports.token(**form)

        assert_oauth_error(answer, 400, error, hides=[APP_SECRET_TEXT])

    async def test_a_public_app_is_no_backend(self, stage: BrokerStage, app: App) -> None:
        """BS-01."""
        with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", "app growth-chart is public"):
            answer = await app.token(grant_type="client_credentials", resource=stage.base, scope="system/Patient.rs")

        assert_oauth_error(answer, 400, "unauthorized_client")

    @pytest.mark.parametrize(
        ("fault", "status", "error"),
        [
            ("token_503", 503, "temporarily_unavailable"),
            ("token_html", 502, "server_error"),
            ("token_invalid_client", 502, "server_error"),
            ("token_drop", 504, "temporarily_unavailable"),
        ],
    )
    async def test_an_ehr_that_fails_is_not_the_apps_fault(
        self, stage: BrokerStage, reports: App, fault: str, status: int, error: str
    ) -> None:
        stage.clock.advance(REFUSED_SECONDS)  # past what the one before has left
        stage.sandbox.fault(fault, client_id="broker-backend")
        with audited(stage, "handle.mint", "failed", ""):
            answer = await reports.token(
                grant_type="client_credentials", resource=stage.base, scope="system/Observation.rs"
            )

        assert_oauth_error(answer, status, error, hides=["a fault was armed", "Maintenance", "canary-"])

    async def test_an_ehr_that_does_not_know_the_registration_is_not_asked_again_and_again(
        self, stage: BrokerStage, reports: App
    ) -> None:
        """EP-03, NC-10: the operator is told how long a registration can take to be known."""
        form = {"grant_type": "client_credentials", "resource": stage.base, "scope": "system/Observation.s"}
        stage.clock.advance(REFUSED_SECONDS)
        stage.sandbox.fault("token_invalid_client", client_id="broker-backend")
        before = stage.sandbox.counts()["token.client_credentials"]
        with audited(stage, "handle.mint", "failed", "may take an EHR up to 12 h to know (EP-03)"):
            assert_oauth_error(await reports.token(**form), 502, "server_error", hides=["12 h"])

        for _ in range(5):
            assert_oauth_error(await reports.token(**form), 503, "temporarily_unavailable")

        assert stage.sandbox.counts()["token.client_credentials"] == before + 1
        stage.clock.advance(REFUSED_SECONDS)
        assert (await reports.token(**form)).status_code == 200
