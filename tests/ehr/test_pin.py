import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.ehr.endpoints import Endpoints, parse_smart_configuration
from broker.ehr.pin import Move, Pin, moves, shown
from broker.origins import origin
from tests.ehr.documents import DOCUMENT

PINNED = Endpoints(
    token_endpoint="https://auth.example/token",
    authorization_endpoint="https://login.example/authorize",
    jwks_uri="https://auth.example/jwks",
    issuer="https://auth.example/oidc",
    mtls_endpoint_aliases={"token_endpoint": "https://mtls.example/token"},
)


@pytest.mark.parametrize(
    ("member", "url"),
    [
        ("token_endpoint", "https://auth.example/v2/token?tenant=1"),
        ("token_endpoint", "https://AUTH.example:443/token"),
        ("authorization_endpoint", None),
        ("jwks_uri", None),
        ("introspection_endpoint", "https://auth.example/introspect"),
        ("revocation_endpoint", "https://login.example/revoke"),
        ("pushed_authorization_request_endpoint", "https://auth.example/par"),
    ],
)
def test_what_stays_at_its_place_is_taken(member: str, url: str | None) -> None:
    """Another path, a new member at an origin in use, a member that is gone (DS-15)."""
    found = replace(PINNED, **{member: url})  # type: ignore[arg-type]  # one of the members above

    assert moves(PINNED, found) == ()
    assert Pin(PINNED, 1).meet(found, 2) == Pin(found, 2)


@pytest.mark.parametrize(
    ("member", "url", "before", "after"),
    [
        ("token_endpoint", "https://evil.example/token", "https://auth.example", "https://evil.example"),
        ("token_endpoint", "https://auth.example:8443/token", "https://auth.example", "https://auth.example:8443"),
        ("token_endpoint", "http://auth.example/token", "https://auth.example", "http://auth.example"),
        ("token_endpoint", "https://login.example/token", "https://auth.example", "https://login.example"),
        ("token_endpoint", "https://auth.example.evil.example/", "https://auth.example", None),
        ("token_endpoint", "https://auth.example@evil.example/", "https://auth.example", None),
        ("authorization_endpoint", "https://evil.example/authorize", "https://login.example", None),
        ("jwks_uri", "https://evil.example/jwks", "https://auth.example", None),
        ("introspection_endpoint", "https://evil.example/introspect", None, None),
        ("revocation_endpoint", "https://evil.example/revoke", None, None),
        ("registration_endpoint", "https://evil.example/register", None, None),
        ("management_endpoint", "https://evil.example/manage", None, None),
        ("pushed_authorization_request_endpoint", "https://evil.example/par", None, None),
        ("issuer", "https://auth.example/oidc/", "https://auth.example/oidc", "https://auth.example/oidc/"),
        ("issuer", None, "https://auth.example/oidc", None),
    ],
)
def test_what_moved_is_quarantined_and_what_is_pinned_stays_in_use(
    member: str, url: str | None, before: str | None, after: str | None
) -> None:
    """Another scheme, host or port, or another issuer (DS-15)."""
    found = replace(PINNED, **{member: url})  # type: ignore[arg-type]  # one of the members above

    pin = Pin(PINNED, 1).meet(found, 2)

    (move,) = pin.moves
    assert (move.member, move.pinned) == (member, before)
    assert after in {None, move.found}
    assert (pin.endpoints, pin.quarantined, pin.answered_at) == (PINNED, found, 2)


def test_endpoints_for_client_certificates_are_pinned_too() -> None:
    """A certificate is shown, and a token given, there as well (DS-15, OA-19)."""
    found = replace(PINNED, mtls_endpoint_aliases={"token_endpoint": "https://evil.example/token"})

    assert [move.member for move in moves(PINNED, found)] == ["mtls_endpoint_aliases.token_endpoint"]


@pytest.mark.parametrize(
    ("issuer", "moved"), [("https://auth.example/new", False), ("https://evil.example", True), ("not a url", True)]
)
def test_an_issuer_that_appears_must_lie_at_a_place_in_use(issuer: str, *, moved: bool) -> None:
    assert bool(moves(replace(PINNED, issuer=None), replace(PINNED, issuer=issuer))) == moved


def test_a_capability_statement_takes_nothing_away_from_what_the_smart_configuration_said() -> None:
    """It names no issuer; where it names another host, that is quarantined all the same (DS-11, DS-15)."""
    found = Endpoints("https://auth.example/token", source="metadata")
    moved = replace(found, token_endpoint="https://evil.example/token")

    assert Pin(PINNED, 1).meet(found, 2) == Pin(PINNED, 2)
    assert Pin(PINNED, 1).meet(moved, 2) == Pin(PINNED, 2, moved)
    assert Pin(found, 1).meet(PINNED, 2).quarantined == PINNED  # an authorization endpoint at a place nobody had seen


