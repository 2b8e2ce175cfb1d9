"""Proofs of possession: every rule of RFC 9449 §4.3 has a proof that breaks it alone, and no changed byte passes."""

import base64
import json
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from broker.credentials import KeyedHash
from broker.dpop import (
    ALGORITHMS,
    NONCE_SECONDS,
    OWN_ALGORITHMS,
    WINDOW_SECONDS,
    Nonces,
    hash_of,
    make_proof,
    new_key,
    verify,
)
from broker.errors import InvalidDpopProof
from broker.secret import Secret

NOW = 1_900_000_000.0
URL = "https://broker.example/fhir/sandbox/Patient/1"
TOKEN = "sbh_a-handle"
EC = ECKey.generate_key("P-256")
P384 = ECKey.generate_key("P-384")
RSA = RSAKey.generate_key(2048)
with warnings.catch_warnings(action="ignore", category=SecurityWarning):
    SMALL_RSA = RSAKey.generate_key(1024, auto_kid=False)
KEYS: dict[str, Any] = {"ES256": EC, "ES384": P384, "RS256": RSA, "PS256": RSA}


def signed(key: Any = EC, header: dict[str, Any] | None = None, payload: bytes | None = None, **claims: Any) -> str:
    """Sign a good proof; `header` and `claims` replace members, or remove them (None)."""
    good_header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": key.as_dict(private=False), **(header or {})}
    good = {"jti": "one", "htm": "GET", "htu": URL, "iat": int(NOW), "ath": hash_of(TOKEN), **claims}
    parts = (json.dumps(present(good_header)).encode(), payload or json.dumps(present(good)).encode())
    signing_input = ".".join(map(unpadded, parts))
    # The algorithm itself, because the library that it is from does not sign what no sound client would.
    signature = jws.JWSRegistry.algorithms[good_header["alg"]].sign(signing_input.encode(), key)
    return f"{signing_input}.{unpadded(signature)}"


def unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def present(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def check(*proofs: str, method: str = "GET", url: str = URL, token: str | None = TOKEN, now: float = NOW) -> Any:
    return verify(proofs, method=method, url=url, token=token, now=now)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_proof_of_each_offered_algorithm_is_good(algorithm: str) -> None:
    """(OA-23, HB-03)"""
    key = KEYS[algorithm]
    proof = check(signed(key, {"alg": algorithm}, nonce="n"))
    assert (proof.jkt, proof.jti, proof.nonce) == (key.thumbprint(), "one", "n")


@pytest.mark.parametrize(
    ("proofs", "cause"),
    [
        ([], "no DPoP proof, or more than one"),
        ([signed(), signed()], "no DPoP proof, or more than one"),
        ([""], "not a JWS"),
        (["a.b"], "not a JWS"),
        (["x" * 9000], "not a JWS"),
        (["é.é.é"], "not a JWS"),
        ([signed() + "="], "not a JWS"),
        ([signed() + "."], "not a JWS"),
        ([" " + signed()], "not a JWS"),
        (["W10.e30.AA"], "not a JWS"),
    ],
)
def test_a_request_carries_one_proof_and_it_a_jws(proofs: list[str], cause: str) -> None:
    """RFC 9449 §4.3 rules 1 and 2 (OA-23)."""
    with pytest.raises(InvalidDpopProof, match=cause):
        check(*proofs)


@pytest.mark.parametrize(
    ("key", "header", "cause"),
    [
        (EC, {"typ": "JWT"}, "typ is not dpop"),
        (EC, {"typ": None}, "typ is not dpop"),
        (EC, {"typ": "DPOP+JWT"}, "typ is not dpop"),
        (OctKey.import_key("k" * 32), {"alg": "HS256"}, "alg is not one"),
        (OKPKey.generate_key("Ed25519"), {"alg": "Ed25519"}, "alg is not one"),
        (ECKey.generate_key("P-521"), {"alg": "ES512"}, "alg is not one"),
        (EC, {"jwk": None}, "jwk is missing"),
        (EC, {"jwk": "text"}, "jwk is missing"),
        (EC, {"jwk": EC.as_dict(private=True)}, "not a public key"),
        (RSA, {"alg": "PS256", "jwk": RSA.as_dict(private=True)}, "not a public key"),
        (EC, {"jwk": P384.as_dict(private=False)}, "does not verify"),
        (EC, {"jwk": ECKey.generate_key("P-256").as_dict(private=False)}, "does not verify"),
        (EC, {"jwk": {"kty": "EC", "crv": "P-256"}}, "does not verify"),
        (EC, {"jwk": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}}, "does not verify"),
        (EC, {"jwk": {"kty": "EC", "crv": "P-256", "x": 1, "y": []}}, "does not verify"),
        (EC, {"jwk": {"kty": "oct", "crv": "P-256"}}, "does not verify"),
        (EC, {"crit": ["exp"], "exp": 1}, "does not verify"),
        (RSA, {"alg": "RS256", "jwk": EC.as_dict(private=False)}, "does not verify"),
        (SMALL_RSA, {"alg": "RS256"}, "does not verify"),
        (RSA, {"alg": "RS256", "jwk": {**RSA.as_dict(private=False), "e": RSA.as_dict()["n"]}}, "does not verify"),
    ],
)
def test_the_key_and_the_algorithm_fit(key: Any, header: dict[str, Any], cause: str) -> None:
    """RFC 9449 §4.3 rules 4 to 7 (OA-23)."""
    with pytest.raises(InvalidDpopProof, match=cause):
        check(signed(key, header))


