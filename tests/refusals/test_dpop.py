"""What no proof of possession may be: refused by cause in the audit, in one voice outside, and nothing sent (HB-03)."""

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from joserfc import jws
from joserfc.jwk import ECKey, OctKey

from broker.credentials import HANDLE, mint
from broker.dpop import WINDOW_SECONDS
from tests.refusals.refusal import assert_oauth_error, assert_outcome, audited, nothing_sent
from tests.stage import App, BrokerStage
from tests.stage.prover import Prover

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALGORITHMS = 'algs="ES256 ES384 RS256 PS256"'
THIEF = ECKey.generate_key("P-256")
BAD_PROOF = f'DPoP realm="token broker", error="invalid_dpop_proof", {ALGORITHMS}'
BAD_HANDLE = f'DPoP realm="token broker", error="invalid_token", {ALGORITHMS}'
UNKNOWN = mint(HANDLE, "0" * 12, lambda count: b"\1" * count).reveal()

Make = Callable[..., str]
"""Signs a proof for the request at hand; what it is given replaces members."""


def other_type(make: Make) -> str:
    head = jws.serialize_compact({"alg": "HS256"}, "x", OctKey.import_key("k" * 32)).partition(".")[0]
    return f"{head}.{make().partition('.')[2]}"


WRONG: list[tuple[Callable[[Make], list[str]], str]] = [
    (lambda _: [], "no DPoP proof, or more than one"),
    (lambda make: [make(), make()], "no DPoP proof, or more than one"),
    (lambda _: ["canary-proof"], "not a JWS"),
    (lambda make: [make() + "="], "not a JWS"),
    (lambda make: [f"{make().rpartition('.')[0]}.{make().rpartition('.')[2]}"], "does not verify"),
    (lambda make: [other_type(make)], "typ is not dpop+jwt"),
    (lambda make: [make(htm="DELETE")], "htm is not"),
    (lambda make: [make(htu="https://canary.example/")], "htu is not"),
    (lambda make: [make(iat=int(time.time()) - WINDOW_SECONDS - 2)], "iat is not within 60 s"),
    (lambda make: [make(iat=int(time.time()) + WINDOW_SECONDS + 2)], "iat is not within 60 s"),
    (lambda make: [make(iat="now")], "iat is not within 60 s"),
    (lambda make: [make(jti=None)], "jti is missing"),
    (lambda make: [make(jti="j" * 300)], "jti is missing"),
]
"""Wrong anywhere: what is sent, and what the audit says of it."""


@pytest_asyncio.fixture(loop_scope="module")
async def prover(stage: BrokerStage) -> AsyncIterator[Prover]:
    prover = Prover(stage.base)
    yield prover
    await prover.close()


@pytest_asyncio.fixture(loop_scope="module")
async def given(prover: Prover) -> dict[str, Any]:
    """A handle that is bound to the prover's key."""
    return await prover.standalone(scope="launch/patient patient/*.rs")


