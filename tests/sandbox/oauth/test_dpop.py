"""DPoP (RFC 9449): a token of a key works with that key, and every rule of a proof is checked."""

import base64
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

from tests.sandbox.oauth.conftest import Start
from tests.sandbox.oauth.driver import FHIR_BASE, ORIGIN, Driver

TOKEN_URL = f"{ORIGIN}/oauth2/token"
FORM = {"grant_type": "client_credentials", "scope": "system/*.rs"}


@dataclass(slots=True)
class Prover:
    """A client's key, and the proofs it makes with it."""

    ehr: Driver
    key: ECKey | RSAKey = field(default_factory=lambda: ECKey.generate_key("P-256"))
    alg: str = "ES256"
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def proof(self, url: str = TOKEN_URL, method: str = "POST", token: str | None = None,
              header: Mapping[str, Any] | None = None, **claims: Any) -> str:  # fmt: skip
        """Return a proof with members changed, or left out when None."""
        head = {"typ": "dpop+jwt", "alg": self.alg, "jwk": self.key.as_dict(private=False), **(header or {})}
        whole = {
            "htm": method,
            "htu": url,
            "iat": int(self.ehr.now()),
            "jti": f"proof-{next(self.numbers)}",
            "ath": token and base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode(),
            **claims,
        }
        payload = json.dumps({name: value for name, value in whole.items() if value is not None}).encode()
        return jws.serialize_compact(head, payload, self.key, algorithms=[self.alg])

    async def ask(self, *proofs: str, **form: str) -> httpx2.Response:
        headers = [("DPoP", proof) for proof in proofs]
        auth = (self.ehr.client_id, self.ehr.secret)
        return await self.ehr.http.post("/oauth2/token", data=form or FORM, auth=auth, headers=headers)

    async def read(self, token: str, scheme: str = "DPoP", **changes: Any) -> httpx2.Response:
        url = f"{FHIR_BASE}/Patient"
        proof = self.proof(url, "GET", token, **changes)
        return await self.ehr.http.get(url, headers={"Authorization": f"{scheme} {token}", "DPoP": proof})


async def backend(ehr: Driver, **members: Any) -> Prover:
    await ehr.register(grant_types=["client_credentials"], scopes="system/*.rs", **members)
    return Prover(ehr)


async def test_a_token_is_bound_to_the_key_of_its_proof(start: Start) -> None:
    """(OA-23)"""
    async with start(dpop=True) as ehr:
        prover = await backend(ehr)
        answer = await prover.ask(prover.proof())
        token = answer.json()["access_token"]
        assert answer.json()["token_type"] == "DPoP"
        assert (await prover.read(token)).status_code == 200
        assert (await prover.read(token, "Bearer")).status_code == 401
        thief = await Prover(ehr).read(token)
        assert thief.status_code == 401
        assert thief.headers["www-authenticate"].startswith('DPoP error="invalid_dpop_proof"')


async def test_introspection_names_the_key(start: Start) -> None:
    """RFC 9449 §6.2 (OA-23)."""
    async with start(dpop=True) as ehr:
        prover = await backend(ehr)
        token = (await prover.ask(prover.proof())).json()["access_token"]
        described = await ehr.http.post("/oauth2/introspect", data={"token": token}, auth=(ehr.client_id, ehr.secret))
        assert described.json()["token_type"] == "DPoP"
        assert described.json()["cnf"] == {"jkt": prover.key.thumbprint()}


async def test_without_a_proof_a_token_is_a_bearer_token(start: Start) -> None:
    async with start(dpop=True) as ehr:
        prover = await backend(ehr)
        token = (await prover.ask()).json()
        assert token["token_type"] == "Bearer"
        assert (await prover.read(token["access_token"], "Bearer")).status_code == 200
        assert (await prover.read(token["access_token"])).status_code == 401


async def test_a_proof_is_ignored_unless_dpop_is_on(ehr: Driver) -> None:
    prover = await backend(ehr)
    assert (await prover.ask(prover.proof())).json()["token_type"] == "Bearer"


async def test_a_client_can_be_held_to_dpop(ehr: Driver) -> None:
    """RFC 9449 §5.2 (OA-23)."""
    prover = await backend(ehr, dpop_bound_access_tokens=True)
    assert (await prover.ask()).json()["error"] == "invalid_dpop_proof"
    assert (await prover.ask(prover.proof())).json()["token_type"] == "DPoP"


@pytest.mark.parametrize(("key", "alg"), [(ECKey.generate_key("P-384"), "ES384"), (RSAKey.generate_key(2048), "RS256")])
async def test_other_algorithms_will_do(start: Start, key: ECKey | RSAKey, alg: str) -> None:
    async with start(dpop=True) as ehr:
        await backend(ehr)
        prover = Prover(ehr, key, alg)
        assert (await prover.ask(prover.proof())).json()["token_type"] == "DPoP"


@pytest.mark.parametrize(
    ("header", "claims", "says"),
    [
        ({"typ": "JWT"}, {}, "typ must be dpop+jwt"),
        ({"jwk": ECKey.generate_key("P-256").as_dict(private=True)}, {}, "jwk must be a public key"),
        ({"jwk": ECKey.generate_key("P-256").as_dict(private=False)}, {}, "signature or key is not good"),
        ({"jwk": RSAKey.generate_key(2048).as_dict(private=False)}, {}, "signature or key is not good"),
        ({}, {"htm": "GET"}, "htm must be POST"),
        ({}, {"htu": f"{ORIGIN}/oauth2/authorize"}, "htu must be"),
        ({}, {"htu": None}, "htu must be"),
        ({}, {"iat": None}, "iat must be within a minute"),
        ({}, {"iat": 1}, "iat must be within a minute"),
        ({}, {"iat": 1_800_000_061}, "iat must be within a minute"),
        ({}, {"jti": None}, "jti is missing"),
    ],
)
async def test_a_proof_that_breaks_a_rule_is_refused_and_told_which(
    start: Start, header: dict[str, Any], claims: dict[str, Any], says: str
) -> None:
    """RFC 9449 §4.3 (OA-23)."""
    async with start(dpop=True) as ehr:
        prover = await backend(ehr)
        answer = await prover.ask(prover.proof(header=header, **claims))
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")
        assert says in answer.json()["error_description"]