def test_an_unsigned_proof_is_refused() -> None:
    """RFC 9449 §4.3 rule 5 (OA-23)."""
    head = unpadded(json.dumps({"typ": "dpop+jwt", "alg": "none"}).encode())
    with pytest.raises(InvalidDpopProof, match="alg is not one"):
        check(f"{head}.{signed().split('.')[1]}.")


@pytest.mark.parametrize(
    ("claims", "cause"),
    [
        ({"htm": "POST"}, "htm"),
        ({"htm": "get"}, "htm"),
        ({"htm": None}, "htm"),
        ({"htu": None}, "htu"),
        ({"htu": [URL]}, "htu"),
        ({"htu": URL.replace("/1", "/2")}, "htu"),
        ({"htu": URL + "/"}, "htu"),
        ({"htu": URL.replace("https", "http")}, "htu"),
        ({"htu": URL.replace(".example", ".example:8443")}, "htu"),
        ({"htu": URL.replace("broker", "broker@broker")}, "htu"),
        ({"htu": URL.replace(".example", ".example:x")}, "htu"),
        ({"htu": URL.replace("/Patient", "%2FPatient")}, "htu"),
        ({"htu": "https://[/"}, "htu"),
        ({"iat": int(NOW) - WINDOW_SECONDS - 1}, "iat"),
        ({"iat": int(NOW) + WINDOW_SECONDS + 1}, "iat"),
        ({"iat": True}, "iat"),
        ({"iat": None}, "iat"),
        ({"iat": str(int(NOW))}, "iat"),
        ({"iat": 10**400}, "iat"),
        ({"iat": float("nan")}, "iat"),
        ({"jti": None}, "jti"),
        ({"jti": ""}, "jti"),
        ({"jti": "j" * 257}, "jti"),
        ({"jti": "\ud800"}, "jti"),
        ({"ath": None}, "ath"),
        ({"ath": hash_of("another")}, "ath"),
        ({"ath": hash_of(TOKEN) + "="}, "ath"),
    ],
)
def test_a_proof_is_of_this_request_this_moment_and_this_token(claims: dict[str, Any], cause: str) -> None:
    """RFC 9449 §4.3 rules 3 and 8 to 12 (OA-23, HB-03)."""
    with pytest.raises(InvalidDpopProof, match=f"^{cause} is"):
        check(signed(**claims))


@pytest.mark.parametrize("payload", [b"[]", b"null", b"{", b"\xff", b"[" * 100_000])
def test_what_is_signed_is_an_object(payload: bytes) -> None:
    """(OA-23)"""
    with pytest.raises(InvalidDpopProof):
        check(signed(payload=payload))


@pytest.mark.parametrize(
    "htu",
    [
        URL + "?name=x",
        URL + "#part",
        URL.upper().replace("/FHIR/SANDBOX/PATIENT", "/fhir/sandbox/Patient"),
        URL.replace(".example", ".example:443"),
        URL.replace("Patient", "%50atient"),
    ],
)
def test_a_url_may_be_written_in_any_equal_way(htu: str) -> None:
    """RFC 9449 §4.3 rule 9, RFC 3986 §6.2 (OA-23)."""
    assert check(signed(htu=htu)).jti == "one"


def test_without_an_access_token_no_ath_is_asked_for() -> None:
    """RFC 9449 §5 (OA-23)."""
    assert check(signed(ath=None), token=None).jkt == EC.thumbprint()


