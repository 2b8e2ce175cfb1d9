import base64
import hmac
import json
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

from broker.egress import Egress
from broker.ehr.discovery import Discovery, Endpoints
from broker.ehr.id_token import Identity, IdTokens, check_claims, parse_jwks, verify_signature
from broker.errors import EhrMisbehaved
from broker.secret import Secret
from tests.ehr.server import ScriptedServer, reply

NOW = 1_800_000_000
ISSUER = "https://auth.example/"
RSA = RSAKey.generate_key(2048, {"kid": "rsa"}, private=True)
EC = ECKey.generate_key("P-384", {"kid": "ec"}, private=True)
STRANGER = RSAKey.generate_key(2048, {"kid": "rsa"}, private=True)
JWKS = {"keys": [RSA.as_dict(private=False), EC.as_dict(private=False)]}
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "sub": "user-1",
    "aud": "broker",
    "exp": NOW + 300,
    "iat": NOW,
    "nonce": "the-nonce",
    "fhirUser": "https://ehr.example/r4/Practitioner/1",
}


def token(
    claims: dict[str, Any] = CLAIMS, key: RSAKey | ECKey = RSA, algorithm: str = "RS384", **header: object
) -> Secret:
    return Secret(jwt.encode({"alg": algorithm, "kid": key.kid, **header}, claims, key, algorithms=[algorithm]))


def unsigned(header: dict[str, Any], signature: bytes = b"") -> Secret:
    parts = [json.dumps(header).encode(), json.dumps(CLAIMS).encode(), signature]
    return Secret(".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts))


def check(claims: dict[str, Any], nonce: str | None = "the-nonce") -> None:
    check_claims(claims, issuer=ISSUER, client_id="broker", nonce=Secret(nonce) if nonce else None, now=NOW + 0.9)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(RSA, "RS256"), (RSA, "RS384"), (RSA, "RS512"), (RSA, "PS256"), (RSA, "PS384"), (EC, "ES384")],
)
def test_a_signature_by_one_of_the_issuers_keys_verifies(key: RSAKey | ECKey, algorithm: str) -> None:
    """ID-04."""
    assert verify_signature(token(CLAIMS, key, algorithm), parse_jwks(JWKS)) == CLAIMS


def test_a_token_without_kid_verifies_if_the_issuer_has_one_key() -> None:
    bare = Secret(jwt.encode({"alg": "RS256"}, CLAIMS, RSA))

    assert verify_signature(bare, parse_jwks({"keys": [RSA.as_dict(private=False)]})) == CLAIMS


def test_a_token_signed_by_a_stranger_is_refused() -> None:
    with pytest.raises(EhrMisbehaved, match="BadSignatureError"):
        verify_signature(token(key=STRANGER), parse_jwks(JWKS))


def test_a_changed_claim_is_refused() -> None:
    header, _, signature = token().reveal().split(".")
    claims = base64.urlsafe_b64encode(json.dumps({**CLAIMS, "sub": "user-2"}).encode()).rstrip(b"=").decode()

    with pytest.raises(EhrMisbehaved, match="BadSignatureError"):
        verify_signature(Secret(f"{header}.{claims}.{signature}"), parse_jwks(JWKS))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "HS256", "EdDSA", "ES512", "RS1", None, 5, []])
@pytest.mark.parametrize("signature", [b"", b"x"])
def test_an_algorithm_that_is_not_listed_is_refused(algorithm: object, signature: bytes) -> None:
    """ID-04, OA-26."""
    with pytest.raises(EhrMisbehaved, match="ID-01"):
        verify_signature(unsigned({"alg": algorithm, "kid": "rsa"}, signature), parse_jwks(JWKS))


@pytest.mark.parametrize("secret", [RSA.as_pem(private=False), RSA.as_der(private=False)])
def test_the_public_key_is_no_shared_secret(secret: bytes) -> None:
    """OA-26: algorithm confusion."""
    signed = unsigned({"alg": "HS256", "kid": "rsa"}).reveal().rstrip(".")
    signature = base64.urlsafe_b64encode(hmac.digest(secret, signed.encode(), "sha256")).rstrip(b"=").decode()

    with pytest.raises(EhrMisbehaved, match="UnsupportedAlgorithmError"):
        verify_signature(Secret(f"{signed}.{signature}"), parse_jwks(JWKS))


def test_an_algorithm_of_another_key_type_is_refused() -> None:
    with pytest.raises(EhrMisbehaved, match="ID-01"):
        verify_signature(unsigned({"alg": "ES384", "kid": "rsa"}, b"x" * 96), parse_jwks(JWKS))


