"""Who asks: each way in which an app proves itself, and each way in which the proof fails (RFC 6749 §2.3, RFC 7523)."""

import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from joserfc.jwk import ECKey, OctKey

from broker.app import open_broker
from broker.credentials import mint
from broker.settings import load
from broker.vault import LocalKeyring
from tests.refusals.conftest import NEWER, OLDER, OLDER_ENDS
from tests.refusals.keys import Keys, KeyServer, proof
from tests.refusals.refusal import assert_oauth_error, audited, logged, nothing_sent
from tests.stage import App, BrokerStage, MovableClock
from tests.stage.broker import APP_SECRET_TEXT, KEY

pytestmark = pytest.mark.asyncio(loop_scope="module")


def ones(count: int) -> bytes:
    return b"\1" * count


@pytest_asyncio.fixture(loop_scope="module")
async def replica(stage: BrokerStage) -> AsyncIterator[httpx2.AsyncClient]:
    """Another broker of the same configuration, on the same store."""
    settings, audit_file = load(stage.state / "broker.toml", {}), stage.state / "replica.jsonl"
    async with (
        open_broker(
            settings, redis=stage.redis, kek=LocalKeyring([KEY]), audit_file=audit_file, keep_every=None
        ) as broker,
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=broker.application), base_url=stage.public_url) as client,
    ):
        yield client