@pytest.mark.parametrize("algorithm", OWN_ALGORITHMS)
def test_what_the_broker_signs_verifies(algorithm: Any) -> None:
    """(OA-23)"""
    key = new_key(algorithm)
    proof = make_proof(key, method="GET", url=URL + "?a=b", now=NOW, jti="j", nonce="n", token=Secret(TOKEN))
    assert (check(proof).jti, check(proof).nonce) == ("j", "n")
    assert repr(key) == "Secret(•••)"
    assert "d" not in json.loads(base64.urlsafe_b64decode(proof.split(".")[0] + "=="))["jwk"]


GOOD = {algorithm: signed(KEYS[algorithm], {"alg": algorithm}) for algorithm in ALGORITHMS}


@given(
    algorithm=st.sampled_from(ALGORITHMS),
    place=st.floats(0, 1, exclude_max=True),
    other=st.characters(max_codepoint=255),
)
def test_no_changed_byte_of_a_proof_passes(algorithm: str, place: float, other: str) -> None:
    """(OA-23, HB-03)"""
    proof = GOOD[algorithm]
    index = int(place * len(proof))
    changed = proof[:index] + other + proof[index + 1 :]
    if changed == proof:
        assert check(changed).jti == "one"
        return
    with pytest.raises(InvalidDpopProof):
        check(changed)


@given(place=st.floats(0, 1, exclude_max=True), other=st.sampled_from("abcXYZ019-_~"))
def test_no_changed_byte_of_a_request_passes(place: float, other: str) -> None:
    """(OA-23, HB-03)"""
    whole = f"GET {URL} {TOKEN}"
    index = int(place * len(whole))
    changed = whole[:index] + other + whole[index + 1 :]
    method, _, rest = changed.partition(" ")
    url, _, token = rest.partition(" ")
    host = slice(len("GET "), len("GET https://broker.example"))
    if changed[host].lower() == whole[host].lower() and changed[: host.start] + changed[host.stop :] == (
        whole[: host.start] + whole[host.stop :]
    ):
        assert check(GOOD["ES256"], method=method, url=url, token=token).jti == "one"  # as it was, but for case
        return
    with pytest.raises(InvalidDpopProof):
        check(GOOD["ES256"], method=method, url=url, token=token)


@given(text=st.text(max_size=60))
def test_whatever_is_sent_is_refused_in_its_own_words(text: str) -> None:
    """(OA-23)"""
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": {"kty": "EC", "crv": "P-256", "x": text, "y": text}}
    head = unpadded(json.dumps(header).encode())
    for proof in (text, f"{text}.{text}.{text}", f"{head}.e30.AAAA"):
        with pytest.raises(InvalidDpopProof) as caught:
            check(proof)
        assert len(text) < 10 or text not in caught.value.detail


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["kty", "crv", "x", "y", "n", "e", "use", "key_ops", "alg", "kid", "x5c", "x5t", "d"])


@given(algorithm=st.sampled_from(ALGORITHMS), header=st.dictionaries(NAMES, JSON), members=st.dictionaries(NAMES, JSON))
def test_whatever_stands_in_a_header_is_refused_in_its_own_words(
    algorithm: str, header: dict[str, Any], members: dict[str, Any]
) -> None:
    """(OA-23)"""
    head, payload, signature = GOOD[algorithm].split(".")
    jwk = {**KEYS[algorithm].as_dict(private=False), **members}
    changed = unpadded(json.dumps({**header, "typ": "dpop+jwt", "alg": algorithm, "jwk": jwk}).encode())
    if changed != head:
        with pytest.raises(InvalidDpopProof):
            check(f"{changed}.{payload}.{signature}")


class TestNonces:
    @pytest.fixture
    def nonces(self) -> Nonces:
        return Nonces(KeyedHash(b"k" * 32))

    def test_a_nonce_is_the_same_on_every_replica_and_unlike_under_another_key(self, nonces: Nonces) -> None:
        """(OA-23)"""
        assert nonces.current(NOW) == Nonces(KeyedHash(b"k" * 32)).current(NOW)
        assert nonces.current(NOW) != Nonces(KeyedHash(b"x" * 32)).current(NOW)
        assert len(nonces.current(NOW)) == 43

    @pytest.mark.parametrize(
        ("later", "good"),
        [(0, True), (NONCE_SECONDS, True), (2 * NONCE_SECONDS, False), (-NONCE_SECONDS, False)],
    )
    def test_a_nonce_rotates(self, nonces: Nonces, later: int, *, good: bool) -> None:
        """RFC 9449 §8.2 (OA-23)."""
        assert nonces.accepts(nonces.current(NOW), NOW + later) is good

    @pytest.mark.parametrize("nonce", [None, "", "x", "é", "\ud800"])
    def test_another_nonce_is_none(self, nonces: Nonces, nonce: str | None) -> None:
        """(OA-23)"""
        assert not nonces.accepts(nonce, NOW)