@pytest.mark.parametrize(
    "header",
    [
        {"jku": "https://evil.example/jwks"},
        {"x5u": "https://evil.example/cert"},
        {"jwk": STRANGER.as_dict(private=False)},
        {"x5c": ["MIIB"]},
    ],
)
def test_a_key_that_the_token_itself_names_is_not_used(header: dict[str, Any]) -> None:
    """OA-26."""
    with pytest.raises(EhrMisbehaved, match="ID-01"):
        verify_signature(token(CLAIMS, STRANGER, "RS384", **header), parse_jwks(JWKS))


def test_a_critical_header_nobody_understands_is_refused() -> None:
    with pytest.raises(EhrMisbehaved, match="ID-01"):
        verify_signature(unsigned({"alg": "RS256", "kid": "rsa", "crit": ["x"], "x": 1}), parse_jwks(JWKS))


@pytest.mark.parametrize("kid", ["unknown", "RSA", ""])
def test_an_unknown_key_id_is_refused(kid: str) -> None:
    with pytest.raises(EhrMisbehaved, match="ID-01"):
        verify_signature(token(kid=kid), parse_jwks(JWKS))


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "a.b.c.d.e", "{}", "e30.e30.e30", "W10.e30.x"])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(EhrMisbehaved, match="ID-01"):
        verify_signature(Secret(text), parse_jwks(JWKS))


def test_good_claims_pass() -> None:
    check(CLAIMS)


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": ["broker"]},
        {"aud": ["other", "broker"], "azp": "broker"},
        {"azp": "broker"},
        {"exp": NOW - 59},
        {"exp": NOW + 0.5},
        {"iat": NOW + 60},
        {"nbf": NOW + 60},
        {"iat": NOW - 86_400},
    ],
)
def test_unusual_but_sound_claims_pass(changed: dict[str, Any]) -> None:
    check({**CLAIMS, **changed})


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://auth.example"},
        {"iss": "https://AUTH.example/"},
        {"iss": "https://evil.example/"},
        {"iss": ""},
        {"iss": None},
        {"iss": [ISSUER]},
        {"sub": None},
        {"sub": ""},
        {"sub": 5},
        {"aud": "other"},
        {"aud": "Broker"},
        {"aud": "broker "},
        {"aud": []},
        {"aud": ["other"]},
        {"aud": None},
        {"aud": {"broker": 1}},
        {"aud": ["broker", "other"]},
        {"aud": ["broker", "other"], "azp": "other"},
        {"aud": ["broker", "other"], "azp": ["broker"]},
        {"exp": NOW - 60},
        {"exp": 0},
        {"exp": None},
        {"exp": "9999999999"},
        {"exp": True},
        {"exp": float("nan")},
        {"iat": NOW + 61},
        {"iat": None},
        {"iat": "1800000000"},
        {"nbf": NOW + 61},
        {"nonce": "another"},
        {"nonce": ""},
        {"nonce": None},
        {"nonce": ["the-nonce"]},
        {"nonce": "\ud800"},
    ],
)
def test_bad_claims_are_refused(changed: dict[str, Any]) -> None:
    """ID-01, ID-03."""
    with pytest.raises(EhrMisbehaved, match="ID-01"):
        check({**CLAIMS, **changed})


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "exp", "iat", "nonce"])
def test_a_missing_claim_is_refused(name: str) -> None:
    with pytest.raises(EhrMisbehaved, match="ID-01"):
        check({key: value for key, value in CLAIMS.items() if key != name})


@pytest.mark.parametrize("nonce", [{}, {"nonce": "any"}])
def test_a_nonce_is_looked_at_only_if_one_was_sent(nonce: dict[str, str]) -> None:
    check({**{key: value for key, value in CLAIMS.items() if key != "nonce"}, **nonce}, nonce=None)


def test_a_refusal_does_not_quote_the_claims() -> None:
    with pytest.raises(EhrMisbehaved) as refused:
        check({**CLAIMS, "iss": "canary", "nonce": "canary"})

    assert "canary" not in refused.value.detail


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"keys": []},
        {"keys": {}},
        {"keys": [None, 5, "key", {}]},
        {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]},
        {"keys": [OKPKey.generate_key("Ed25519", private=False).as_dict()]},
        {"keys": [{"kty": "RSA"}, {"kty": "RSA", "n": 5, "e": "AQAB"}, {"kty": "EC", "crv": "P-0"}]},
        {"keys": [{"kty": "EC", "crv": "P-256", "x": "!", "y": "!"}]},
    ],
)
def test_a_key_set_without_a_usable_key_is_refused(document: dict[str, Any] | None) -> None:
    """ID-02."""
    with pytest.raises(EhrMisbehaved, match="no usable key"):
        parse_jwks(document)


