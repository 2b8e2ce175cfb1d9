"""A workload proves itself with the token that its platform gave it: a tiny OIDC issuer on loopback gives it here."""

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from joserfc import jws, jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from redis.asyncio import Redis

from broker.ehr.client_auth import JWT_BEARER
from broker.flows.proof.workload_identity import JWT_SPIFFE
from tests.refusals.keys import KeyServer, present, running_key_server
from tests.refusals.refusal import assert_oauth_error, audited, nothing_sent
from tests.stage import BrokerStage, Sandbox, open_stage

AUDIENCE = "https://broker.example.org"
KUBERNETES = "https://kubernetes.default.svc.cluster.local"
ANY = jws.JWSRegistry(algorithms=["RS256", "RS384", "ES256", "HS256"])
MORE = """
[[issuer]]
id = "ci"
issuer = "{ci}"
audience = "{audience}"

[[issuer]]
id = "k8s"
issuer = "{kubernetes}"
audience = "{audience}"
jwks_file = "cluster.json"

[[issuer]]
id = "mesh"
trust_domain = "example.org"
audience = "{audience}"
jwks_file = "bundle.json"
algorithms = ["ES256"]
max_lifetime = 600

[[app]]
id = "etl"
authentication = "workload_identity"
[app.workload]
issuer = "ci"
subject = "repo:acme/*:environment:prod"
wildcard = true
claims = {{ repository_owner = "acme", run_attempt = 1, protected = true }}
[[app.access]]
registration = "sandbox-backend"
scopes = "system/Patient.rs"

[[app]]
id = "cluster-job"
authentication = "workload_identity"
[app.workload]
issuer = "k8s"
subject = "system:serviceaccount:ehr:reports"
[[app.access]]
registration = "sandbox-backend"
scopes = "system/Patient.rs"

[[app]]
id = "mesh-job"
authentication = "workload_identity"
[app.workload]
issuer = "mesh"
subject = "spiffe://example.org/ns/ehr/sa/reports"
[[app.access]]
registration = "sandbox-backend"
scopes = "system/Patient.rs"
"""
CI_KEY, OTHER = RSAKey.generate_key(2048, {"kid": "ci"}), RSAKey.generate_key(2048, {"kid": "ci"})
CLUSTER_KEY, MESH_KEY = RSAKey.generate_key(2048, {"kid": "k"}), ECKey.generate_key("P-256", {"kid": "m"})


def public(key: RSAKey | ECKey, **more: str) -> dict[str, Any]:
    return {**key.as_dict(private=False), **more}


@pytest.fixture
def ci() -> Iterator[KeyServer]:
    """An OIDC issuer whose configuration and keys are one document."""
    with running_key_server({"keys": [public(CI_KEY)]}) as server:
        server.key_set |= {"issuer": server.url.removesuffix("/jwks"), "jwks_uri": server.url}
        yield server


@pytest.fixture
async def stage(ci: KeyServer, sandbox: Sandbox, redis: Redis, tmp_path: Path) -> AsyncIterator[BrokerStage]:
    for name, key in (("cluster", public(CLUSTER_KEY)), ("bundle", public(MESH_KEY, use="jwt-svid"))):
        (tmp_path / f"{name}.json").write_text(httpx2.Response(200, json={"keys": [key]}).text)
    more = MORE.format(ci=ci.key_set["issuer"], audience=AUDIENCE, kubernetes=KUBERNETES)
    async with open_stage(sandbox, redis, tmp_path, more=more) as stage:
        yield stage


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as client:
        yield client


def token(claims: dict[str, Any], *, key: RSAKey | ECKey | OctKey = CI_KEY, alg: str = "RS256", **header: Any) -> str:
    """Sign what an issuer would; claims and members of the header that are None are left out."""
    now = int(time.time())
    said = present({"iat": now, "nbf": now, "exp": now + 300, "aud": AUDIENCE, **claims})
    return jwt.encode(present({"alg": alg, "kid": key.kid, **header}), said, key, algorithms=[alg], registry=ANY)


