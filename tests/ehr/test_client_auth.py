import base64
import json
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

from broker.ehr.client_auth import client_secret_basic, private_key_jwt, public
from broker.secret import Secret

TOKEN_ENDPOINT = "https://auth.example/oauth2/token?tenant=1"
NOW = 1_800_000_000.75
KEYS: dict[str, ECKey | RSAKey] = {
    "ES384": ECKey.generate_key("P-384", {"kid": "ec"}, private=True),
    "RS384": RSAKey.generate_key(2048, {"kid": "rsa"}, private=True),
}


def assertion(algorithm: Any = "ES384", now: float = NOW) -> str:
    authenticate = private_key_jwt("broker", KEYS[algorithm], algorithm, lambda: now)
    return authenticate(TOKEN_ENDPOINT).fields["client_assertion"]


def part(text: str, index: int) -> dict[str, Any]:
    encoded = text.split(".")[index]
    decoded = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    assert isinstance(decoded, dict)
    return decoded


def test_a_public_client_names_itself_in_the_body() -> None:
    """TK-03."""
    proof = public("broker")(TOKEN_ENDPOINT)

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
def test_basic_credentials_are_form_encoded_first(client_id: str, secret: str, pair: str) -> None:
    """TK-07, Q1, RFC 6749 §2.3.1; the second is Epic's own example."""
    proof = client_secret_basic(client_id, Secret(secret))(TOKEN_ENDPOINT)

    assert proof.headers == {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    assert proof.fields == {}


def test_an_assertion_is_the_only_authentication() -> None:
    """TK-04, TK-06, CA-08."""
    proof = private_key_jwt("broker", KEYS["ES384"], "ES384", lambda: NOW)(TOKEN_ENDPOINT)

    assert proof.headers == {}
    assert list(proof.fields) == ["client_assertion_type", "client_assertion"]
    assert proof.fields["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@pytest.mark.parametrize(("algorithm", "kid"), [("ES384", "ec"), ("RS384", "rsa")])
def test_an_assertion_names_algorithm_key_and_type(algorithm: str, kid: str) -> None:
    """CA-02, CA-03: no `jku`."""
    assert part(assertion(algorithm), 0) == {"alg": algorithm, "kid": kid, "typ": "JWT"}


def test_an_assertion_claims_exactly_this() -> None:
    """CA-04 to CA-07, CA-11."""
    claims = part(assertion(), 1)
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
def test_an_assertion_is_good_for_an_ehr_whose_clock_differs(skew: int) -> None:
    """CA-06, CA-11: `iat` is not ahead, `exp` at most five minutes ahead, and the span at most five minutes."""
    claims = part(assertion(), 1)
    theirs = int(NOW) + skew

    assert claims["iat"] <= theirs
    assert theirs < claims["exp"] <= theirs + 300
    assert claims["exp"] - claims["iat"] <= 300
    assert all(type(claims[name]) is int for name in ("iat", "nbf", "exp"))


def test_a_thousand_assertions_have_a_thousand_ids() -> None:
    """CA-01."""
    authenticate = private_key_jwt("broker", KEYS["ES384"], "ES384", lambda: NOW)
    sent = [authenticate(TOKEN_ENDPOINT).fields["client_assertion"] for _ in range(1000)]

    assert len({part(one, 1)["jti"] for one in sent}) == 1000


@pytest.mark.parametrize("algorithm", ["ES384", "RS384"])
def test_an_assertion_verifies_with_the_published_key_alone(algorithm: str) -> None:
    """RG-08."""
    public_keys = KeySet.import_key_set({"keys": [key.as_dict(private=False) for key in KEYS.values()]})

    decoded = jwt.decode(assertion(algorithm), public_keys, algorithms=["ES384", "RS384"])

    assert decoded.claims["sub"] == "broker"


def test_an_authentication_does_not_show_what_it_carries() -> None:
    basic = client_secret_basic("broker", Secret("canary"))(TOKEN_ENDPOINT)
    signed = private_key_jwt("broker", KEYS["ES384"], "ES384", lambda: NOW)(TOKEN_ENDPOINT)

    assert repr(basic) == "Authentication(headers=['Authorization'], fields=[])"
    assert repr(signed) == "Authentication(headers=[], fields=['client_assertion', 'client_assertion_type'])"
