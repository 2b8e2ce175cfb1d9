import base64
import hmac
import json
from dataclasses import replace
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

from broker.egress import Egress
from broker.ehr.discovery import Discovery
from broker.ehr.endpoints import Endpoints
from broker.ehr.id_token import (
    Expected,
    Identity,
    IdTokens,
    check_claims,
    verify_signature,
)
from broker.ehr.issuer_keys import AGAIN_SECONDS, KEPT_SECONDS, MOST_SETS, IssuerKeys, parse_jwks
from broker.ehr.unverified import unverified_claims
from broker.errors import EhrMisbehaved
from broker.profiles import profile
from broker.secret import Secret
from tests.ehr.known import RememberedEndpoints, site
from tests.ehr.server import ScriptedServer, reply, scripted_server

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


def check(claims: dict[str, Any], nonce: str | None = "the-nonce", **more: Any) -> str | None:
    sent = Secret(nonce) if nonce else None
    expected = Expected(**{"issuers": (ISSUER,), "client_id": "broker", "nonce": sent} | more)
    return check_claims(claims, expected, now=NOW + 0.9)


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
    """ID-01."""
    with pytest.raises(EhrMisbehaved, match="BadSignatureError"):
        verify_signature(token(key=STRANGER), parse_jwks(JWKS))


def test_a_changed_claim_is_refused() -> None:
    """ID-01."""
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
    """ID-04, OA-26."""
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
    """ID-01, OA-27."""
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
        {"azp": "other"},
        {"azp": None},
        {"aud": ["broker"], "azp": "other"},
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
    """ID-01, ID-03, OA-27, OT-04."""
    with pytest.raises(EhrMisbehaved, match="ID-01"):
        check({**CLAIMS, **changed})


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "exp", "iat", "nonce"])
def test_a_missing_claim_is_refused(name: str) -> None:
    """ID-01, OA-27."""
    with pytest.raises(EhrMisbehaved, match="ID-01"):
        check({key: value for key, value in CLAIMS.items() if key != name})


@pytest.mark.parametrize("nonce", [{}, {"nonce": "any"}])
def test_a_nonce_is_looked_at_only_if_one_was_sent(nonce: dict[str, str]) -> None:
    check({**{key: value for key, value in CLAIMS.items() if key != "nonce"}, **nonce}, nonce=None)


@pytest.mark.parametrize(
    ("changed", "exception"),
    [
        ({}, None),
        ({"aud": ["the EHR's own", "broker"], "azp": "broker"}, None),
        ({"aud": "the EHR's own"}, "id_token_audiences"),
        ({"iss": "https://auth.example/token"}, "id_token_issuers"),
    ],
)
def test_what_only_the_profile_accepts_is_accepted_and_named(changed: dict[str, Any], exception: str | None) -> None:
    """EP-18, OR-07, OT-04: so that each use can be audited."""
    said = check({**CLAIMS, **changed}, issuers=(ISSUER, "https://auth.example/token"), audiences=("the EHR's own",))

    assert said == exception


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"iss": "https://auth.example"}, "ID-01"),
        ({"aud": "another"}, "ID-01"),
        ({"aud": ["the EHR's own", "another"]}, "azp"),
        ({"aud": "the EHR's own", "azp": "another"}, "azp"),
    ],
)
def test_an_exception_of_the_profile_opens_nothing_else(changed: dict[str, Any], rule: str) -> None:
    """OT-04, ID-01, OA-27."""
    with pytest.raises(EhrMisbehaved, match=rule):
        check({**CLAIMS, **changed}, audiences=("the EHR's own",))


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", "a.e30", "e30.W10.x", "e30.!.x", "e30.é.x"])
def test_what_is_no_token_claims_nothing(text: str) -> None:
    assert unverified_claims(Secret(text)) is None