class TestFhir:
    @pytest.mark.parametrize(("sent", "cause"), WRONG)
    async def test_a_wrong_proof_opens_nothing(
        self, stage: BrokerStage, prover: Prover, given: dict[str, Any], sent: Callable[[Make], list[str]], cause: str
    ) -> None:
        """RFC 9449 §4.3, §7.1 (HB-03, OA-23)."""
        handle, path = given["access_token"], f"Patient/{given['patient']}"

        def make(**claims: Any) -> str:
            return prover.proof("GET", f"{prover.base}/{path}", token=handle, **claims)

        proofs = sent(make)
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", cause, hides=[handle, "canary"]):
            answer = await prover.fhir(handle, path, proofs=proofs)
        assert_outcome(answer, 401, "invalid_dpop_proof", challenge=BAD_PROOF, hides=[handle, "canary", *proofs])

    @pytest.mark.parametrize("ath", [None, "x" * 43])
    async def test_a_proof_of_another_handle_opens_nothing(
        self, stage: BrokerStage, prover: Prover, given: dict[str, Any], ath: str | None
    ) -> None:
        """RFC 9449 §7 (HB-03, OA-23)."""
        handle, path = given["access_token"], "Patient"
        proof = prover.proof("GET", f"{prover.base}/{path}", token=handle, ath=ath)
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "ath is not the hash"):
            answer = await prover.fhir(handle, path, proofs=[proof])
        assert_outcome(answer, 401, "invalid_dpop_proof", challenge=BAD_PROOF)

    async def test_a_proof_of_another_key_opens_nothing(
        self, stage: BrokerStage, prover: Prover, given: dict[str, Any]
    ) -> None:
        """RFC 9449 §7.1 (HB-03)."""
        handle, path = given["access_token"], "Patient"
        proof = prover.proof("GET", f"{prover.base}/{path}", token=handle, key=THIEF)
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "is bound to another key"):
            answer = await prover.fhir(handle, path, proofs=[proof])
        assert_outcome(answer, 401, "invalid_token", challenge=BAD_HANDLE)

    @pytest.mark.parametrize("shown", [False, True])
    async def test_a_bound_handle_is_no_bearers(
        self, stage: BrokerStage, prover: Prover, given: dict[str, Any], *, shown: bool
    ) -> None:
        """RFC 9449 §7.2 (HB-03)."""
        handle, path = given["access_token"], "Patient"
        proofs = [prover.proof("GET", f"{prover.base}/{path}", token=handle)] if shown else []
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "is bound to a key"):
            answer = await prover.fhir(handle, path, scheme="Bearer", proofs=proofs)
        assert_outcome(answer, 401, "invalid_token", challenge=BAD_HANDLE)

    async def test_a_bearers_handle_is_not_shown_with_a_proof(
        self, stage: BrokerStage, app: App, prover: Prover
    ) -> None:
        """RFC 9449 §7.1 (HB-03)."""
        handle = (await app.standalone(scope="launch/patient patient/*.rs"))["access_token"]
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "is bound to no key"):
            answer = await prover.fhir(handle, "Patient")
        assert_outcome(answer, 401, "invalid_token", challenge=BAD_HANDLE)

    async def test_a_proof_opens_nothing_twice(self, stage: BrokerStage, prover: Prover, given: dict[str, Any]) -> None:
        """RFC 9449 §11.1 (HB-03, OA-23)."""
        handle, path = given["access_token"], f"Patient/{given['patient']}"
        proof = prover.proof("GET", f"{prover.base}/{path}", token=handle)
        assert (await prover.fhir(handle, path, proofs=[proof])).status_code == 200
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "the proof was used before"):
            answer = await prover.fhir(handle, path, proofs=[proof])
        assert_outcome(answer, 401, "invalid_dpop_proof", challenge=BAD_PROOF)

    async def test_a_thief_cannot_use_up_somebody_elses_proof(self, prover: Prover, given: dict[str, Any]) -> None:
        """(HB-03)"""
        handle, url = given["access_token"], f"{prover.base}/Patient/{given['patient']}"
        stolen = prover.proof("GET", url, token=handle, key=THIEF, jti="the same")
        path = f"Patient/{given['patient']}"
        assert (await prover.fhir(handle, path, proofs=[stolen])).status_code == 401
        own = prover.proof("GET", url, token=handle, jti="the same")
        assert (await prover.fhir(handle, path, proofs=[own])).status_code == 200

    async def test_a_scope_is_needed_all_the_same(
        self, stage: BrokerStage, prover: Prover, given: dict[str, Any]
    ) -> None:
        """RFC 9449 §7.1 (HB-03)."""
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "no scope covers"):
            answer = await prover.fhir(given["access_token"], f"Patient/{given['patient']}", method="DELETE")
        challenge = BAD_HANDLE.replace("invalid_token", "insufficient_scope")
        assert_outcome(answer, 403, "insufficient_scope", challenge=challenge)

    async def test_an_unknown_handle_with_a_good_proof_leaves_no_trace(
        self, stage: BrokerStage, prover: Prover
    ) -> None:
        """(HB-03)"""
        marks = [key async for key in stage.redis.scan_iter(match="sb:*:proof:*")]
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "unknown, expired or revoked"):
            answer = await prover.fhir(UNKNOWN, "Patient")
        assert_outcome(answer, 401, "invalid_token", challenge=BAD_HANDLE)
        assert [key async for key in stage.redis.scan_iter(match="sb:*:proof:*")] == marks

    @pytest.mark.parametrize("handle", ["garbage", UNKNOWN[:-1] + "!", "sbr_" + UNKNOWN.removeprefix(HANDLE)])
    async def test_for_what_cannot_be_a_handle_no_signature_is_verified(
        self, stage: BrokerStage, prover: Prover, handle: str
    ) -> None:
        """(HB-03): else anybody could have the broker work for nothing."""
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "malformed"):
            answer = await prover.fhir(handle, "Patient", proofs=["canary-proof"])
        assert_outcome(answer, 401, "invalid_token", challenge=BAD_HANDLE)


