"""How apps prove themselves, as `broker.toml` says it: what fits together, what is pinned, what is refused."""

import base64
import hashlib
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey
from pydantic import ValidationError

from broker.settings import AppSettings, IssuerSettings, Settings
from broker.settings.proof import Workload
from broker.settings.proof_rules import expiring_secrets, without_proxy
from tests.docs.pages import read
from tests.settings.files import GOOD, HASH, NOW, faults_of, load_text

KEY = ECKey.generate_key("P-384", {"kid": "k"}).as_dict(private=False)
THUMBPRINT = "b" * 43
WORKLOAD = {"issuer": "k8s", "subject": "system:serviceaccount:ehr:reports"}
PROOFS: dict[str, Any] = {
    "secret": [{"hash": HASH, "expires": date(2027, 2, 1)}],
    "jwks": {"keys": [{**KEY, "x5t#S256": THUMBPRINT}]},
    "jwks_uri": "https://a.example/jwks",
    "tls_client_auth_subject_dn": "CN=etl,O=Acme",
    "tls_client_auth_san_dns": "etl.acme.example",
    "tls_client_auth_san_uri": "spiffe://example.org/etl",
    "certificate_thumbprints": [THUMBPRINT],
    "workload": WORKLOAD,
}
ALONE: dict[str, list[set[str]]] = {
    "none": [set()],
    "client_secret_basic": [{"secret"}],
    "private_key_jwt": [{"jwks"}, {"jwks_uri"}],
    "tls_client_auth": [{name} for name in PROOFS if name.startswith("tls_")],
    "self_signed_tls_client_auth": [{"jwks"}, {"certificate_thumbprints"}],
    "workload_identity": [{"workload"}],
}


def app(authentication: str, **keys: Any) -> AppSettings:
    return AppSettings.model_validate({"id": "etl", "authentication": authentication, **keys})


@given(method=st.sampled_from(sorted(ALONE)), keys=st.sets(st.sampled_from(sorted(PROOFS))))
def test_a_method_goes_with_one_of_its_own_keys_and_no_other(method: str, keys: set[str]) -> None:
    try:
        app(method, **{name: PROOFS[name] for name in keys})
    except ValidationError:
        assert keys not in ALONE[method]
    else:
        assert keys in ALONE[method]


@pytest.mark.parametrize("method", sorted(ALONE))
def test_handles_are_bound_to_a_certificate_only_of_an_app_that_authenticates_by_one(method: str) -> None:
    """RFC 8705 §3 (HB-03, OA-19)."""
    keys: dict[str, Any] = {name: PROOFS[name] for name in ALONE[method][0]}
    if method in {"tls_client_auth", "self_signed_tls_client_auth"}:
        assert app(method, **keys, certificate_bound=True).certificate_bound
    else:
        with pytest.raises(ValidationError, match="certificate_bound = true needs authentication = 'self_signed_tls"):
            app(method, **keys, certificate_bound=True)


def test_a_date_is_the_beginning_of_that_day() -> None:
    """And a time is itself, in whatever zone it is written."""
    at = [date(2027, 2, 1), datetime(2027, 2, 1, tzinfo=UTC), datetime.fromisoformat("2027-02-01T01:00:00+01:00")]
    secrets = [app("client_secret_basic", secret=[{"hash": HASH, "expires": moment}]).secret[0] for moment in at]

    assert {secret.expires_at for secret in secrets} == {1_801_440_000.0}


@pytest.mark.parametrize(
    ("expires", "warnings"),
    [
        ("2026-12-07", []),
        ("2026-12-06T23:59:59Z", ["app nightly: secret 00000000 expires in 14 days. Fix: broker apps secret"]),
        ("2026-11-25", ["app nightly: secret 00000000 expires in 2 days. Fix: broker apps secret"]),
        ("2026-11-23T00:00:00Z", ["app nightly: secret 00000000 has expired. Fix: broker apps secret"]),
        ("2020-01-01", ["app nightly: secret 00000000 has expired. Fix: broker apps secret"]),
    ],
)
def test_an_operator_is_reminded_of_a_secret_that_ends(tmp_path: Path, expires: str, warnings: list[str]) -> None:
    settings = load_text(tmp_path, GOOD.replace("expires = 2027-02-01", f"expires = {expires}"))

    assert list(expiring_secrets(settings, NOW)) == warnings


