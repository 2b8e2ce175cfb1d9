"""What an EHR sees of the broker's proofs of possession, and what it may answer (OA-23)."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from joserfc.jwk import ECKey

from broker.clock import system_entropy
from broker.dpop import DpopProof, new_key, verify
from broker.egress import Answer, Egress
from broker.ehr.client_auth import Authentication, always, client_secret_basic
from broker.ehr.dpop import DpopProofs, binding_warning, fhir_server_wants_nonce, grant_key, require_bound
from broker.ehr.endpoints import parse_smart_configuration
from broker.ehr.fhir_server import FhirServer
from broker.ehr.token_answer import TokenAnswer, parse_answer
from broker.ehr.token_endpoint import TokenEndpoint
from broker.errors import EhrAnswerUnreadable, EhrMisbehaved, EhrRefused, EhrUnreachable
from broker.secret import Secret
from tests.ehr import server
from tests.ehr.known import proofs
from tests.ehr.server import Received, ScriptedServer, reply

NOW = 1_900_000_000.0
KEY = new_key("ES256")
BASIC = client_secret_basic("broker", Secret("secret"))
BOUND = json.dumps({"access_token": "at", "token_type": "DPoP", "expires_in": 3600, "scope": "patient/*.rs"})
CHALLENGE = 'WWW-Authenticate: DPoP algs="ES256", error="use_dpop_nonce"'


def in_turn(*answers: bytes) -> server.Answer:
    """Give one answer after the other, each on a connection of its own."""
    left = list(answers)

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(left.pop(0))
        await writer.drain()

    return answer


def wanted(nonce: str, *, status: str = "400 Bad Request") -> bytes:
    return reply('{"error":"use_dpop_nonce"}', f"DPoP-Nonce: {nonce}", status=status)


def refused(nonce: str) -> bytes:
    return reply("{}", f"DPoP-Nonce: {nonce}", CHALLENGE, "Connection: close", status="401 Unauthorized")


def proof_of(request: Received, url: str, token: str | None = None) -> DpopProof:
    return verify([request.headers["dpop"]], method=request.method, url=url, token=token, now=NOW)


async def refresh(egress: Egress, ehr: ScriptedServer) -> TokenAnswer:
    endpoint = TokenEndpoint(egress, proofs(NOW))
    return await endpoint.refresh(f"{ehr.url}/token", BASIC, refresh_token=Secret("rt"), timeout=5, proof_key=KEY)


class TestTokenEndpoint:
    async def test_a_request_carries_a_proof_of_the_grants_key(self, egress: Egress, ehr: ScriptedServer) -> None:
        """(OA-23)"""
        ehr.answers["/token"] = reply(BOUND)
        answer = await refresh(egress, ehr)
        assert answer.bound
        assert proof_of(ehr.requests[0], f"{ehr.url}/token").nonce is None

    async def test_a_request_without_a_key_carries_none(self, egress: Egress, ehr: ScriptedServer) -> None:
        """(OA-23)"""
        ehr.answers["/token"] = wanted("n-1")
        with pytest.raises(EhrRefused, match="use_dpop_nonce"):
            await TokenEndpoint(egress, proofs(NOW)).refresh(
                f"{ehr.url}/token", BASIC, refresh_token=Secret("rt"), timeout=5
            )
        assert ["dpop" in request.headers for request in ehr.requests] == [False]

    @pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized"])
    async def test_a_demanded_nonce_costs_one_more_request(
        self, egress: Egress, ehr: ScriptedServer, status: str
    ) -> None:
        """RFC 9449 §8 (OA-23)."""
        ehr.answers["/token"] = in_turn(wanted("n-1", status=status), reply(BOUND))
        await refresh(egress, ehr)
        first, second = (proof_of(request, f"{ehr.url}/token") for request in ehr.requests)
        assert (first.nonce, second.nonce) == (None, "n-1")
        assert first.jti != second.jti

    async def test_a_nonce_that_is_demanded_again_is_not_tried_again(self, egress: Egress, ehr: ScriptedServer) -> None:
        """(OA-23)"""
        ehr.answers["/token"] = in_turn(wanted("n-1"), wanted("n-2"))
        with pytest.raises(EhrRefused, match="use_dpop_nonce") as caught:
            await refresh(egress, ehr)
        assert (caught.value.error, len(ehr.requests)) == ("use_dpop_nonce", 2)

    async def test_a_nonce_belongs_to_the_place_that_was_asked_in_fact(
        self, egress: Egress, ehr: ScriptedServer
    ) -> None:
        """RFC 9449 §8.2, RFC 8705 §5: an alias for clients with a certificate is at another origin (OA-19, OA-23)."""
        ehr.answers["/alias"] = in_turn(wanted("n-1"), reply(BOUND))
        alias = always(Authentication(url=f"{ehr.url}/alias"), "broker")
        await TokenEndpoint(egress, proofs(NOW)).refresh(
            "https://ehr.example/token", alias, refresh_token=Secret("rt"), timeout=5, proof_key=KEY
        )
        assert [proof_of(request, f"{ehr.url}/alias").nonce for request in ehr.requests] == [None, "n-1"]

    @pytest.mark.parametrize(
        "answer",
        [
            reply('{"error":"use_dpop_nonce"}', status="400 Bad Request"),
            reply('{"error":"use_dpop_nonce"}', "DPoP-Nonce: a b", status="400 Bad Request"),
            reply('{"error":"invalid_grant"}', "DPoP-Nonce: n-1", status="400 Bad Request"),
            reply('{"error":"use_dpop_nonce"}', "DPoP-Nonce: n-1", status="500 Oh"),
        ],
    )
    async def test_no_other_refusal_is_tried_again(self, egress: Egress, ehr: ScriptedServer, answer: bytes) -> None:
        """(OA-23, RF-05)"""
        ehr.answers["/token"] = answer
        with pytest.raises(EhrRefused):
            await refresh(egress, ehr)
        assert len(ehr.requests) == 1


@pytest.mark.parametrize(
    ("asked", "kind", "bound"), [(True, "DPoP", True), (True, "Bearer", False), (False, "bearer", False)]
)
def test_the_answer_says_whether_the_token_is_bound(kind: str, *, asked: bool, bound: bool) -> None:
    """(OA-23, TR-02)"""
    assert parse_answer(_answer(kind), bound=asked).bound is bound


@pytest.mark.parametrize(("asked", "kind"), [(False, "DPoP"), (True, "mac")])
def test_a_token_of_another_type_than_asked_is_no_answer(kind: str, *, asked: bool) -> None:
    """(OA-23, TR-02)"""
    with pytest.raises(EhrAnswerUnreadable, match="token_type other than"):
        parse_answer(_answer(kind), bound=asked)


def test_a_bearer_token_where_a_bound_one_was_asked_for_is_refused() -> None:
    """(OA-23)"""
    require_bound(parse_answer(_answer("Bearer")), None)
    require_bound(parse_answer(_answer("DPoP"), bound=True), KEY)
    with pytest.raises(EhrMisbehaved, match="not bound to its key"):
        require_bound(parse_answer(_answer("Bearer"), bound=True), KEY)


def _answer(kind: str) -> Answer:
    return Answer(200, {}, json.dumps({"access_token": "at", "token_type": kind}).encode())


@pytest.mark.parametrize(
    ("listed", "curve"),
    [(["ES256", "ES384"], "P-256"), (["RS256", "ES384"], "P-384"), (["RS256"], None), ("ES256", None), (None, None)],
)
def test_the_grants_key_fits_what_the_ehr_lists(listed: Any, curve: str | None) -> None:
    """(OA-23)"""
    document = {"token_endpoint": "https://ehr.example/token", "dpop_signing_alg_values_supported": listed}
    endpoints = parse_smart_configuration(document, "https://ehr.example/r4")
    if curve is None:
        with pytest.raises(EhrMisbehaved, match="lists none of ES256, ES384"):
            grant_key(endpoints)
        assert "lists none of ES256, ES384" in str(binding_warning(endpoints))
        return
    assert binding_warning(endpoints) is None
    assert ECKey.import_key(grant_key(endpoints).reveal()).curve_name == curve


class TestFhirServer:
    async def send(
        self, made: DpopProofs, egress: Egress, ehr: ScriptedServer, content: bytes | AsyncIterator[bytes] | None = None
    ) -> int:
        answer = await FhirServer(egress, made).send(
            fhir_base=f"{ehr.url}/r4",
            token=Secret("t0ken"),
            method="POST" if content else "GET",
            path="Patient",
            query="name=x",
            headers={"authorization": "Bearer handle"},
            content=content,
            timeout=5,
            proof_key=KEY,
        )
        answer.close()
        return answer.status

    async def test_each_request_is_signed_anew_for_its_url_and_token(self, egress: Egress, ehr: ScriptedServer) -> None:
        """RFC 9449 §7.1 (OA-23)."""
        ehr.answers["/r4/Patient?name=x"], made = reply("{}"), proofs(NOW)
        assert [await self.send(made, egress, ehr) for _ in range(2)] == [200, 200]
        first, second = (proof_of(request, f"{ehr.url}/r4/Patient", "t0ken") for request in ehr.requests)
        assert first.jti != second.jti
        assert {request.headers["authorization"] for request in ehr.requests} == {"DPoP t0ken"}

    async def test_a_nonce_is_kept_for_the_origin(self, egress: Egress, ehr: ScriptedServer) -> None:
        """RFC 9449 §8.2 (OA-23)."""
        made = proofs(NOW)
        ehr.answers["/r4/Patient?name=x"] = in_turn(
            refused("n-1"), reply("{}", "DPoP-Nonce: n-2", "Connection: close"), reply("{}", "Connection: close")
        )
        assert [await self.send(made, egress, ehr) for _ in range(2)] == [200, 200]
        said = [proof_of(request, f"{ehr.url}/r4/Patient", "t0ken").nonce for request in ehr.requests]
        assert said == [None, "n-1", "n-2"]

    async def test_a_body_at_hand_is_sent_again(self, egress: Egress, ehr: ScriptedServer) -> None:
        """RFC 9449 §9 (OA-23)."""
        ehr.answers["/r4/Patient?name=x"] = in_turn(refused("n-1"), reply("{}", "Connection: close"))
        assert await self.send(proofs(NOW), egress, ehr, b"body") == 200
        assert [request.body for request in ehr.requests] == [b"body", b"body"]

    async def test_a_body_that_has_gone_by_is_not_sent_again(self, egress: Egress, ehr: ScriptedServer) -> None:
        """(OA-23, PX-08)"""

        async def body() -> AsyncIterator[bytes]:
            yield b"body"

        made = proofs(NOW)
        ehr.answers["/r4/Patient?name=x"] = in_turn(refused("n-1"), reply("{}", "Connection: close"))
        with pytest.raises(EhrUnreachable, match="another DPoP nonce"):
            await self.send(made, egress, ehr, body())
        assert len(ehr.requests) == 1
        assert await self.send(made, egress, ehr, body()) == 200

    async def test_a_nonce_that_is_demanded_again_is_not_tried_again(self, egress: Egress, ehr: ScriptedServer) -> None:
        """(OA-23)"""
        ehr.answers["/r4/Patient?name=x"] = in_turn(refused("n-1"), refused("n-2"))
        with pytest.raises(EhrUnreachable, match="another DPoP nonce"):
            await self.send(proofs(NOW), egress, ehr)
        assert len(ehr.requests) == 2

    @pytest.mark.parametrize(
        ("status", "challenge", "wants"),
        [
            (401, 'DPoP error="use_dpop_nonce"', True),
            (401, 'Bearer, dpop algs="ES256",error=use_dpop_nonce', True),
            (401, 'DPoP error="invalid_token"', False),
            (401, 'Bearer error="use_dpop_nonce"', False),
            (403, 'DPoP error="use_dpop_nonce"', False),
            (401, "", False),
        ],
    )
    def test_only_a_challenge_for_a_nonce_is_one(self, status: int, challenge: str, *, wants: bool) -> None:
        """RFC 9449 §9 (OA-23)."""
        assert fhir_server_wants_nonce(status, {"www-authenticate": challenge}) is wants

    def test_a_challenge_of_any_length_is_read_in_no_time(self) -> None:
        """(OA-23): with a pattern that goes back and forth, this would take longer than a test may."""
        assert not fhir_server_wants_nonce(401, {"www-authenticate": "dpop " * 200_000})
        assert not fhir_server_wants_nonce(401, {"www-authenticate": f"{'x' * 4096}, {CHALLENGE}"})


def test_nonces_of_one_origin_are_no_others() -> None:
    """RFC 9449 §8.2 (OA-23)."""
    made = DpopProofs(clock=lambda: NOW, entropy=system_entropy)
    assert made.learn("https://a.example/x", {"dpop-nonce": "n-1"})
    seen = [
        verify([made.prove(KEY, "GET", url)["DPoP"]], method="GET", url=url, now=NOW).nonce
        for url in ("https://a.example/y?z", "https://b.example/y", "https://a.example:8443/y")
    ]
    assert seen == ["n-1", None, None]