def of_ci(stage: BrokerStage, **changes: Any) -> dict[str, Any]:
    """As GitHub Actions writes it."""
    good = {"iss": ci_of(stage), "sub": "repo:acme/etl:environment:prod", "repository_owner": "acme"}
    return {**good, "run_attempt": 1, "protected": True, "jti": "always-the-same", **changes}


def ci_of(stage: BrokerStage) -> str:
    (issuer,) = [issuer for issuer in stage.broker.settings.issuer if issuer.id == "ci"]
    return str(issuer.issuer)


async def sign_in(
    http: httpx2.AsyncClient, stage: BrokerStage, client_id: str, assertion: str, kind: str = JWT_BEARER
) -> httpx2.Response:
    form = {"grant_type": "client_credentials", "scope": "system/Patient.rs", "resource": stage.base}
    proof = {"client_id": client_id, "client_assertion": assertion, "client_assertion_type": kind}
    return await http.post(f"{stage.public_url}/oauth/token", data={**form, **proof})


async def test_a_ci_job_reads_patients_with_its_token_as_often_as_it_likes(
    stage: BrokerStage, http: httpx2.AsyncClient, ci: KeyServer
) -> None:
    assertion = token(of_ci(stage))
    answers = [await sign_in(http, stage, "etl", assertion) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    bearer = {"Authorization": f"Bearer {answers[1].json()['access_token']}"}

    assert (await http.get(f"{stage.base}/Patient?_count=1", headers=bearer)).status_code == 200
    assert ci.fetches == ["/.well-known/openid-configuration", "/jwks"]


async def test_a_service_account_of_kubernetes_is_known_by_a_key_file(
    stage: BrokerStage, http: httpx2.AsyncClient
) -> None:
    claims = {"iss": KUBERNETES, "sub": "system:serviceaccount:ehr:reports", "aud": [AUDIENCE]}
    in_cluster = {"namespace": "ehr", "serviceaccount": {"name": "reports", "uid": "0-0"}}
    assertion = token({**claims, "kubernetes.io": in_cluster, "exp": int(time.time()) + 3600}, key=CLUSTER_KEY)

    assert (await sign_in(http, stage, "cluster-job", assertion)).status_code == 200


@pytest.mark.parametrize("kind", [JWT_BEARER, JWT_SPIFFE])
async def test_a_jwt_svid_needs_no_iss(stage: BrokerStage, http: httpx2.AsyncClient, kind: str) -> None:
    svid = token({"sub": "spiffe://example.org/ns/ehr/sa/reports"}, key=MESH_KEY, alg="ES256", typ="JOSE")

    assert (await sign_in(http, stage, "mesh-job", svid, kind)).status_code == 200


NOW = int(time.time())
BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another issuer": ({"iss": "https://ci.example"}, {}, "iss is not the one of issuer ci"),
    "no iss": ({"iss": None}, {}, "iss is not the one of issuer ci"),
    "another audience": ({"aud": "https://sts.example"}, {}, "aud is not the one of issuer ci"),
    "the audience among others": ({"aud": [AUDIENCE, "https://sts.example"]}, {}, "aud is not the one of issuer ci"),
    "no aud": ({"aud": None}, {}, "aud is not the one of issuer ci"),
    "another subject": ({"sub": "repo:acme/etl:ref:refs/heads/main"}, {}, "sub is not the app's workload"),
    "a longer subject": ({"sub": "repo:acme/etl:environment:prod:x"}, {}, "sub is not the app's workload"),
    "another owner": ({"sub": "repo:evil/etl:environment:prod"}, {}, "sub is not the app's workload"),
    "two segments for one *": ({"sub": "repo:acme/e/tl:environment:prod"}, {}, "sub is not the app's workload"),
    "no segment for the *": ({"sub": "repo:acme/:environment:prod"}, {}, "sub is not the app's workload"),
    "another separator": ({"sub": "repo:acme:etl:environment:prod"}, {}, "sub is not the app's workload"),
    "no sub": ({"sub": None}, {}, "sub is not the app's workload"),
    "sub a list": ({"sub": ["repo:acme/etl:environment:prod"]}, {}, "sub is not the app's workload"),
    "another claim": ({"repository_owner": "evil"}, {}, "a claim of the token is not"),
    "a claim missing": ({"repository_owner": None}, {}, "a claim of the token is not"),
    "a claim in a list": ({"repository_owner": ["acme"]}, {}, "a claim of the token is not"),
    "true for 1": ({"run_attempt": True}, {}, "a claim of the token is not"),
    "1 for true": ({"protected": 1}, {}, "a claim of the token is not"),
    "text for 1": ({"run_attempt": "1"}, {}, "a claim of the token is not"),
    "expired": ({"exp": NOW - 60}, {}, "has expired"),
    "no exp": ({"exp": None}, {}, "no usable exp"),
    "not yet": ({"nbf": NOW + 600}, {}, "nbf is not a time in the past"),
    "from the future": ({"iat": NOW + 600}, {}, "iat is not a time in the past"),
    "no iat": ({"iat": None}, {}, "no iat, or lives longer than 3600 s"),
    "lives too long": ({"exp": NOW + 4000}, {}, "lives longer than 3600 s"),
    "lives too long, and is nearly over": ({"iat": NOW - 3600, "exp": NOW + 300}, {}, "lives longer than 3600 s"),
    "another algorithm": ({}, {"alg": "RS384"}, "alg is not one of RS256"),
    "HS256": ({}, {"alg": "HS256", "key": OctKey.import_key("k" * 32, {"kid": "ci"})}, "alg is not one of RS256"),
    "another key": ({}, {"key": OTHER}, "does not verify"),
    "another issuer's key": ({}, {"key": CLUSTER_KEY}, "issuer ci has no key of the assertion's kid"),
    "its own key": ({}, {"key": OTHER, "jwk": public(OTHER)}, "does not verify"),
    "an access token": ({}, {"typ": "at+jwt"}, "typ is not JWT"),
    "no kid": ({}, {"kid": None}, "has no kid"),
    "endless": ({"pad": "p" * 9000}, {}, "longer than 8192"),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_token_that_is_not_the_workloads_proves_nothing(
    stage: BrokerStage, http: httpx2.AsyncClient, case: str
) -> None:
    """CA-09, OA-03, OA-13, OA-26."""
    claims, signing, cause = BAD[case]
    assertion = token(of_ci(stage, **claims), **signing)
    with nothing_sent(stage.sandbox), audited(stage, "app.authenticate", "denied", cause, hides=[assertion]):
        answer = await sign_in(http, stage, "etl", assertion)

    assert_oauth_error(answer, 401, "invalid_client", hides=[assertion, cause])


@pytest.mark.parametrize("client_id", ["cluster-job", "mesh-job", "reports", "growth-chart", "nobody", ""])
async def test_a_token_stands_for_its_own_app_alone(
    stage: BrokerStage, http: httpx2.AsyncClient, client_id: str
) -> None:
    """OA-12."""
    assertion = token(of_ci(stage))
    with nothing_sent(stage.sandbox), audited(stage, "app.authenticate", "denied", "", hides=[assertion]):
        answer = await sign_in(http, stage, client_id, assertion)

    assert_oauth_error(answer, 401, "invalid_client", hides=[assertion])


@pytest.mark.parametrize("kind", ["", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"])
async def test_the_type_of_an_assertion_is_said(stage: BrokerStage, http: httpx2.AsyncClient, kind: str) -> None:
    """CA-08."""
    with audited(stage, "app.authenticate", "denied", "client_assertion_type is missing, or of another type"):
        answer = await sign_in(http, stage, "etl", token(of_ci(stage)), kind)

    assert_oauth_error(answer, 401, "invalid_client")


async def test_an_issuer_that_is_away_is_bridged_with_the_keys_it_had(
    stage: BrokerStage, http: httpx2.AsyncClient, ci: KeyServer
) -> None:
    async def status(ahead: int) -> int:
        stage.clock.advance(ahead)
        now = int(stage.clock())
        return (await sign_in(http, stage, "etl", token(of_ci(stage, iat=now, nbf=now, exp=now + 300)))).status_code

    assert await status(0) == 200
    ci.status = 500
    assert [await status(301), await status(3000)] == [200, 200]
    with audited(stage, "app.authenticate", "denied", "the JWK Set of issuer ci could not be read"):
        assert await status(600) == 401