def test_an_app_with_a_certificate_needs_a_declared_proxy(tmp_path: Path) -> None:
    """OA-25."""
    text = GOOD + '\n[[app]]\nid = "etl"\nauthentication = "tls_client_auth"\ntls_client_auth_san_dns = "etl.example"\n'

    assert list(without_proxy(load_text(tmp_path, GOOD))) == []
    (fault,) = without_proxy(load_text(tmp_path, text))
    assert fault.startswith(
        "app etl authenticates by tls_client_auth, and no proxy is declared. Fix: set BROKER_CLIENT_"
    )


def test_certificates_are_known_by_thumbprints_that_jwks_name_or_hold() -> None:
    """OA-19."""
    held = {**KEY, "x5c": [base64.b64encode(b"certificate").decode(), base64.b64encode(b"its CA").decode()]}
    known = app(
        "self_signed_tls_client_auth", jwks={"keys": [{**KEY, "x5t#S256": THUMBPRINT}, held]}
    ).known_certificates

    digest = base64.urlsafe_b64encode(hashlib.sha256(b"certificate").digest()).decode().rstrip("=")
    assert known == {THUMBPRINT, digest}


@pytest.mark.parametrize(
    ("method", "keys", "says"),
    [
        ("self_signed_tls_client_auth", {"jwks": {"keys": [KEY]}}, "no key in jwks has a certificate"),
        ("self_signed_tls_client_auth", {"certificate_thumbprints": ["b" * 42]}, "should match pattern"),
        ("tls_client_auth", {"tls_client_auth_subject_dn": "CN=etl, O=Acme"}, "is not a distinguished name"),
        ("tls_client_auth", {"tls_client_auth_subject_dn": "etl"}, "is not a distinguished name"),
        (
            "tls_client_auth",
            {"tls_client_auth_subject_dn": "2.5.4.3=etl"},
            "must be written as it is compared: 'CN=etl'",
        ),
        ("tls_client_auth", {"tls_client_auth_san_dns": "*.acme.example"}, "should match pattern"),
        ("tls_client_auth", {"tls_client_auth_san_uri": "no uri"}, "should match pattern"),
        ("workload_identity", {"workload": {**WORKLOAD, "claims": {"sub": "x"}}}, "sub: checked by"),
        ("workload_identity", {"workload": {**WORKLOAD, "claims": {"a": 1.5}}}, "valid"),
        ("workload_identity", {"workload": {**WORKLOAD, "claims": {"a": ["x"]}}}, "valid"),
    ],
)
def test_what_cannot_prove_anything_is_refused(method: str, keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(says)):
        app(method, **keys)


@pytest.mark.parametrize("subject", ["*", "*/x", "repo:acme/et*", "repo:**/etl", "repo:acme/etl", "*:x"])
def test_a_wildcard_is_one_whole_segment_and_not_the_first(subject: str) -> None:
    with pytest.raises(ValidationError, match="one whole segment"):
        Workload(issuer="ci", subject=subject, wildcard=True)


def test_a_wildcard_is_meant() -> None:
    with pytest.raises(ValidationError, match=r"set wildcard = true and mean it"):
        Workload(issuer="ci", subject="repo:acme/*:environment:prod")


SEGMENT = st.text("ab*.-é", min_size=1, max_size=4)