def basic(client_id: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()


WRONG_SECRET = APP_SECRET_TEXT[:-1] + ("0" if APP_SECRET_TEXT[-1] != "0" else "1")
OTHER_SECRET = mint("sbs_", "", ones).reveal()


class TestWhoAsks:
    @pytest.mark.parametrize(
        ("form", "authorization", "cause"),
        [
            ({}, None, "unknown client_id"),
            ({"client_id": ""}, None, "unknown client_id"),
            ({"client_id": "nobody"}, None, "unknown client_id"),
            ({"client_id": "Growth-Chart"}, None, "unknown client_id"),
            ({"client_id": "reports"}, None, "no secret, or one that this broker never made"),
            ({"client_id": "reports", "client_secret": APP_SECRET_TEXT}, None, "no secret, or one that this broker"),
            ({"client_id": "growth-chart", "client_secret": "x"}, None, "authenticates by none, not by a secret"),
            ({}, basic("nobody", APP_SECRET_TEXT), "unknown client_id"),
            ({}, basic("reports", ""), "no secret, or one that this broker never made"),
            ({}, basic("reports", "guess"), "no secret, or one that this broker never made"),
            ({}, basic("reports", WRONG_SECRET), "no secret, or one that this broker never made"),
            ({}, basic("reports", OTHER_SECRET), "wrong secret"),
            ({}, basic("reports", APP_SECRET_TEXT.lower()), "no secret, or one that this broker never made"),
            ({}, basic("growth-chart", ""), "app growth-chart authenticates by none, not by a secret"),
            ({}, basic("growth-chart", APP_SECRET_TEXT), "app growth-chart authenticates by none, not by a secret"),
            ({}, basic("signed", APP_SECRET_TEXT), "app signed authenticates by private_key_jwt, not by a secret"),
            ({"client_id": "signed", "client_secret": "x"}, None, "authenticates by private_key_jwt, not by a secret"),
            ({"client_id": "signed"}, None, "client_assertion_type is missing, or not jwt-bearer (CA-08)"),
            ({"client_id": "growth-chart"}, basic("reports", APP_SECRET_TEXT), "client_id is not the one that"),
            ({}, "Basic", "the Authorization header is not HTTP Basic"),
            ({}, "Basic !!!", "the Authorization header is not HTTP Basic"),
            ({}, "Basic " + base64.b64encode(b"no colon").decode(), "the Authorization header is not HTTP Basic"),
            ({}, "Basic " + base64.b64encode(b"\xff:\xff").decode(), "the Authorization header is not HTTP Basic"),
            ({"client_id": "growth-chart"}, "Bearer growth-chart", "the Authorization header is not HTTP Basic"),
            ({"client_assertion": "x"}, None, "the assertion is not a JWT with a subject"),
            ({"client_assertion": "a.b.c"}, None, "the assertion is not a JWT with a subject"),
            ({"client_assertion": "é.é.é"}, None, "the assertion is not a JWT with a subject"),
        ],
    )
    async def test_who_proves_nothing_is_an_invalid_client(
        self, stage: BrokerStage, app: App, form: dict[str, str], authorization: str | None, cause: str
    ) -> None:
        """OA-03."""
        secrets = [APP_SECRET_TEXT, WRONG_SECRET, OTHER_SECRET, (authorization or "").partition(" ")[2]]
        headers = {"Authorization": authorization} if authorization else {}
        with nothing_sent(stage.sandbox), audited(stage, "app.authenticate", "denied", cause, hides=secrets):
            answer = await app.http.post(
                f"{stage.public_url}/oauth/token", data={"grant_type": "client_credentials", **form}, headers=headers
            )

        assert_oauth_error(answer, 401, "invalid_client", hides=[*secrets, cause])
        assert answer.headers["www-authenticate"] == 'Basic realm="token broker"'
        assert answer.json()["error_description"] == "Client authentication failed."

    @pytest.mark.parametrize("beside", [{"client_secret": APP_SECRET_TEXT}, {"client_assertion": "a.b.c"}])
    async def test_nobody_authenticates_in_two_ways_at_once(
        self, stage: BrokerStage, reports: App, beside: dict[str, str]
    ) -> None:
        """TK-06."""
        with (
            nothing_sent(stage.sandbox),
            audited(stage, "app.authenticate", "denied", "two ways of authenticating in one request"),
        ):
            answer = await reports.token(grant_type="client_credentials", **beside)

        assert_oauth_error(answer, 400, "invalid_request", hides=[APP_SECRET_TEXT])

    async def test_nobody_sends_two_authorization_headers(self, stage: BrokerStage, app: App) -> None:
        twice = [("Authorization", basic("reports", APP_SECRET_TEXT))] * 2
        with nothing_sent(stage.sandbox), logged("two Authorization headers", hides=[APP_SECRET_TEXT]):
            answer = await app.http.post(
                f"{stage.public_url}/oauth/token", data={"grant_type": "client_credentials"}, headers=twice
            )

        assert_oauth_error(answer, 401, "invalid_client", hides=[APP_SECRET_TEXT])


async def with_secret(stage: BrokerStage, app: App, client_id: str, secret: str) -> httpx2.Response:
    headers = {"Authorization": basic(client_id, secret)}
    return await app.http.post(f"{stage.public_url}/oauth/introspect", data={"token": "x"}, headers=headers)


class TestSecrets:
    async def test_two_live_at_once_and_each_ends_at_its_own_time(
        self, stage: BrokerStage, app: App, borrowed_clock: MovableClock
    ) -> None:
        async def works() -> tuple[bool, bool]:
            answers = [await with_secret(stage, app, "paired", secret) for secret in (OLDER, NEWER)]
            return answers[0].status_code == 200, answers[1].status_code == 200

        assert await works() == (True, True)
        borrowed_clock.advance(OLDER_ENDS - borrowed_clock() - 1)
        assert await works() == (True, True)
        borrowed_clock.advance(1)
        assert await works() == (False, True)

        with audited(stage, "app.authenticate", "denied", "secret older of app paired has expired", hides=[OLDER]):
            answer = await with_secret(stage, app, "paired", OLDER)
        assert_oauth_error(answer, 401, "invalid_client", hides=[OLDER, "expired"])

    async def test_a_secret_of_one_app_is_no_other_apps(self, stage: BrokerStage, app: App) -> None:
        with audited(stage, "app.authenticate", "denied", "wrong secret", hides=[APP_SECRET_TEXT]):
            answer = await with_secret(stage, app, "paired", APP_SECRET_TEXT)
        assert_oauth_error(answer, 401, "invalid_client", hides=[APP_SECRET_TEXT])


async def sign_in(
    stage: BrokerStage, app: App, client_id: str, assertion: str, changes: dict[str, str] | None = None
) -> httpx2.Response:
    form = {"grant_type": "client_credentials", "resource": stage.base, "scope": "system/Patient.rs"}
    proved = {**form, **proof(assertion), "client_id": client_id, **(changes or {})}
    return await app.http.post(f"{stage.public_url}/oauth/token", data=proved)


def by_hand(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """Return a JWT without a signature."""
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims))
    return ".".join([*parts, ""])


