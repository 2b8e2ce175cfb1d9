import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey
from joserfc.jws import JWSRegistry

from broker.egress import ClientCertificate
from broker.ehr.client_auth import (
    Authenticate,
    KeyElsewhere,
    OwnKey,
    assertion_audience,
    client_secret_basic,
    client_secret_post,
    mtls_aliases,
    mutual_tls,
    one_of,
    private_key_jwt,
    public,
)
from broker.ehr.endpoints import Endpoints
from broker.errors import EhrHeldBack, KeyUnavailable
from broker.secret import Secret

TOKEN_ENDPOINT = "https://auth.example/oauth2/token?tenant=1"
NOW = 1_800_000_000.75
KEYS: dict[str, ECKey | RSAKey] = {
    "ES384": ECKey.generate_key("P-384", {"kid": "ec"}, private=True),
    "RS384": RSAKey.generate_key(2048, {"kid": "rsa"}, private=True),
}


def signing(algorithm: Any = "ES384", now: float = NOW, **options: Any) -> Authenticate:
    key = KEYS[algorithm]
    return private_key_jwt("broker", OwnKey(key, algorithm), lambda: now, kid=key.kid or "", **options)


async def assertion(algorithm: Any = "ES384", now: float = NOW) -> str:
    return (await signing(algorithm, now)(TOKEN_ENDPOINT)).fields["client_assertion"]


def part(text: str, index: int) -> dict[str, Any]:
    encoded = text.split(".")[index]
    decoded = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    assert isinstance(decoded, dict)
    return decoded


async def test_a_public_client_names_itself_in_the_body() -> None:
    """TK-03."""
    proof = await public("broker")(TOKEN_ENDPOINT)

    assert (proof.headers, proof.fields) == ({}, {"client_id": "broker"})