@given(segments=st.lists(SEGMENT, min_size=3, max_size=5), other=st.text("ab*:/.", max_size=12), at=st.integers(1, 2))
def test_a_pattern_covers_what_differs_in_its_own_segment_only(segments: list[str], other: str, at: int) -> None:
    literal = [segment.replace("*", "x") for segment in segments]
    pattern = Workload(issuer="ci", subject="/".join([*literal[:at], "*", *literal[at + 1 :]]), wildcard=True)
    fits = other != "" and ":" not in other and "/" not in other

    assert pattern.covers("/".join([*literal[:at], other, *literal[at + 1 :]])) == fits
    assert not pattern.covers("/".join([*literal[:at], "y", *literal[at + 1 :]]) + "/")
    assert not pattern.covers("/".join([f"{literal[0]}y", *literal[1:]]))
    assert Workload(issuer="ci", subject="/".join(literal)).covers("/".join(literal))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"issuer": None}, "exactly one of issuer and trust_domain is needed"),
        ({"trust_domain": "example.org"}, "exactly one of issuer and trust_domain is needed"),
        ({"jwks_uri": "https://a.example", "jwks_file": "x"}, "jwks_uri and jwks_file: the keys come from one place"),
        ({"issuer": "kubernetes"}, "where are its keys?"),
        ({"issuer": None, "trust_domain": "example.org"}, "where are its keys?"),
        ({"audience": ""}, "at least 1 character"),
        ({"algorithms": []}, "at least 1 item"),
        ({"algorithms": ["HS256"]}, "Input should be 'RS256'"),
        ({"algorithms": ["none"]}, "Input should be 'RS256'"),
        ({"max_lifetime": 90_001}, "less than or equal to 90000"),
        ({"jwks": {"keys": [{"kty": "oct", "k": "x"}]}}, "JWK Set of public RSA or EC keys"),
    ],
)
def test_an_issuer_is_pinned(keys: dict[str, Any], says: str) -> None:
    """OA-26."""
    good = {"id": "ci", "issuer": "https://ci.example", "audience": "https://broker.example"}
    assert IssuerSettings.model_validate(good).discovered_at == "https://ci.example"

    with pytest.raises(ValidationError, match=re.escape(says)):
        IssuerSettings.model_validate({name: value for name, value in (good | keys).items() if value is not None})


PLAIN = "is plain http: tokens would travel readable (TK-08)"
ISSUER = """
[[issuer]]
id = "mesh"
trust_domain = "example.org"
audience = "https://broker.example"
jwks_file = "keys.json"

[[app]]
id = "etl"
authentication = "workload_identity"

[app.workload]
issuer = "mesh"
subject = "spiffe://example.org/etl"
"""


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('issuer = "mesh"', 'issuer = "ci"', "app[3].workload.issuer: there is no issuer 'ci'; defined: mesh"),
        (
            "spiffe://example.org/etl",
            "spiffe://example.org.evil/etl",
            "app[3].workload.subject: is no SPIFFE ID of the trust domain example.org",
        ),
        (
            'jwks_file = "keys.json"',
            'jwks_file = "no.json"',
            "issuer[1].jwks_file: no.json does not exist. Fix: name a file that holds a JWK Set",
        ),
        (
            'jwks_file = "keys.json"',
            'jwks_uri = "http://keys.example"',
            f"issuer[1].jwks_uri: http://keys.example {PLAIN}. Fix: use https",
        ),
    ],
)
def test_tables_fit_together(tmp_path: Path, old: str, new: str, fault: str) -> None:
    (tmp_path / "keys.json").write_text("{}")
    assert load_text(tmp_path, GOOD + ISSUER).issuer[0].jwks_file == tmp_path / "keys.json"

    (found,) = faults_of(tmp_path, GOOD + ISSUER.replace(old, new))

    assert re.sub(r"^broker\.toml:\d+: ", "", found) == fault


def test_two_issuers_do_not_share_a_name(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{}")
    twin = '[[issuer]]\nid = "mesh"\nissuer = "https://ci.example"\naudience = "x"\n'

    faults = faults_of(tmp_path, GOOD + ISSUER + twin)

    assert [fault.partition(": ")[2] for fault in faults] == [
        "issuer[1].id: issuer 'mesh' is defined more than once",
        "issuer[2].id: issuer 'mesh' is defined more than once",
    ]


def test_every_example_of_the_page_loads(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", read("docs/app-authentication.md"), re.DOTALL)
    for name in ("cluster.json", "bundle.json"):
        (tmp_path / name).write_text("{}")

    settings = load_text(tmp_path, "\n".join([GOOD, *blocks]))

    assert isinstance(settings, Settings)
    assert len(blocks) == 7
    assert {issuer.id for issuer in settings.issuer} == {"cluster", "github", "google", "aws", "azure", "mesh"}
    assert {app.authentication for app in settings.app[2:]} == {
        "tls_client_auth",
        "self_signed_tls_client_auth",
        "workload_identity",
    }