def now(seconds: float = 0) -> int:
    return int(time.time() + seconds)


Forge = Callable[[Keys, str], str]
BAD_ASSERTIONS: dict[str, tuple[Forge, str]] = {
    "iss of another app": (lambda k, aud: k.assertion("signed", aud, claims={"iss": "fetched"}), "iss and sub"),
    "no iss": (lambda k, aud: k.assertion("signed", aud, claims={"iss": None}), "iss and sub"),
    "sub of another app": (lambda k, aud: k.assertion("signed", aud, claims={"sub": "fetched"}), "client_id is not"),
    "no sub": (lambda k, aud: k.assertion("signed", aud, claims={"sub": None}), "client_id is not"),
    "aud of another endpoint": (lambda k, aud: k.assertion("signed", aud.replace("token", "revoke")), "aud is not"),
    "aud of a FHIR base": (lambda k, aud: k.assertion("signed", aud.replace("oauth/token", "fhir/sandbox")), "aud is"),
    "aud of the broker with a slash": (lambda k, aud: k.assertion("signed", aud.removesuffix("oauth/token")), "aud is"),
    "aud twice": (lambda k, aud: k.assertion("signed", aud, claims={"aud": [aud, aud]}), "aud is not"),
    "aud empty": (lambda k, aud: k.assertion("signed", aud, claims={"aud": []}), "aud is not"),
    "aud in a list in a list": (lambda k, aud: k.assertion("signed", aud, claims={"aud": [[aud]]}), "aud is not"),
    "aud with a slash": (lambda k, aud: k.assertion("signed", aud + "/"), "aud is not"),
    "aud among others": (lambda k, aud: k.assertion("signed", aud, claims={"aud": [aud, "x"]}), "aud is not"),
    "no aud": (lambda k, aud: k.assertion("signed", aud, claims={"aud": None}), "aud is not"),
    "exp past": (lambda k, aud: k.assertion("signed", aud, claims={"exp": now(-10)}), "has expired"),
    "exp far": (lambda k, aud: k.assertion("signed", aud, claims={"exp": now(400)}), "lives longer than 300 s"),
    "exp endless": (lambda k, aud: k.assertion("signed", aud, claims={"exp": float("inf")}), "no usable exp"),
    "exp not a number": (lambda k, aud: k.assertion("signed", aud, claims={"exp": float("nan")}), "no usable exp"),
    "exp immense": (lambda k, aud: k.assertion("signed", aud, claims={"exp": 10**400}), "no usable exp"),
    "iat immense": (lambda k, aud: k.assertion("signed", aud, claims={"iat": 10**400}), "iat is not a time"),
    "nbf immense": (lambda k, aud: k.assertion("signed", aud, claims={"nbf": -(10**400)}), "nbf is not a time"),
    "exp as text": (lambda k, aud: k.assertion("signed", aud, claims={"exp": str(now(60))}), "no usable exp"),
    "exp true": (lambda k, aud: k.assertion("signed", aud, claims={"exp": True}), "no usable exp"),
    "no exp": (lambda k, aud: k.assertion("signed", aud, claims={"exp": None}), "no usable exp"),
    "no jti": (lambda k, aud: k.assertion("signed", aud, claims={"jti": None}), "no usable jti"),
    "empty jti": (lambda k, aud: k.assertion("signed", aud, claims={"jti": ""}), "no usable jti"),
    "long jti": (lambda k, aud: k.assertion("signed", aud, claims={"jti": "j" * 257}), "no usable jti"),
    "jti a number": (lambda k, aud: k.assertion("signed", aud, claims={"jti": 7}), "no usable jti"),
    "iat in the future": (lambda k, aud: k.assertion("signed", aud, claims={"iat": now(60)}), "iat is not a time"),
    "nbf in the future": (lambda k, aud: k.assertion("signed", aud, claims={"nbf": now(60)}), "nbf is not a time"),
    "iat not a number": (lambda k, aud: k.assertion("signed", aud, claims={"iat": float("nan")}), "iat is not a time"),
    "no kid": (lambda k, aud: k.assertion("signed", aud, header={"kid": None}), "has no kid"),
    "unknown kid": (lambda k, aud: k.assertion("signed", aud, header={"kid": "new"}), "no key of the assertion's kid"),
    "kid of the other key": (lambda k, aud: k.assertion("signed", aud, header={"kid": "rsa"}), "a key of another type"),
    "wrong typ": (lambda k, aud: k.assertion("signed", aud, header={"typ": "at+jwt"}), "typ is not JWT"),
    "wrong key": (lambda k, aud: k.assertion("signed", aud, key=k.foreign), "does not verify"),
    "its own key inside": (
        lambda k, aud: k.assertion("signed", aud, key=k.foreign, header={"jwk": k.foreign.as_dict(private=False)}),
        "does not verify",
    ),
    "RS256": (
        lambda k, aud: k.assertion("signed", aud, key=k.rsa, header={"alg": "RS256", "kid": "rsa"}),
        "alg is not one of ES384, RS384",
    ),
    "HS256 with the public key": (
        lambda k, aud: k.assertion(
            "signed",
            aud,
            key=OctKey.import_key(str(k.ec.as_dict(private=False)["x"]).encode() * 2),
            header={"alg": "HS256"},
        ),
        "alg is not one of ES384, RS384",
    ),
    "none": (
        lambda _, aud: by_hand(
            {"alg": "none", "kid": "ec"},
            {"iss": "signed", "sub": "signed", "aud": aud, "exp": now(60), "jti": "none"},
        ),
        "alg is not one of ES384, RS384",
    ),
    "signature cut off": (lambda k, aud: k.assertion("signed", aud).rpartition(".")[0] + ".", "does not verify"),
    "changed": (lambda k, aud: k.assertion("signed", aud)[:-8] + "AAAAAAAA", "does not verify"),
    "five parts": (lambda k, aud: k.assertion("signed", aud) + ".x.y", "client_id is not"),
    "too long": (lambda k, aud: k.assertion("signed", aud, claims={"pad": "p" * 8192}), "longer than 8192"),
    "extensions": (
        lambda _, aud: by_hand({"alg": "ES384", "kid": "ec", "crit": ["exp"]}, {"sub": "signed", "aud": aud}),
        "extensions that must be understood",
    ),
    "keys elsewhere": (lambda k, aud: k.assertion("signed", aud, header={"jku": f"{aud}/jwks"}), "jku is not"),
    "a certificate of its own": (
        lambda k, aud: k.assertion("signed", aud, key=k.foreign, header={"x5u": "https://evil.example"}),
        "does not verify",
    ),
}