def test_an_approval_takes_what_was_quarantined_and_nothing_else() -> None:
    found = replace(PINNED, token_endpoint="https://new.example/token")

    assert Pin(PINNED, 1).meet(found, 2).approve() == Pin(found, 2)
    assert Pin(PINNED, 1).approve() == Pin(PINNED, 1)


def test_an_ehr_that_comes_back_to_its_place_needs_no_operator() -> None:
    moved = replace(PINNED, token_endpoint="https://new.example/token")

    assert Pin(PINNED, 1).meet(moved, 2).meet(PINNED, 3) == Pin(PINNED, 3)


def test_after_an_approval_the_old_place_is_the_strange_one() -> None:
    moved = replace(PINNED, token_endpoint="https://new.example/token")

    assert Pin(PINNED, 1).meet(moved, 2).approve().meet(PINNED, 3).moves == (
        Move("token_endpoint", "https://new.example", "https://auth.example"),
    )


@given(st.text(), st.text())
def test_comparing_never_fails_whatever_the_documents_say(one: str, other: str) -> None:
    found = replace(PINNED, token_endpoint=one, issuer=other)

    for move in moves(PINNED, found):
        assert set(str(move)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-[]:_ >")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (None, "none"),
        ("https://auth.example:443", "auth.example:443"),
        ("https://auth.example/oidc?x=canary", "auth.example"),
        ("https://[::1]:80", "[::1]:80"),
        ("https://user:canary@auth.example", "a name that cannot be shown"),
        ("canary", "a name that cannot be shown"),
        ("https://a\x1b[31m.example", "a name that cannot be shown"),
        ("https://[", "a name that cannot be shown"),
    ],
)
def test_only_hosts_are_shown(place: str | None, said: str) -> None:
    assert shown(place) == said


@pytest.mark.parametrize("url", ["", "https://[", "https://h:99999/"])
def test_what_has_no_origin_equals_no_origin(url: str) -> None:
    assert origin(url) not in {origin(member) for member in PINNED.urls().values()}


@pytest.mark.parametrize("waiting", [None, replace(PINNED, token_endpoint="https://new.example/token")])
def test_a_record_is_read_as_it_was_written(waiting: Endpoints | None) -> None:
    document = {**DOCUMENT, "scopes_supported": ["openid"], "x": [{"y": None}]}
    endpoints = parse_smart_configuration(document, "https://ehr.example")
    pin = Pin(endpoints, 17.5, waiting)

    assert Pin.decode(pin.encode()) == pin


def test_a_large_document_is_left_out_of_the_record_and_what_was_read_from_it_stays() -> None:
    endpoints = parse_smart_configuration({**DOCUMENT, "x": "x" * 70_000}, "https://ehr.example")

    record = Pin(endpoints, 1, endpoints).encode()

    assert len(record) < 5000
    assert Pin.decode(record) == Pin(replace(endpoints, document={}), 1, replace(endpoints, document={}))
    assert json.loads(record)["endpoints"]["token_endpoint"] == DOCUMENT["token_endpoint"]


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example\\@auth.example/token",
        "https://evil.example\\.auth.example/token",
        "https://x@auth.example/token",
        "https://auth.example /token",
        "https://auth.ex\tample/token",
    ],
)
def test_what_a_browser_finds_elsewhere_is_at_no_place_in_use(url: str) -> None:
    """Not even where the record in use holds the same: it was written before this was looked at (DS-15)."""
    for before in (PINNED, replace(PINNED, token_endpoint=url)):
        assert [move.member for move in moves(before, replace(PINNED, token_endpoint=url))] == ["token_endpoint"]


def test_a_deeply_nested_document_is_left_out_of_the_record() -> None:
    """It would be beyond what can be written or read again (DS-15)."""
    deep: dict[str, object] = {}
    for _ in range(500):
        deep = {"x": [deep]}
    endpoints = parse_smart_configuration({**DOCUMENT, "x": deep}, "https://ehr.example")

    assert Pin.decode(Pin(endpoints, 1).encode()) == Pin(replace(endpoints, document={}), 1)


def test_what_an_ehr_signs_proofs_with_is_known_without_its_large_document() -> None:
    """(OA-23)"""
    document = {**DOCUMENT, "dpop_signing_alg_values_supported": ["ES256"], "x": "x" * 70_000}
    record = Pin(parse_smart_configuration(document, "https://ehr.example"), 1).encode()

    assert Pin.decode(record).endpoints.dpop_algorithms == ("ES256",)