class TestToken:
    @pytest.mark.parametrize(("sent", "cause"), WRONG[1:])
    async def test_a_wrong_proof_uses_nothing_up(
        self, stage: BrokerStage, prover: Prover, sent: Callable[[Make], list[str]], cause: str
    ) -> None:
        """RFC 9449 §5 (HB-03, OA-23)."""
        given = await prover.standalone()
        refresh = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"]}

        def make(**claims: Any) -> str:
            return prover.proof("POST", f"{prover.origin}/oauth/token", **claims)

        proofs = sent(make)
        with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", cause, hides=["canary"]):
            answer = await prover.token(proofs=proofs, **refresh)
        assert_oauth_error(answer, 400, "invalid_dpop_proof", hides=["canary", given["refresh_token"]])
        assert (await prover.token(**refresh)).status_code == 200

    async def test_a_proof_buys_nothing_twice(self, stage: BrokerStage, prover: Prover) -> None:
        """RFC 9449 §11.1 (HB-03, OA-23)."""
        given = await prover.standalone()
        proof = prover.proof("POST", f"{prover.origin}/oauth/token")
        refresh = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"]}
        again = (await prover.token(proofs=[proof], **refresh)).json()
        with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", "the proof was used before"):
            answer = await prover.token(
                proofs=[proof], grant_type="refresh_token", refresh_token=again["refresh_token"]
            )
        assert_oauth_error(answer, 400, "invalid_dpop_proof")

    async def test_a_refresh_handle_stays_with_its_key(self, stage: BrokerStage, prover: Prover) -> None:
        """RFC 9449 §5 (HB-03)."""
        given = await prover.standalone()
        refresh = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"]}
        thief = prover.proof("POST", f"{prover.origin}/oauth/token", key=THIEF)
        for proofs in ([], [thief]):
            cause = "the DPoP proof is missing or of another one"
            with nothing_sent(stage.sandbox), audited(stage, "handle.mint", "denied", cause):
                answer = await prover.token(proofs=proofs, **refresh)
            assert_oauth_error(answer, 400, "invalid_grant")
        assert (await prover.token(**refresh)).status_code == 200


@pytest.mark.parametrize("jkt", ["x", "x" * 44, "x" * 42 + "="])
async def test_a_code_is_bound_to_a_thumbprint_or_refused(stage: BrokerStage, app: App, jkt: str) -> None:
    """RFC 9449 §10 (OA-23)."""
    with nothing_sent(stage.sandbox), audited(stage, "app.authorize", "denied", "dpop_jkt is no SHA-256"):
        landing = await app.authorize(dpop_jkt=jkt)
    assert landing.parameters["error"] == "invalid_request"