@pytest.mark.parametrize(
    ("client_id", "secret", "pair"),
    [
        ("broker", "secret", "broker:secret"),
        ("broker", "this-is-the-secret-2/7", "broker:this-is-the-secret-2%2F7"),
        ("broker", "a+b c", "broker:a%2Bb%20c"),
        ("a:b", "c:d", "a%3Ab:c%3Ad"),
        ("broker", "100%", "broker:100%25"),
        ("broker", "pässwörd€", "broker:p%C3%A4ssw%C3%B6rd%E2%82%AC"),
        ("broker", "-._~", "broker:-._~"),
        ("broker", "=&?#", "broker:%3D%26%3F%23"),
    ],
)
async def test_basic_credentials_are_form_encoded_first(client_id: str, secret: str, pair: str) -> None:
    """TK-07, Q1, EP-13, RFC 6749 §2.3.1; the second is Epic's own example."""
    proof = await client_secret_basic(client_id, Secret(secret))(TOKEN_ENDPOINT)

    assert proof.headers == {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    assert proof.fields == {}


async def test_an_assertion_is_the_only_authentication() -> None:
    """TK-04, TK-06, CA-08."""
    proof = await signing()(TOKEN_ENDPOINT)

    assert proof.headers == {}
    assert list(proof.fields) == ["client_assertion_type", "client_assertion"]
    assert proof.fields["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@pytest.mark.parametrize(("algorithm", "kid"), [("ES384", "ec"), ("RS384", "rsa")])
async def test_an_assertion_names_algorithm_key_and_type(algorithm: str, kid: str) -> None:
    """CA-02, CA-03, EP-07: no `jku`."""
    assert part(await assertion(algorithm), 0) == {"alg": algorithm, "kid": kid, "typ": "JWT"}


async def test_an_assertion_claims_exactly_this() -> None:
    """CA-04, CA-05, CA-06, CA-07, CA-11, EP-04."""
    claims = part(await assertion(), 1)
    jti = claims.pop("jti")

    assert claims == {
        "iss": "broker",
        "sub": "broker",
        "aud": TOKEN_ENDPOINT,
        "iat": 1_799_999_970,
        "nbf": 1_799_999_970,
        "exp": 1_800_000_240,
    }
    assert isinstance(jti, str)
    assert 32 <= len(jti) <= 151


@pytest.mark.parametrize("skew", [-30, 0, 30])
async def test_an_assertion_is_good_for_an_ehr_whose_clock_differs(skew: int) -> None:
    """CA-06, CA-11, EP-04: `iat` is not ahead, `exp` at most five minutes ahead, nor the span longer."""
    claims = part(await assertion(), 1)
    theirs = int(NOW) + skew

    assert claims["iat"] <= theirs
    assert theirs < claims["exp"] <= theirs + 300
    assert claims["exp"] - claims["iat"] <= 300
    assert all(type(claims[name]) is int for name in ("iat", "nbf", "exp"))


async def test_a_thousand_assertions_have_a_thousand_ids() -> None:
    """CA-01, CA-07."""
    authenticate = signing()
    sent = [(await authenticate(TOKEN_ENDPOINT)).fields["client_assertion"] for _ in range(1000)]

    assert len({part(one, 1)["jti"] for one in sent}) == 1000


@pytest.mark.parametrize("algorithm", ["ES384", "RS384"])
async def test_an_assertion_verifies_with_the_published_key_alone(algorithm: str) -> None:
    """RG-08."""
    public_keys = KeySet.import_key_set({"keys": [key.as_dict(private=False) for key in KEYS.values()]})

    decoded = jwt.decode(await assertion(algorithm), public_keys, algorithms=["ES384", "RS384"])

    assert decoded.claims["sub"] == "broker"


async def test_an_authentication_does_not_show_what_it_carries() -> None:
    basic = await client_secret_basic("broker", Secret("canary"))(TOKEN_ENDPOINT)
    signed = await signing()(TOKEN_ENDPOINT)

    assert repr(basic) == "Authentication(headers=['Authorization'], fields=[])"
    assert repr(signed) == "Authentication(headers=[], fields=['client_assertion', 'client_assertion_type'])"


@pytest.mark.parametrize(
    ("secret", "pair"),
    [
        ("this-is-the-secret-2/7", "broker:this-is-the-secret-2/7"),
        ("a+b c", "broker:a+b c"),
        ("c:d", "broker:c:d"),
        ("100%", "broker:100%"),
        ("pässwörd€", "broker:pässwörd€"),
    ],
)
async def test_raw_basic_credentials_are_sent_as_they_are(secret: str, pair: str) -> None:
    """TK-07, NC-09: what Oracle, SMART's example and Inferno do (Q1)."""
    proof = await client_secret_basic("broker", Secret(secret), encoding="raw")(TOKEN_ENDPOINT)

    assert proof.headers == {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    assert proof.fields == {}


@pytest.mark.parametrize("secret", ["secret", "A-z_0.9~"])
async def test_the_two_encodings_are_the_same_for_unreserved_characters(secret: str) -> None:
    """TK-07."""
    raw, encoded = (client_secret_basic("broker", Secret(secret), encoding=one) for one in ("raw", "rfc6749"))

    assert await raw(TOKEN_ENDPOINT) == await encoded(TOKEN_ENDPOINT)


async def test_a_posted_secret_stands_in_the_body_and_nowhere_else() -> None:
    """OA-05, TK-06."""
    proof = await client_secret_post("broker", Secret("s/1"))(TOKEN_ENDPOINT)

    assert (proof.headers, proof.fields) == ({}, {"client_id": "broker", "client_secret": "s/1"})


METHODS = {
    "basic": client_secret_basic("broker", Secret("s")),
    "post": client_secret_post("broker", Secret("s")),
    "assertion": signing(),
    "tls": mutual_tls("broker", ClientCertificate(Path("c.pem"), Path("k.pem")), {}),
    "public": public("broker"),
}
NAMES_ITSELF = {"post", "tls", "public"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("named", "on_code", "on_refresh"),
    [("never", False, False), ("refresh", False, True), ("always", True, True)],
)
async def test_client_id_is_in_the_body_only_where_the_method_or_the_ehr_wants_it(
    method: str, named: Any, *, on_code: bool, on_refresh: bool
) -> None:
    """TK-04, OA-12 (Q2)."""
    authenticate = replace(METHODS[method], named=named)

    for refreshing, wanted in ((False, on_code), (True, on_refresh)):
        fields = (await authenticate(TOKEN_ENDPOINT, refreshing=refreshing)).fields
        assert fields.get("client_id") == ("broker" if wanted or method in NAMES_ITSELF else None)


@pytest.mark.parametrize("method", METHODS)
async def test_a_request_carries_one_way_to_authenticate(method: str) -> None:
    """TK-06."""
    proof = await METHODS[method](TOKEN_ENDPOINT, refreshing=True)
    ways = ["Authorization" in proof.headers, *(n in proof.fields for n in ("client_secret", "client_assertion"))]

    assert sum([*ways, proof.identity is not None]) == (0 if method == "public" else 1)


@pytest.mark.parametrize(
    ("setting", "issuer", "aud"),
    [
        ("token_endpoint", "https://auth.example", TOKEN_ENDPOINT),
        ("issuer", "https://auth.example", "https://auth.example"),
        ("issuer", None, TOKEN_ENDPOINT),
        ("https://proxied.example/token", "https://auth.example", "https://proxied.example/token"),
    ],
)
async def test_the_audience_of_an_assertion_is_what_the_ehr_wants(setting: str, issuer: str | None, aud: str) -> None:
    """CA-05 (Q3); an EHR that names no issuer is told the URL."""
    wanted = assertion_audience(setting, Endpoints(TOKEN_ENDPOINT, issuer=issuer))
    authenticate = signing(audience=wanted)

    assert part((await authenticate(TOKEN_ENDPOINT)).fields["client_assertion"], 1)["aud"] == aud


async def test_jku_is_the_registered_url_as_it_is() -> None:
    """CA-03."""
    url = "https://broker.example/jwks/epic"
    authenticate = signing("RS384", jku=url)

    assert part((await authenticate(TOKEN_ENDPOINT)).fields["client_assertion"], 0)["jku"] == url


async def test_a_repeated_request_has_an_assertion_of_its_own() -> None:
    """CA-01: also on a retry at the same second."""
    authenticate = METHODS["assertion"]
    first, again = [(await authenticate(TOKEN_ENDPOINT, refreshing=True)).fields["client_assertion"] for _ in range(2)]

    assert part(first, 1)["jti"] != part(again, 1)["jti"]


async def test_a_client_that_shows_a_certificate_names_itself_and_uses_the_endpoint_that_asks_for_one() -> None:
    """OA-19, RFC 8705 §2 and §5."""
    endpoints = Endpoints(
        TOKEN_ENDPOINT,
        revocation_endpoint="https://auth.example/revoke",
        mtls_endpoint_aliases={
            "token_endpoint": "https://mtls.example/token",
            "introspection_endpoint": "https://mtls.example/introspect",
        },
    )
    identity = ClientCertificate(Path("c.pem"), Path("k.pem"))
    authenticate = mutual_tls("broker", identity, mtls_aliases(endpoints))

    proof = await authenticate(TOKEN_ENDPOINT)
    assert (proof.headers, proof.fields) == ({}, {"client_id": "broker"})
    assert (proof.identity, proof.url) == (identity, "https://mtls.example/token")
    assert (await authenticate("https://auth.example/revoke")).url is None


@pytest.mark.parametrize("method", ["basic", "post", "assertion"])
def test_a_way_to_authenticate_does_not_show_its_secret(method: str) -> None:
    authenticate: Authenticate = METHODS[method]

    assert repr(authenticate) == "Authenticate(client_id='broker', named='never')"


@pytest.mark.parametrize("algorithm", ["ES384", "RS384"])
async def test_an_assertion_is_the_same_wherever_its_key_is(algorithm: Any) -> None:
    """RG-07: whoever holds the key gets the bytes to sign and gives the signature of RFC 7515 §5.1."""
    key = KEYS[algorithm]
    signed: list[bytes] = []

    async def sign_bytes(message: bytes) -> bytes:
        signed.append(message)
        return JWSRegistry.algorithms[algorithm].sign(message, key)

    elsewhere = private_key_jwt("broker", KeyElsewhere(sign_bytes, algorithm), lambda: NOW, kid=key.kid or "")
    there = (await elsewhere(TOKEN_ENDPOINT)).fields["client_assertion"]
    here = await assertion(algorithm)

    assert part(there, 0) == part(here, 0)
    assert {**part(there, 1), "jti": ""} == {**part(here, 1), "jti": ""}
    assert part(there, 1)["jti"] != part(here, 1)["jti"]
    assert jwt.decode(there, key, algorithms=[algorithm]).claims == part(there, 1)
    assert there.encode().startswith(signed[0] + b".")


async def test_without_a_signature_nothing_is_to_be_sent() -> None:
    """RG-07."""

    async def sign_bytes(_: bytes) -> bytes:
        raise KeyUnavailable("the service does not answer")

    with pytest.raises(KeyUnavailable):
        await private_key_jwt("broker", KeyElsewhere(sign_bytes, "ES384"), lambda: NOW, kid="ec")(TOKEN_ENDPOINT)


async def test_a_guard_is_asked_before_each_credential_and_stops_the_next_one() -> None:
    """RG-11: what may not be sent any more is not, whichever credential it is the turn of."""
    asked: list[str] = []

    def check() -> None:
        asked.append("asked")
        if len(asked) == 2:
            raise EhrHeldBack("too late", retry_after=1.0)

    secrets = [client_secret_post("broker", Secret(text)) for text in ("first", "second")]
    first, second = one_of(secrets).guarded(check).in_turn()

    assert (await first(TOKEN_ENDPOINT)).fields["client_secret"] == "first"
    with pytest.raises(EhrHeldBack):
        await second(TOKEN_ENDPOINT)