async def test_an_unsigned_proof_is_refused(start: Start) -> None:
    async with start(dpop=True) as ehr:
        prover = await backend(ehr)
        _, claims, _ = prover.proof().split(".")
        head = base64.urlsafe_b64encode(b'{"typ":"dpop+jwt","alg":"none"}').rstrip(b"=").decode()
        assert (await prover.ask(f"{head}.{claims}.")).json()["error"] == "invalid_dpop_proof"


async def test_a_proof_is_good_once(start: Start) -> None:
    """RFC 9449 §11.1 (OA-23)."""
    async with start(dpop=True) as ehr:
        prover = await backend(ehr)
        proof = prover.proof()
        assert [(await prover.ask(proof)).status_code for _ in range(2)] == [200, 400]


async def test_two_proofs_at_once_are_one_too_many(start: Start) -> None:
    async with start(dpop=True) as ehr:
        prover = await backend(ehr)
        assert (await prover.ask(prover.proof(), prover.proof())).json()["error"] == "invalid_dpop_proof"


@pytest.mark.parametrize("changes", [{"ath": "x"}, {"ath": None}, {"htm": "POST"}, {"htu": f"{FHIR_BASE}/Observation"}])
async def test_a_proof_at_the_fhir_server_is_for_this_token_and_this_request(
    start: Start, changes: dict[str, Any]
) -> None:
    """RFC 9449 §7.1 (OA-23)."""
    async with start(dpop=True) as ehr:
        prover = await backend(ehr)
        token = (await prover.ask(prover.proof())).json()["access_token"]
        assert (await prover.read(token, **changes)).status_code == 401
        bare = await ehr.http.get(f"{FHIR_BASE}/Patient", headers={"Authorization": f"DPoP {token}"})
        assert bare.status_code == 401


async def test_a_nonce_can_be_demanded(start: Start) -> None:
    """RFC 9449 §8 (OA-23)."""
    async with start(dpop=True, dpop_nonce=True) as ehr:
        prover = await backend(ehr)
        refused = await prover.ask(prover.proof())
        assert (refused.status_code, refused.json()["error"]) == (400, "use_dpop_nonce")
        nonce = refused.headers["dpop-nonce"]
        token = (await prover.ask(prover.proof(nonce=nonce))).json()["access_token"]
        answer = await prover.read(token)
        assert (answer.status_code, answer.headers["dpop-nonce"]) == (401, nonce)
        assert answer.headers["www-authenticate"].startswith('DPoP error="use_dpop_nonce"')
        assert (await prover.read(token, nonce=nonce)).status_code == 200


async def test_a_nonce_can_end_in_the_middle(start: Start) -> None:
    """RFC 9449 §8.2 (OA-23)."""
    async with start(dpop=True) as ehr:
        prover = await backend(ehr)
        token = (await prover.ask(prover.proof())).json()["access_token"]
        await ehr.arm("dpop_nonce", times=2)
        first, second = [(await prover.read(token)).headers["dpop-nonce"] for _ in range(2)]
        assert first != second
        assert (await prover.read(token, nonce=first)).status_code == 401
        assert (await prover.read(token, nonce=second)).status_code == 200


async def test_the_refresh_token_of_a_public_client_is_bound_to_its_key(start: Start) -> None:
    """RFC 9449 §5 (OA-23)."""
    async with start(dpop=True) as ehr:
        await ehr.register(authentication="none")
        prover = Prover(ehr)
        refresh_token = (await public(prover, grant_type="authorization_code", code=await ehr.code()))["refresh_token"]
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        assert (await public(Prover(ehr), **form))["error"] == "invalid_grant"
        assert (await public(prover, **form))["token_type"] == "DPoP"


async def test_a_code_can_be_bound_to_a_key(start: Start) -> None:
    """RFC 9449 §10 (OA-23)."""
    async with start(dpop=True) as ehr:
        await ehr.register(authentication="none")
        prover = Prover(ehr)
        code = await ehr.code(dpop_jkt=prover.key.thumbprint())
        assert (await public(Prover(ehr), grant_type="authorization_code", code=code))["error"] == "invalid_grant"
        code = await ehr.code(dpop_jkt=prover.key.thumbprint())
        assert "access_token" in await public(prover, grant_type="authorization_code", code=code)


async def test_it_is_advertised_where_it_is_on(start: Start) -> None:
    async with start(dpop=True) as ehr:
        document = (await ehr.http.get("/api/FHIR/R4/.well-known/smart-configuration")).json()
        assert document["dpop_signing_alg_values_supported"] == ["ES256", "ES384", "RS256", "PS256"]


async def public(prover: Prover, **form: str) -> dict[str, Any]:
    whole = {"redirect_uri": "http://app.example/callback", "code_verifier": "v" * 43, "client_id": "app", **form}
    answer = await prover.ehr.http.post("/oauth2/token", data=whole, headers={"DPoP": prover.proof()})
    return dict(answer.json())
