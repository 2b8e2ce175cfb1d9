"""Who a client is: secrets as Epic wants them, and every rule of `private_key_jwt` broken one at a time."""

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

import httpx2
import pytest
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

from tests.sandbox.oauth.driver import ORIGIN, Driver

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-384", {"kid": "ec"})
STRANGER = ECKey.generate_key("P-384", {"kid": "ec"})


@pytest.mark.parametrize("secret", ["plain", "this-is-the-secret-2/7", "a+b c%20:d", "ünïcödé"])
async def test_basic_credentials_are_form_encoded_first(ehr: Driver, secret: str) -> None:
    """EP-13, TK-07."""
    await ehr.register("app: 1", client_secret=secret, grant_types=["client_credentials"], scopes="system/*.rs")
    assert (await by_basic(ehr, quote_plus("app: 1"), quote_plus(secret))).status_code == 200


async def test_a_secret_that_is_not_encoded_is_another_secret(ehr: Driver) -> None:
    """EP-13."""
    await ehr.register(client_secret="a+b", grant_types=["client_credentials"], scopes="system/*.rs")
    answer = await by_basic(ehr, "app", "a+b")
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert answer.headers["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize("secret", ["this-is-the-secret-2/7", "a+b", "50%", "a b", "x:y"])
async def test_how_basic_credentials_are_written_is_registered_and_the_other_way_is_refused(
    ehr: Driver, secret: str
) -> None:
    """(Q1, TK-07, EP-13)"""
    written = {"raw": ("app", secret), "rfc6749": ("app", quote_plus(secret))}
    for right, wrong in (("raw", "rfc6749"), ("rfc6749", "raw")):
        await ehr.register(
            client_secret=secret, basic_encoding=right, grant_types=["client_credentials"], scopes="system/*.rs"
        )
        assert (await by_basic(ehr, *written[right])).status_code == 200
        assert (await by_basic(ehr, *written[wrong])).status_code == 401


async def test_a_raw_client_id_is_not_decoded(ehr: Driver) -> None:
    """(Q1)"""
    await ehr.register("a%20b", client_secret="s", basic_encoding="raw", grant_types=["client_credentials"],
                       scopes="system/*.rs")  # fmt: skip
    assert (await by_basic(ehr, "a%20b", "s")).status_code == 200
    assert (await by_basic(ehr, "a%2520b", "s")).status_code == 401


@pytest.mark.parametrize(
    ("rule", "grant_type", "named", "status"),
    [
        ("optional", "refresh_token", False, 400),
        ("optional", "refresh_token", True, 400),
        ("refresh", "refresh_token", False, 401),
        ("refresh", "refresh_token", True, 400),
        ("refresh", "authorization_code", False, 400),
        ("always", "authorization_code", False, 401),
        ("always", "authorization_code", True, 400),
        ("never", "authorization_code", True, 401),
        ("never", "refresh_token", False, 400),
    ],
)
async def test_a_client_id_in_the_body_can_be_demanded_or_forbidden(
    ehr: Driver, rule: str, grant_type: str, named: bool, status: int  # noqa: FBT001  # a table column
) -> None:  # fmt: skip
    """400 is for the missing code or token, 401 for the body (Q2, TK-04)."""
    await ehr.register(client_id_in_body=rule)
    form = {"grant_type": grant_type, **({"client_id": "app"} if named else {})}
    assert (await ehr.token(**form)).status_code == status


@pytest.mark.parametrize(
    ("assertion_aud", "aud"),
    [
        ("token_endpoint", f"{ORIGIN}/oauth2/token"),
        ("issuer", f"{ORIGIN}/oauth2"),
        ("https://proxy.example/token", "https://proxy.example/token"),
    ],
)
async def test_the_audience_of_assertions_is_registered(ehr: Driver, assertion_aud: str, aud: str) -> None:
    """(Q3, CA-05)"""
    await register_backend(ehr, assertion_aud=assertion_aud)
    for other in (f"{ORIGIN}/oauth2/token", f"{ORIGIN}/oauth2", "https://proxy.example/token"):
        answer = await by_assertion(ehr, signed(ehr, claims={"aud": other, "jti": other}))
        assert answer.status_code == (200 if other == aud else 401)


@pytest.mark.parametrize(("key", "alg"), [(RSA, "RS256"), (RSA, "RS384"), (EC, "ES384")])
async def test_the_algorithm_of_assertions_can_be_registered(ehr: Driver, key: RSAKey | ECKey, alg: str) -> None:
    """RS256 is Epic's (CA-09, EP-04)."""
    for registered in ("RS256", "RS384", "ES384"):
        await register_backend(ehr, token_endpoint_auth_signing_alg=registered)
        header = {"alg": alg, "kid": key.kid}
        answer = await by_assertion(ehr, signed(ehr, key=key, header=header, claims={"jti": registered}))
        assert answer.status_code == (200 if alg == registered else 401)


@pytest.mark.parametrize(
    ("authentication", "form", "header", "status", "error"),
    [
        ("client_secret_basic", {}, None, 401, "invalid_client"),
        ("client_secret_basic", {"client_id": "app"}, None, 401, "invalid_client"),
        ("client_secret_basic", {"client_id": "app", "client_secret": "s"}, None, 401, "invalid_client"),
        ("client_secret_basic", {}, "Basic !", 401, "invalid_client"),
        ("client_secret_basic", {}, "Basic YXBw", 401, "invalid_client"),
        ("client_secret_basic", {}, "Bearer YXBwOnM=", 401, "invalid_client"),
        ("client_secret_basic", {}, "Basic YXBwOng=", 401, "invalid_client"),
        ("client_secret_basic", {"client_id": "another"}, "Basic YXBwOnM=", 401, "invalid_client"),
        ("client_secret_basic", {"client_secret": "s"}, "Basic YXBwOnM=", 400, "invalid_request"),
        ("client_secret_basic", {"client_assertion": "a.b.c"}, "Basic YXBwOnM=", 400, "invalid_request"),
        ("client_secret_basic", {}, "Basic YXBwOnM=", 200, None),
        ("client_secret_basic", {"client_id": "app"}, "Basic YXBwOnM=", 200, None),
        ("client_secret_post", {}, "Basic YXBwOnM=", 401, "invalid_client"),
        ("client_secret_post", {"client_id": "app", "client_secret": "x"}, None, 401, "invalid_client"),
        ("client_secret_post", {"client_secret": "s"}, None, 401, "invalid_client"),
        ("client_secret_post", {"client_id": "app", "client_secret": "s"}, None, 200, None),
    ],
)
async def test_one_registered_method_is_accepted_and_nothing_else(
    ehr: Driver, authentication: str, form: dict[str, str], header: str | None, status: int, error: str | None
) -> None:
    """(TK-06)"""
    await ehr.register(
        authentication=authentication, client_secret="s", grant_types=["client_credentials"], scopes="system/*.rs"
    )
    answer = await ehr.http.post(
        "/oauth2/token",
        data={"grant_type": "client_credentials", "scope": "system/*.rs", **form},
        headers={"Authorization": header} if header else {},
    )
    assert (answer.status_code, answer.json().get("error")) == (status, error)


async def test_a_public_client_names_itself_and_proves_nothing(ehr: Driver) -> None:
    await ehr.register(authentication="none")
    form = {"grant_type": "refresh_token", "refresh_token": "canary-rt-made-up"}
    assert (await ehr.http.post("/oauth2/token", data=form)).json()["error"] == "invalid_client"
    answer = await ehr.http.post("/oauth2/token", data={**form, "client_id": "app"})
    assert answer.json()["error"] == "invalid_grant"


@pytest.mark.parametrize(("key", "alg"), [(RSA, "RS384"), (EC, "ES384")])
async def test_a_good_assertion_is_accepted_once(ehr: Driver, key: RSAKey | ECKey, alg: str) -> None:
    """CA-09."""
    await register_backend(ehr)
    assertion = signed(ehr, key=key, header={"alg": alg, "kid": key.kid})
    assert (await by_assertion(ehr, assertion)).status_code == 200
    again = await by_assertion(ehr, assertion)
    assert (again.status_code, again.json()["error"]) == (401, "invalid_client")
    assert again.json()["error_description"] == "client_assertion: jti was used before"


async def test_a_jti_may_come_back_when_its_assertion_has_expired(ehr: Driver) -> None:
    await register_backend(ehr)
    for _ in range(2):
        assert (await by_assertion(ehr, signed(ehr))).status_code == 200
        ehr.now.seconds += 301


@pytest.mark.parametrize(
    ("header", "claims", "says"),
    [
        ({"typ": None}, {}, "typ must be JWT"),
        ({"typ": "at+jwt"}, {}, "typ must be JWT"),
        ({"alg": "RS256"}, {}, "alg must be one of RS384, ES384"),
        ({"alg": "none"}, {}, "alg must be one of RS384, ES384"),
        ({"kid": None}, {}, "kid is missing"),
        ({"kid": "other"}, {}, "holds 0 keys of this kid"),
        ({"kid": "twice"}, {}, "holds 2 keys of this kid"),
        ({"kid": "rsa"}, {}, "signature or key is not good"),
        ({"kid": "for-encryption"}, {}, "signature or key is not good"),
        ({"kid": "wrong-curve"}, {}, "signature or key is not good"),
        ({"jku": "https://keys.example/other"}, {}, "jku is not the registered"),
        ({}, {"iss": "another"}, "iss and sub"),
        ({}, {"iss": None}, "iss and sub"),
        ({}, {"aud": f"{ORIGIN}/oauth2"}, "aud must be"),
        ({}, {"aud": [f"{ORIGIN}/oauth2/token"]}, "aud must be"),
        ({}, {"aud": None}, "aud must be"),
        ({}, {"exp": None}, "whole numbers"),
        ({}, {"exp": "soon"}, "whole numbers"),
        ({}, {"exp": True}, "whole numbers"),
        ({}, {"exp": 0}, "exp must be ahead"),
        ({}, {"exp": 301}, "exp must be ahead"),
        ({}, {"iat": 1}, "iat is in the future"),
        ({}, {"nbf": 1}, "nbf is in the future"),
        ({}, {"iat": -61}, "iat and exp are more than five minutes apart"),
        ({}, {"nbf": -61}, "nbf and exp are more than five minutes apart"),
        ({}, {"jti": None}, "jti must be a string"),
        ({}, {"jti": 7}, "jti must be a string"),
        ({}, {"jti": ""}, "jti must be a string"),
        ({}, {"jti": "j" * 152}, "jti must be a string"),
    ],
)
async def test_an_assertion_that_breaks_a_rule_is_refused_and_told_which(
    ehr: Driver, header: dict[str, Any], claims: dict[str, Any], says: str
) -> None:
    """BS-09, CA-09."""
    await register_backend(ehr)
    answer = await by_assertion(ehr, signed(ehr, header=header, claims=claims))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert says in answer.json()["error_description"]


@pytest.mark.parametrize("claims", [{"jti": "j" * 151}, {"exp": 300}, {"iat": -60, "nbf": -60}, {"iat": None}])
async def test_an_assertion_at_the_edge_of_a_rule_is_accepted(ehr: Driver, claims: dict[str, Any]) -> None:
    await register_backend(ehr)
    assert (await by_assertion(ehr, signed(ehr, claims=claims))).status_code == 200


async def test_a_signature_of_another_key_is_refused(ehr: Driver) -> None:
    await register_backend(ehr)
    answer = await by_assertion(ehr, signed(ehr, key=STRANGER))
    assert "signature or key is not good" in answer.json()["error_description"]


@pytest.mark.parametrize("assertion", ["nonsense", "a.b.c", "bnVsbA.bnVsbA.AA", "..", "W10.W10.AA"])
async def test_an_assertion_that_is_no_jwt_is_refused(ehr: Driver, assertion: str) -> None:
    await register_backend(ehr)
    assert (await by_assertion(ehr, assertion)).json()["error"] == "invalid_client"


@pytest.mark.parametrize("assertion_type", ["", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"])
async def test_another_assertion_type_is_refused(ehr: Driver, assertion_type: str) -> None:
    """BS-09, CA-08."""
    await register_backend(ehr)
    answer = await by_assertion(ehr, signed(ehr), client_assertion_type=assertion_type)
    assert answer.json()["error"] == "invalid_client"


async def test_a_client_id_beside_an_assertion_must_match_it(ehr: Driver) -> None:
    """OA-12."""
    await register_backend(ehr)
    assert (await by_assertion(ehr, signed(ehr), client_id="another")).json()["error"] == "invalid_client"
    assert (await by_assertion(ehr, signed(ehr), client_id="app")).status_code == 200


async def test_an_rsa_key_that_is_too_short_is_refused(ehr: Driver) -> None:
    modulus = base64.urlsafe_b64encode(((1 << 1023) + 1).to_bytes(128)).rstrip(b"=").decode()
    await register_backend(ehr, {"kty": "RSA", "kid": "small", "n": modulus, "e": "AQAB"})
    answer = await by_assertion(ehr, signed(ehr, key=RSA, header={"alg": "RS384", "kid": "small"}))
    assert "signature or key is not good" in answer.json()["error_description"]


async def register_backend(ehr: Driver, *more: Mapping[str, Any], **members: Any) -> None:
    rsa, ec = RSA.as_dict(private=False), EC.as_dict(private=False)
    keys = [
        rsa, ec, {**ec, "kid": "twice"}, {**ec, "kid": "twice"}, {**ec, "kid": "for-encryption", "use": "enc"},
        {**ECKey.generate_key("P-256").as_dict(private=False), "kid": "wrong-curve"}, *more,
    ]  # fmt: skip
    await ehr.register(
        authentication="private_key_jwt",
        jwks={"keys": keys},
        grant_types=["client_credentials"],
        scopes="system/*.rs",
        **members,
    )


def signed(
    ehr: Driver, *, key: RSAKey | ECKey = EC, header: Mapping[str, Any] | None = None,
    claims: Mapping[str, Any] | None = None,
) -> str:  # fmt: skip
    """Return an assertion with members changed, or left out when None; times are seconds from now."""
    now = int(ehr.now())
    times = {name: now + value for name, value in (claims or {}).items() if name in TIMES and type(value) is int}
    good = {"iss": "app", "sub": "app", "aud": f"{ORIGIN}/oauth2/token", "exp": now + 240, "iat": now, "jti": "once"}
    whole = without_none({**good, **(claims or {}), **times})
    head = without_none({"typ": "JWT", "alg": "ES384", "kid": "ec", **(header or {})})
    payload = json.dumps(whole).encode()
    if head["alg"] in ({"RS256", "RS384"} if isinstance(key, RSAKey) else {"ES384"}):
        return jws.serialize_compact(head, payload, key, algorithms=[head["alg"]])
    return ".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (json.dumps(head).encode(), payload, b"x")
    )


TIMES = {"exp", "iat", "nbf"}


def without_none(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


async def by_assertion(ehr: Driver, assertion: str, **more: str) -> httpx2.Response:
    form = {
        "grant_type": "client_credentials",
        "scope": "system/*.rs",
        "client_assertion_type": TYPE,
        "client_assertion": assertion,
    }
    return await ehr.http.post("/oauth2/token", data={**form, **more})


async def by_basic(ehr: Driver, user: str, password: str) -> httpx2.Response:
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    return await ehr.http.post(
        "/oauth2/token",
        data={"grant_type": "client_credentials", "scope": "system/*.rs"},
        headers={"Authorization": f"Basic {credentials}"},
    )