def test_unusable_keys_do_not_spoil_the_others() -> None:
    """OA-11."""
    keys = [{"kty": "post-quantum"}, {"kty": "RSA", "n": "!"}, {"kty": "oct", "k": "x"}, *JWKS["keys"]]

    assert [key.kid for key in parse_jwks({"keys": keys}).keys] == ["rsa", "ec"]


class Issuer:
    """An EHR's OpenID Provider, on the scripted server."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.url = f"{server.url}/oauth/"
        server.answers["/keys"] = reply(json.dumps(JWKS))
        self.configure(issuer=self.url, jwks_uri=f"{server.url}/keys")

    def configure(self, **configuration: str) -> None:
        self.server.answers["/oauth/.well-known/openid-configuration"] = reply(json.dumps(configuration))


@pytest.fixture
def issuer(ehr: ScriptedServer) -> Issuer:
    return Issuer(ehr)


async def verify(egress: Egress, provider: Issuer, claims: dict[str, Any], **endpoints: Any) -> Identity:
    id_tokens = IdTokens(egress, Discovery(egress, lambda: NOW), lambda: NOW)
    return await id_tokens.verify(
        token(claims),
        endpoints=Endpoints(**{"token_endpoint": "https://x.example", "issuer": provider.url, **endpoints}),
        fhir_base=provider.url.rstrip("/"),
        client_id="broker",
        nonce=Secret("the-nonce"),
    )


async def test_keys_are_found_by_the_issuers_configuration(egress: Egress, issuer: Issuer) -> None:
    """ID-02."""
    identity = await verify(egress, issuer, {**CLAIMS, "iss": issuer.url})

    assert identity == Identity(issuer.url, "user-1", "https://ehr.example/r4/Practitioner/1")
    assert [request.target for request in issuer.server.requests] == [
        "/oauth/.well-known/openid-configuration",
        "/keys",
    ]


async def test_without_an_announced_issuer_the_fhir_base_is_asked(egress: Egress, issuer: Issuer) -> None:
    identity = await verify(egress, issuer, {**CLAIMS, "iss": issuer.url}, issuer=None)

    assert identity.issuer == issuer.url


async def test_the_key_set_of_the_smart_configuration_is_second_choice(egress: Egress, issuer: Issuer) -> None:
    issuer.configure(issuer=issuer.url)

    identity = await verify(egress, issuer, {**CLAIMS, "iss": issuer.url}, jwks_uri=f"{issuer.server.url}/keys")

    assert identity.subject == "user-1"


async def test_the_issuer_is_taken_from_the_configuration_and_not_from_the_token(
    egress: Egress, issuer: Issuer
) -> None:
    """ID-03: the trailing slash counts."""
    with pytest.raises(EhrMisbehaved, match="ID-01"):
        await verify(egress, issuer, {**CLAIMS, "iss": issuer.url.rstrip("/")})


async def test_a_configuration_without_issuer_accepts_no_token(egress: Egress, issuer: Issuer) -> None:
    issuer.configure(jwks_uri=f"{issuer.server.url}/keys")

    for iss in (issuer.url, "None", ""):
        with pytest.raises(EhrMisbehaved):
            await verify(egress, issuer, {**CLAIMS, "iss": iss})


@pytest.mark.parametrize("answer", [reply("", status="404 Not Found"), reply("<html>"), reply('{"keys":[]}')])
async def test_an_issuer_without_keys_accepts_no_token(egress: Egress, issuer: Issuer, answer: bytes) -> None:
    issuer.server.answers["/keys"] = answer

    with pytest.raises(EhrMisbehaved, match="no usable key"):
        await verify(egress, issuer, {**CLAIMS, "iss": issuer.url})


@pytest.mark.parametrize(
    ("claims", "fhir_user"),
    [
        ({"fhirUser": "Patient/1"}, "Patient/1"),
        ({"fhirUser": None, "profile": "Practitioner/2"}, "Practitioner/2"),
        ({"fhirUser": None}, None),
        ({"fhirUser": ["Patient/1"]}, None),
        ({"fhirUser": 5}, None),
    ],
)
async def test_the_user_is_fhir_user_or_the_older_profile(
    egress: Egress, issuer: Issuer, claims: dict[str, Any], fhir_user: str | None
) -> None:
    """SC-11."""
    identity = await verify(egress, issuer, {**CLAIMS, "iss": issuer.url, **claims})

    assert identity.fhir_user == fhir_user
