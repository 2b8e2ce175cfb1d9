"""A handle that only its app can use, and a raw token that only the broker can use (RFC 9449, HB-03, OA-23)."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from joserfc.jwk import ECKey
from redis.asyncio import Redis

from broker.app import open_broker
from broker.vault import LocalKeyring
from tests.stage import BrokerStage, Sandbox, open_stage
from tests.stage.broker import APP_SECRET_TEXT, KEY, days_ahead
from tests.stage.prover import Prover
from tests.stories.held import audit_of, upstream

INVALID_GRANT = "invalid_grant"
BOUND_BACKEND = f"""
[[registration]]
id = "bound"
ehr = "sandbox"
flow = "backend"
client_id = "bound"
scopes = "system/*.rs"
dpop = true

[[app]]
id = "jobs"
authentication = "client_secret_basic"
[[app.secret]]
hash = "sha256:{hashlib.sha256(APP_SECRET_TEXT.encode()).hexdigest()}"
expires = {days_ahead(30)}
[[app.access]]
registration = "bound"
scopes = "system/Patient.rs"
"""


@asynccontextmanager
async def proving(stage: BrokerStage, client_id: str = "growth-chart") -> AsyncIterator[Prover]:
    prover = Prover(stage.base, client_id, auth=(client_id, APP_SECRET_TEXT) if client_id == "reports" else None)
    try:
        yield prover
    finally:
        await prover.close()


@pytest.fixture
async def prover(stage: BrokerStage) -> AsyncIterator[Prover]:
    async with proving(stage) as prover:
        yield prover


async def backend(prover: Prover, **more: Any) -> httpx2.Response:
    scope = more.pop("scope", "system/Patient.rs")
    return await prover.token(grant_type="client_credentials", scope=scope, resource=prover.base, **more)


async def introspected(prover: Prover, handle: str, *, proofs: list[str] | None = None) -> httpx2.Response:
    url = f"{prover.origin}/oauth/introspect"
    shown = [prover.proof("POST", url)] if proofs is None else proofs
    form = {"token": handle} | ({} if prover.auth else {"client_id": prover.client_id})
    headers = [("DPoP", proof) for proof in shown]
    return await prover.http.post(url, data=form, auth=prover.auth or httpx2.USE_CLIENT_DEFAULT, headers=headers)


class TestFacingApps:
    async def test_a_handle_is_bound_to_the_key_of_its_request(self, stage: BrokerStage, prover: Prover) -> None:
        """(HB-03, OA-23)"""
        given = await prover.standalone()
        assert given["token_type"] == "DPoP"
        answer = await prover.fhir(given["access_token"], f"Patient/{given['patient']}?_elements=id")
        assert (answer.status_code, answer.json()["id"]) == (200, given["patient"])

        before = upstream(stage.sandbox)
        stolen = await prover.fhir(given["access_token"], f"Patient/{given['patient']}", scheme="Bearer", proofs=[])
        assert (stolen.status_code, upstream(stage.sandbox)) == (401, before)

    async def test_introspection_names_the_key(self, prover: Prover) -> None:
        """RFC 9449 §6.2 (HB-03)."""
        given = await prover.standalone()
        said = (await introspected(prover, given["access_token"])).json()
        assert (said["active"], said["token_type"], said["cnf"]) == (True, "DPoP", {"jkt": prover.thumbprint})

    async def test_a_found_handle_does_not_tell_a_public_app_whose_it_is(
        self, stage: BrokerStage, prover: Prover
    ) -> None:
        """(HB-03, HB-06)"""
        handle = (await prover.standalone())["access_token"]
        url, thief = f"{prover.origin}/oauth/introspect", ECKey.generate_key("P-256")
        used = prover.proof("POST", url)
        assert (await introspected(prover, handle, proofs=[used])).json()["active"]

        for proofs in ([], [prover.proof("POST", url, key=thief)]):
            assert (await introspected(prover, handle, proofs=proofs)).json() == {"active": False}
            assert "bound to a key, and the proof is missing" in audit_of(stage, "handle.introspect")[-1]["reason"]
        for proofs in ([used], [prover.proof("POST", f"{prover.origin}/oauth/token")], [prover.proof("POST", url)] * 2):
            answer = await introspected(prover, handle, proofs=proofs)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")
            assert audit_of(stage, "handle.introspect")[-1]["outcome"] == "denied"

    async def test_an_app_that_authenticates_needs_no_proof_to_ask(self, stage: BrokerStage) -> None:
        """(HB-06)"""
        async with proving(stage, "reports") as prover:
            handle = (await backend(prover)).json()["access_token"]
            said = (await introspected(prover, handle, proofs=[])).json()
        assert (said["active"], said["cnf"]) == (True, {"jkt": prover.thumbprint})

    async def test_an_app_without_proofs_gets_a_bearers_handle(self, prover: Prover) -> None:
        """(HB-03)"""
        landing = await prover.authorize()
        answer = await prover.token(
            proofs=[],
            grant_type="authorization_code",
            code=landing.parameters["code"],
            redirect_uri=prover.redirect_uri,
            code_verifier=prover.verifier,
        )
        given = answer.json()
        assert given["token_type"] == "Bearer"
        read = await prover.fhir(given["access_token"], f"Patient/{given['patient']}", scheme="Bearer", proofs=[])
        assert read.status_code == 200

    async def test_the_refresh_handle_of_a_public_app_is_bound_as_well(self, prover: Prover) -> None:
        """RFC 9449 §5 (HB-03, OA-23)."""
        given = await prover.standalone()
        refresh = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"]}
        own, thief = prover.key, ECKey.generate_key("P-256")

        without = await prover.token(proofs=[], **refresh)
        prover.key = thief
        another = await prover.token(**refresh)
        assert [(answer.status_code, answer.json()["error"]) for answer in (without, another)] == [
            (400, INVALID_GRANT)
        ] * 2

        prover.key = own
        again = (await prover.token(**refresh)).json()
        assert again["token_type"] == "DPoP"
        assert (await prover.fhir(again["access_token"], f"Patient/{given['patient']}")).status_code == 200
        prover.key = thief
        answer = await prover.token(grant_type="refresh_token", refresh_token=again["refresh_token"])
        assert answer.json()["error"] == INVALID_GRANT

    async def test_a_code_can_be_for_one_key_alone(self, prover: Prover) -> None:
        """RFC 9449 §10 (OA-23)."""
        given = await prover.exchange(await prover.authorize(dpop_jkt=prover.thumbprint))
        assert given["token_type"] == "DPoP"
        landing = await prover.authorize(dpop_jkt=ECKey.generate_key("P-256").thumbprint())
        code = {"grant_type": "authorization_code", "code": landing.parameters["code"]}
        answer = await prover.token(**code, redirect_uri=prover.redirect_uri, code_verifier=prover.verifier)
        assert answer.json()["error"] == INVALID_GRANT

    async def test_a_code_for_a_key_is_not_traded_without_it(self, prover: Prover) -> None:
        """RFC 9449 §10 (OA-23)."""
        landing = await prover.authorize(dpop_jkt=prover.thumbprint)
        code = {"grant_type": "authorization_code", "code": landing.parameters["code"]}
        answer = await prover.token(proofs=[], **code, redirect_uri=prover.redirect_uri, code_verifier=prover.verifier)
        assert answer.json()["error"] == INVALID_GRANT

    async def test_a_proof_is_good_once_on_whichever_replica(
        self, stage: BrokerStage, prover: Prover, redis: Redis, tmp_path: Path
    ) -> None:
        """RFC 9449 §11.1 (HB-03, OA-23)."""
        given = await prover.standalone()
        handle, path = given["access_token"], f"Patient/{given['patient']}"
        proof = prover.proof("GET", f"{prover.base}/{path}", token=handle)
        asking = prover.proof("POST", f"{prover.origin}/oauth/token")
        assert (await prover.fhir(handle, path, proofs=[proof])).status_code == 200
        assert (await prover.token(proofs=[asking], grant_type="refresh_token", refresh_token="x")).status_code == 400

        settings, file = stage.broker.settings, tmp_path / "second.jsonl"
        async with (
            open_broker(
                settings, redis=redis, kek=LocalKeyring([KEY]), audit_file=file, clock=stage.clock, keep_every=None
            ) as second,
            httpx2.AsyncClient(transport=httpx2.ASGITransport(app=second.application)) as http,
        ):
            before = upstream(stage.sandbox)
            prover.http, first = http, prover.http
            replayed = await prover.fhir(handle, path, proofs=[proof])
            asked = await prover.token(proofs=[asking], grant_type="refresh_token", refresh_token="x")
            fresh = await prover.fhir(handle, path)
            prover.http = first
        assert (replayed.status_code, fresh.status_code, upstream(stage.sandbox)) == (401, 200, before + 1)
        assert asked.json()["error"] == "invalid_dpop_proof"
        assert file.read_text().count("the proof was used before") == 2

    async def test_a_token_exchange_keeps_the_binding_or_adds_one(
        self, sandbox: Sandbox, redis: Redis, tmp_path: Path
    ) -> None:
        """(HB-03)"""
        async with open_stage(sandbox, redis, tmp_path) as stage, proving(stage, "reports") as prover:
            bound, free = (await backend(prover)).json(), (await backend(prover, proofs=[])).json()
            exchange = {
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            }
            removed = await prover.token(proofs=[], **exchange, subject_token=bound["access_token"])
            kept = await prover.token(**exchange, subject_token=bound["access_token"])
            added = await prover.token(**exchange, subject_token=free["access_token"])
            assert removed.json()["error"] == INVALID_GRANT
            assert [answer.json()["token_type"] for answer in (kept, added)] == ["DPoP", "DPoP"]
            assert (await prover.fhir(kept.json()["access_token"], "Patient?_count=1")).status_code == 200

    async def test_an_app_can_be_held_to_dpop(self, sandbox: Sandbox, redis: Redis, tmp_path: Path) -> None:
        """(HB-03)"""
        held = (
            'id = "strict"\nauthentication = "none"\ndpop = "required"\nredirect_uris = ["http://127.0.0.1:1/callback"]'
        )
        access = '[[app.access]]\nregistration = "sandbox-launch"\nscopes = "launch/patient patient/*.rs"'
        async with (
            open_stage(sandbox, redis, tmp_path, more=f"[[app]]\n{held}\n{access}") as stage,
            proving(stage, "strict") as prover,
        ):
            landing = await prover.authorize(scope="launch/patient patient/*.rs")
            code = {"grant_type": "authorization_code", "code": landing.parameters["code"]}
            form = {**code, "redirect_uri": prover.redirect_uri, "code_verifier": prover.verifier}
            refused = await prover.token(proofs=[], **form)
            assert refused.json()["error"] == "invalid_dpop_proof"
            assert (await prover.token(**form)).json()["token_type"] == "DPoP"

    async def test_the_broker_says_what_it_takes(self, prover: Prover) -> None:
        """RFC 9449 §5.1 (OA-23)."""
        described: dict[str, Any] = await prover.endpoints()
        assert described["dpop_signing_alg_values_supported"] == ["ES256", "ES384", "RS256", "PS256"]


class TestNonces:
    @pytest.fixture
    async def prover(self, sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[Prover]:
        async with open_stage(sandbox, redis, tmp_path, top="dpop_nonce = true") as stage, proving(stage) as prover:
            yield prover

    async def test_a_nonce_is_demanded_given_and_taken(self, prover: Prover) -> None:
        """RFC 9449 §8, §9 (HB-03)."""
        form = {"grant_type": "refresh_token", "refresh_token": "x"}
        refused = await prover.token(**form)
        assert (refused.status_code, refused.json()["error"]) == (400, "use_dpop_nonce")
        prover.nonce = refused.headers["dpop-nonce"]
        assert (await prover.token(**form)).json()["error"] == INVALID_GRANT
        given = await prover.standalone()
        path = f"Patient/{given['patient']}"
        read = await prover.fhir(given["access_token"], path)
        assert (read.status_code, read.headers["dpop-nonce"]) == (200, prover.nonce)

        prover.nonce = None
        refused = await prover.fhir(given["access_token"], path)
        assert (refused.status_code, refused.headers["dpop-nonce"]) == (401, read.headers["dpop-nonce"])
        assert refused.headers["www-authenticate"].startswith(
            'DPoP realm="token broker", error="use_dpop_nonce", algs='
        )


class TestFacingEhrs:
    @pytest.fixture
    async def stage(self, sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[BrokerStage]:
        sandbox.switch(dpop=True)
        async with open_stage(sandbox, redis, tmp_path, registration="dpop = true") as stage:
            yield stage
        sandbox.switch(dpop=False, dpop_nonce=False)

    async def test_the_raw_token_is_bound_and_every_call_is_signed(self, stage: BrokerStage, prover: Prover) -> None:
        """(OA-23)"""
        given = await prover.standalone()
        path = f"Patient/{given['patient']}"
        assert [(await prover.fhir(given["access_token"], path)).status_code for _ in range(2)] == [200, 200]
        tokens = await stage.broker.grants.open_tokens(await stage.broker.grants.read(given["access_token"][4:16]))
        base = stage.sandbox.fhir_base
        stolen = httpx2.get(f"{base}/{path}", headers={"Authorization": f"Bearer {tokens.access_token.reveal()}"})
        assert stolen.status_code == 401

    async def test_a_refresh_proves_the_same_key(self, stage: BrokerStage, prover: Prover) -> None:
        """(OA-23)"""
        given = await prover.standalone()
        stage.sandbox.fault("fhir_401")
        assert (await prover.fhir(given["access_token"], f"Patient/{given['patient']}")).status_code == 200
        assert stage.sandbox.counts()["token.refresh_token"] == 1

    async def test_a_demanded_nonce_costs_no_refresh_and_no_grant(self, stage: BrokerStage, prover: Prover) -> None:
        """RFC 9449 §8, §9 (OA-23)."""
        stage.sandbox.switch(dpop_nonce=True)
        given = await prover.standalone()
        path = f"Patient/{given['patient']}"
        assert (await prover.fhir(given["access_token"], path)).status_code == 200
        stage.sandbox.fault("dpop_nonce")
        assert (await prover.fhir(given["access_token"], path)).status_code == 200
        stage.sandbox.fault("dpop_nonce")
        stage.sandbox.fault("fhir_401")
        assert (await prover.fhir(given["access_token"], path)).status_code == 200
        assert stage.sandbox.counts()["token.authorization_code"] == 2

    async def test_a_launch_that_is_answered_a_bearers_token_is_refused(
        self, stage: BrokerStage, prover: Prover
    ) -> None:
        """(OA-23)"""
        await prover.standalone()
        stage.sandbox.switch(dpop=False)
        landing = await prover.authorize()
        assert landing.parameters["error"] == "server_error"
        assert "not bound to its key" in audit_of(stage, "launch.finish")[-1]["reason"]
        assert audit_of(stage, "grant.revoke")[-1]["reason"] == "revoked: failed launch"

    async def test_a_refresh_that_is_answered_a_bearers_token_suspends_the_grant(
        self, stage: BrokerStage, prover: Prover
    ) -> None:
        """(OA-23)"""
        given = await prover.standalone()
        stage.sandbox.switch(dpop=False)
        stage.sandbox.fault("fhir_401")
        answer = await prover.fhir(given["access_token"], f"Patient/{given['patient']}")
        grant = await stage.broker.grants.read(given["access_token"][4:16])
        assert (answer.status_code, grant.state) == (401, "suspended")

    async def test_an_ehr_without_dpop_is_not_launched(self, stage: BrokerStage, prover: Prover) -> None:
        """(OA-23)"""
        stage.sandbox.switch(dpop=False)
        landing = await prover.authorize()
        assert landing.parameters["error"] == "server_error"
        assert "lists none of ES256, ES384" in audit_of(stage, "app.authorize")[-1]["reason"]

    async def test_backend_tokens_are_bound_as_well(self, sandbox: Sandbox, redis: Redis, tmp_path: Path) -> None:
        """(OA-23)"""
        sandbox.switch(dpop=True)
        async with open_stage(sandbox, redis, tmp_path, more=BOUND_BACKEND) as stage, proving(stage, "jobs") as prover:
            prover.auth = ("jobs", APP_SECRET_TEXT)
            sandbox.register(
                client_id="bound",
                authentication="private_key_jwt",
                jwks_uri=f"{stage.public_url}/jwks/bound",
                grant_types=["client_credentials"],
                scopes="system/*.rs",
                dpop_bound_access_tokens=True,
            )
            handle = (await backend(prover)).json()["access_token"]
            stage.sandbox.fault("fhir_401")
            assert (await prover.fhir(handle, "Patient?_count=1")).status_code == 200
            assert sandbox.counts()["token.client_credentials"] == 2
        sandbox.switch(dpop=False)