def test_claims_can_be_read_before_they_are_verified() -> None:
    """ID-08: for refusing a refresh by, and for nothing else."""
    assert unverified_claims(token(key=STRANGER)) == CLAIMS


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
    discovery = Discovery(egress, lambda: NOW, RememberedEndpoints(lambda: NOW))
    accepted = profile("generic").model_copy(update={"id_token_issuers": endpoints.pop("issuers", ())})
    return await IdTokens(discovery, IssuerKeys(egress, lambda: NOW), lambda: NOW).verify(
        token(claims),
        site=replace(site(endpoints.pop("fhir_base", "https://ehr.example/r4")), profile=accepted),
        endpoints=Endpoints(**{"token_endpoint": "https://x.example", "issuer": provider.url, **endpoints}),
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
    """ID-02."""
    base = f"{issuer.server.url}/oauth"
    issuer.configure(issuer=base, jwks_uri=f"{issuer.server.url}/keys")

    identity = await verify(egress, issuer, {**CLAIMS, "iss": base}, issuer=None, fhir_base=base)

    assert identity.issuer == base


async def test_the_key_set_of_the_smart_configuration_is_second_choice(egress: Egress, issuer: Issuer) -> None:
    issuer.configure(issuer=issuer.url)

    identity = await verify(egress, issuer, {**CLAIMS, "iss": issuer.url}, jwks_uri=f"{issuer.server.url}/keys")

    assert identity.subject == "user-1"


async def test_an_ehr_does_not_vouch_for_another_ones_issuer(egress: Egress, issuer: Issuer) -> None:
    """Where that one's configuration names no keys, those that the EHR names are not used instead (ID-02, ID-03)."""
    issuer.configure(issuer=issuer.url)
    async with scripted_server({"/keys": reply(json.dumps(JWKS))}) as evil:
        with pytest.raises(EhrMisbehaved, match="names no jwks_uri"):
            await verify(egress, issuer, {**CLAIMS, "iss": issuer.url}, jwks_uri=f"{evil.url}/keys")
        assert evil.requests == []
        own = await verify(
            egress,
            issuer,
            {**CLAIMS, "iss": issuer.url},
            jwks_uri=f"{evil.url}/keys",
            fhir_base=f"{issuer.server.url}/r4",
        )

    assert own.subject == "user-1"


@pytest.mark.parametrize(
    ("announced", "issuers", "exception"),
    [
        ("{url}", (), None),
        ("{url}", ("https://old.example",), None),
        ("https://auth.example", ("{url}",), "id_token_issuers"),
        (None, ("https://old.example", "{url}"), "id_token_issuers"),
    ],
)
async def test_the_issuer_is_the_announced_one_or_one_that_the_profile_names(
    egress: Egress, issuer: Issuer, announced: str | None, issuers: tuple[str, ...], exception: str | None
) -> None:
    """(ID-03) (OR-07) (EP-18): its own openid-configuration is read, wherever that is."""
    identity = await verify(
        egress,
        issuer,
        {**CLAIMS, "iss": issuer.url},
        issuer=announced and announced.format(url=issuer.url),
        issuers=tuple(one.format(url=issuer.url) for one in issuers),
    )

    assert (identity.issuer, identity.exception) == (issuer.url, exception)


@pytest.mark.parametrize("iss", ["{slashless}", "{url}/", "{url}x", "https://evil.example/", "", None, 5, ["{url}"]])
async def test_nothing_is_fetched_from_an_issuer_that_only_the_token_names(
    egress: Egress, issuer: Issuer, iss: object
) -> None:
    """(ID-03) (NC-13): the trailing slash counts."""
    said = iss.format(url=issuer.url, slashless=issuer.url.rstrip("/")) if isinstance(iss, str) else iss

    with pytest.raises(EhrMisbehaved, match="not one that is expected"):
        await verify(egress, issuer, {**CLAIMS, "iss": said}, issuers=("https://auth.example/oauth/",))

    assert issuer.server.requests == []


async def test_a_configuration_that_names_another_issuer_accepts_no_token(egress: Egress, issuer: Issuer) -> None:
    """(ID-03) (OA-17)."""
    issuer.configure(issuer=issuer.url.rstrip("/"), jwks_uri=f"{issuer.server.url}/keys")

    for named in (issuer.url, issuer.url.rstrip("/")):
        with pytest.raises(EhrMisbehaved, match="ID-03"):
            await verify(egress, issuer, {**CLAIMS, "iss": named})


async def test_a_configuration_without_issuer_accepts_no_token(egress: Egress, issuer: Issuer) -> None:
    issuer.configure(jwks_uri=f"{issuer.server.url}/keys")

    for iss in (issuer.url, "None", ""):
        with pytest.raises(EhrMisbehaved):
            await verify(egress, issuer, {**CLAIMS, "iss": iss})


@pytest.mark.parametrize("answer", [reply("", status="404 Not Found"), reply("<html>"), reply('{"keys":[]}')])
async def test_an_issuer_without_keys_accepts_no_token(egress: Egress, issuer: Issuer, answer: bytes) -> None:
    """ID-02."""
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


# Key sets are kept


class Clock:
    """Time that a test moves."""

    now = float(NOW)

    def __call__(self) -> float:
        return self.now


async def found(keys: IssuerKeys, issuer: Issuer, kid: str | None) -> list[str]:
    return [str(key.kid) for key in (await keys.find(f"{issuer.server.url}/keys", kid)).keys]


async def test_a_key_set_is_fetched_once_an_hour(egress: Egress, issuer: Issuer) -> None:
    """ID-02."""
    clock = Clock()
    keys = IssuerKeys(egress, clock)
    for moved, fetched in ((0, 1), (KEPT_SECONDS - 1, 1), (1, 2)):
        clock.now += moved
        for kid in ("rsa", "ec", None):
            assert await found(keys, issuer, kid) == ["rsa", "ec"]
        assert len(issuer.server.requests) == fetched


async def test_an_unknown_key_is_looked_for_once_a_minute(egress: Egress, issuer: Issuer) -> None:
    """ID-02: a key that the issuer just began to use is found; a made-up one makes no flood of requests."""
    clock = Clock()
    keys = IssuerKeys(egress, clock)
    await found(keys, issuer, "rsa")
    new = RSAKey.generate_key(2048, {"kid": "new"}, private=True)
    issuer.server.answers["/keys"] = reply(json.dumps({"keys": [new.as_dict(private=False)]}))

    assert await found(keys, issuer, "new") == ["rsa", "ec"]
    clock.now += AGAIN_SECONDS
    assert await found(keys, issuer, "new") == ["new"]
    for _ in range(5):
        await found(keys, issuer, "made up")
    assert len(issuer.server.requests) == 2


async def test_only_so_many_key_sets_are_kept(egress: Egress, issuer: Issuer) -> None:
    keys = IssuerKeys(egress, Clock())
    for number in range(MOST_SETS + 1):
        issuer.server.answers[f"/keys{number}"] = reply(json.dumps(JWKS))
        await keys.find(f"{issuer.server.url}/keys{number}", "rsa")

    assert len(keys._kept) == MOST_SETS