class TestAssertions:
    @pytest.mark.parametrize("client_id", ["signed", "fetched"])
    @pytest.mark.parametrize("algorithm", ["RS384", "ES384"])
    async def test_both_of_smarts_algorithms_are_good(
        self, stage: BrokerStage, app: App, keys: Keys, client_id: str, algorithm: str
    ) -> None:
        """RG-08."""
        key, kid = (keys.rsa, "rsa") if algorithm == "RS384" else (keys.ec, "ec")
        audience = f"{stage.public_url}/oauth/token"
        assertion = keys.assertion(client_id, audience, key=key, header={"alg": algorithm, "kid": kid})

        answer = await sign_in(stage, app, client_id, assertion)

        assert answer.status_code == 200, answer.text
        assert answer.json()["scope"] == "system/Patient.rs"

    @pytest.mark.parametrize("case", BAD_ASSERTIONS)
    async def test_a_bad_assertion_is_an_invalid_client(
        self, stage: BrokerStage, app: App, keys: Keys, case: str
    ) -> None:
        """BS-09, CA-02, CA-04, CA-05, CA-06, CA-07, CA-09, CA-11, OA-13, OA-26."""
        forge, cause = BAD_ASSERTIONS[case]
        assertion = forge(keys, f"{stage.public_url}/oauth/token")
        with nothing_sent(stage.sandbox), audited(stage, "app.authenticate", "denied", cause, hides=[assertion]):
            answer = await sign_in(stage, app, "signed", assertion)

        assert_oauth_error(answer, 401, "invalid_client", hides=[assertion])
        assert answer.json()["error_description"] == "Client authentication failed."

    async def test_an_assertion_works_once(self, stage: BrokerStage, app: App, keys: Keys) -> None:
        """CA-01, CA-09."""
        assertion = keys.assertion("signed", f"{stage.public_url}/oauth/token")
        assert (await sign_in(stage, app, "signed", assertion)).status_code == 200

        cause = "the assertion's jti was used before (CA-09)"
        with nothing_sent(stage.sandbox), audited(stage, "app.authenticate", "denied", cause, hides=[assertion]):
            answer = await sign_in(stage, app, "signed", assertion)
        assert_oauth_error(answer, 401, "invalid_client", hides=[assertion])

    async def test_a_jti_of_one_app_is_not_anothers(self, stage: BrokerStage, app: App, keys: Keys) -> None:
        audience = f"{stage.public_url}/oauth/token"
        for client_id in ("signed", "fetched"):
            assertion = keys.assertion(client_id, audience, claims={"jti": "the same"})
            assert (await sign_in(stage, app, client_id, assertion)).status_code == 200

    @pytest.mark.parametrize(
        ("changes", "cause"),
        [
            ({"client_id": "fetched"}, "client_id is not the one that authenticates (OA-12)"),
            ({"client_id": "reports"}, "no secret, or one that this broker never made"),
            ({"client_id": "second"}, "app second authenticates by none, not by an assertion"),
            ({"client_assertion_type": ""}, "client_assertion_type is missing"),
            ({"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"}, "not jwt-bearer"),
            ({"client_secret": "x"}, "authenticates by private_key_jwt, not by a secret"),
        ],
    )
    async def test_a_good_assertion_in_a_bad_request_proves_nothing(
        self, stage: BrokerStage, app: App, keys: Keys, changes: dict[str, str], cause: str
    ) -> None:
        """BS-09, CA-08, OA-12, TK-06."""
        assertion = keys.assertion("signed", f"{stage.public_url}/oauth/token")
        with nothing_sent(stage.sandbox), audited(stage, "app.authenticate", "denied", cause, hides=[assertion]):
            answer = await sign_in(stage, app, "signed", assertion, changes)

        assert_oauth_error(answer, 401, "invalid_client", hides=[assertion])

    @pytest.mark.parametrize("client_id", ["growth-chart", "reports"])
    async def test_an_app_without_a_key_cannot_assert(
        self, stage: BrokerStage, app: App, keys: Keys, client_id: str
    ) -> None:
        assertion = keys.assertion(client_id, f"{stage.public_url}/oauth/token")
        with nothing_sent(stage.sandbox), audited(stage, "app.authenticate", "denied", "", hides=[assertion]):
            answer = await sign_in(stage, app, client_id, assertion)

        assert_oauth_error(answer, 401, "invalid_client", hides=[assertion])

    @pytest.mark.parametrize("audience", ["{broker}/oauth/token", "{broker}/oauth/introspect", "{broker}"])
    async def test_an_assertion_is_for_the_endpoint_or_the_token_endpoint_or_the_issuer(
        self, stage: BrokerStage, app: App, keys: Keys, audience: str
    ) -> None:
        """CA-05: at introspection, where clients send what they send to the token endpoint; alone in a list, too."""
        named = audience.format(broker=stage.public_url)
        for aud in (named, [named]):
            assertion = keys.assertion("signed", named, claims={"aud": aud})
            form = {"token": "x", **proof(assertion)}
            answer = await app.http.post(f"{stage.public_url}/oauth/introspect", data=form)
            assert (answer.status_code, answer.json()) == (200, {"active": False})

    async def test_an_assertion_that_was_used_at_one_endpoint_is_used_at_all(
        self, stage: BrokerStage, app: App, keys: Keys
    ) -> None:
        """CA-01, CA-09."""
        assertion = keys.assertion("signed", stage.public_url)
        form = {"token": "x", **proof(assertion)}
        assert (await app.http.post(f"{stage.public_url}/oauth/introspect", data=form)).status_code == 200

        with audited(stage, "app.authenticate", "denied", "the assertion's jti was used before", hides=[assertion]):
            answer = await sign_in(stage, app, "signed", assertion)
        assert_oauth_error(answer, 401, "invalid_client")

    async def test_an_assertion_that_was_used_at_one_replica_is_used_at_all(
        self, stage: BrokerStage, app: App, keys: Keys, replica: httpx2.AsyncClient
    ) -> None:
        """CA-09."""
        assertion = keys.assertion("signed", stage.public_url)
        assert (await sign_in(stage, app, "signed", assertion)).status_code == 200

        again = {"token": "x", **proof(assertion)}
        assert_oauth_error(await replica.post("/oauth/introspect", data=again), 401, "invalid_client")

        fresh = {"token": "x", **proof(keys.assertion("signed", stage.public_url))}
        assert (await replica.post("/oauth/introspect", data=fresh)).status_code == 200

    async def test_a_jku_is_good_where_it_is_the_registered_url(
        self, stage: BrokerStage, app: App, keys: Keys, key_server: KeyServer
    ) -> None:
        """CA-03, CA-09: and is not fetched where it is another one."""
        for jku, status in ((key_server.url, 200), (f"{key_server.url}/elsewhere", 401)):
            assertion = keys.assertion("fetched", f"{stage.public_url}/oauth/token", header={"jku": jku})
            assert (await sign_in(stage, app, "fetched", assertion)).status_code == status
        assert set(key_server.fetches) == {"/jwks"}

    async def test_a_kid_that_two_keys_have_names_none(self, stage: BrokerStage, app: App, keys: Keys) -> None:
        """CA-09."""
        assertion = keys.assertion("twin", f"{stage.public_url}/oauth/token")

        cause = "app twin has more than one key of the assertion's kid"
        with nothing_sent(stage.sandbox), audited(stage, "app.authenticate", "denied", cause, hides=[assertion]):
            answer = await sign_in(stage, app, "twin", assertion)
        assert_oauth_error(answer, 401, "invalid_client", hides=[assertion])

    async def test_a_new_key_is_fetched_but_bad_assertions_do_not_make_the_broker_fetch_each_time(
        self, stage: BrokerStage, app: App, keys: Keys, key_server: KeyServer, borrowed_clock: MovableClock
    ) -> None:
        """CA-10."""
        audience, new = f"{stage.public_url}/oauth/token", ECKey.generate_key("P-384", {"kid": "new"})

        async def status(kid: str, key: ECKey) -> int:
            claims = {"exp": int(borrowed_clock()) + 240}
            assertion = keys.assertion("rotated", audience, key=key, header={"kid": kid}, claims=claims)
            return (await sign_in(stage, app, "rotated", assertion)).status_code

        assert await status("ec", keys.ec) == 200
        fetched = len(key_server.fetches)
        assert [await status("new", new) for _ in range(5)] == [401] * 5
        assert len(key_server.fetches) == fetched, "the keys were fetched a moment ago"

        key_server.key_set = {"keys": [new.as_dict(private=False)]}
        borrowed_clock.advance(11)
        assert await status("new", new) == 200
        assert len(key_server.fetches) == fetched + 1
        assert await status("ec", keys.ec) == 401, "the old key is gone"

        key_server.key_set = {"keys": []}
        borrowed_clock.advance(311)
        with audited(stage, "app.authenticate", "denied", "the JWK Set of app rotated could not be read"):
            assert await status("new", new) == 401

    async def test_a_kid_is_needed_even_where_there_is_only_one_key(
        self, stage: BrokerStage, app: App, keys: Keys, key_server: KeyServer
    ) -> None:
        """CA-02."""
        key_server.key_set = {"keys": [keys.ec.as_dict(private=False)]}
        audience = f"{stage.public_url}/oauth/token"
        assertion = keys.assertion("lone", audience, header={"kid": None})
        with nothing_sent(stage.sandbox), audited(stage, "app.authenticate", "denied", "has no kid", hides=[assertion]):
            answer = await sign_in(stage, app, "lone", assertion)

        assert_oauth_error(answer, 401, "invalid_client", hides=[assertion])
