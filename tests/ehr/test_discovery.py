import json
from typing import Any

import pytest

from broker.egress import Egress
from broker.ehr.discovery import (
    CACHE_SECONDS,
    Discovery,
    Endpoints,
    parse_json_object,
    parse_oauth_uris,
    parse_smart_configuration,
)
from broker.errors import EhrMisbehaved, EhrUnreachable
from tests.ehr.server import ScriptedServer, hang_up, reply

BASE = "https://ehr.example/fhir/r4"
WELL_KNOWN = "/r4/.well-known/smart-configuration"
DOCUMENT = {
    "authorization_endpoint": "https://auth.example/authorize",
    "token_endpoint": "https://auth.example/token",
    "capabilities": ["launch-ehr", "client-confidential-asymmetric", "https://ehr.example/capability"],
    "code_challenge_methods_supported": ["S256"],
    "grant_types_supported": ["authorization_code"],
}
OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def discovery(egress: Egress, clock: Clock) -> Discovery:
    return Discovery(egress, clock)


def statement(**endpoints: object) -> dict[str, Any]:
    parts = [{"url": name, "valueUri": url} for name, url in endpoints.items()]
    security = {"extension": [{"url": "other"}, {"url": OAUTH_URIS, "extension": parts}]}
    return {"resourceType": "CapabilityStatement", "rest": [{"mode": "server", "security": security}]}


def test_a_smart_configuration_is_read() -> None:
    endpoints = parse_smart_configuration(
        {
            **DOCUMENT,
            "introspection_endpoint": "https://auth.example/introspect",
            "revocation_endpoint": "https://auth.example/revoke",
            "issuer": "https://auth.example/",
            "jwks_uri": "https://auth.example/jwks",
            "authorization_response_iss_parameter_supported": True,
        },
        BASE,
    )

    assert endpoints == Endpoints(
        token_endpoint="https://auth.example/token",
        authorization_endpoint="https://auth.example/authorize",
        introspection_endpoint="https://auth.example/introspect",
        revocation_endpoint="https://auth.example/revoke",
        issuer="https://auth.example/",
        jwks_uri="https://auth.example/jwks",
        capabilities=("launch-ehr", "client-confidential-asymmetric", "https://ehr.example/capability"),
        iss_in_callback=True,
        source="smart-configuration",
        document=endpoints.document,
    )


def test_what_else_the_server_says_is_kept() -> None:
    """DS-09, DS-16."""
    document = {**DOCUMENT, "user_access_brand_bundle": "https://b.example", "x": [1]}

    assert parse_smart_configuration(document, BASE).document == document


def test_a_backend_only_ehr_needs_no_authorization_endpoint() -> None:
    """DS-04."""
    endpoints = parse_smart_configuration({"token_endpoint": "https://auth.example/token"}, BASE)

    assert endpoints.authorization_endpoint is None
    assert endpoints.capabilities == ()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("https://auth.example/token", "https://auth.example/token"),
        ("/auth/token", "https://ehr.example/auth/token"),
        ("auth/token", "https://ehr.example/fhir/r4/auth/token"),
        ("../token", "https://ehr.example/fhir/token"),
        ("//auth.example/token", "https://auth.example/token"),
        ("http://auth.example/token", "http://auth.example/token"),  # refused later, by egress
    ],
)
def test_a_relative_endpoint_is_joined_to_the_fhir_base(written: str, meant: str) -> None:
    """DS-07."""
    assert parse_smart_configuration({**DOCUMENT, "token_endpoint": written}, BASE).token_endpoint == meant


@pytest.mark.parametrize(
    "url", [None, "", 5, [], {}, "javascript:alert(1)", "mailto:a@b", "file:///etc/passwd", "https://[::1"]
)
def test_a_token_endpoint_that_is_no_url_is_refused(url: object) -> None:
    """DS-03."""
    with pytest.raises(EhrMisbehaved, match="token_endpoint is not a URL"):
        parse_smart_configuration({**DOCUMENT, "token_endpoint": url}, BASE)


@pytest.mark.parametrize("methods", [["plain"], ["s256"], ["S512", "plain"], [5]])
def test_an_ehr_that_lists_pkce_without_s256_is_refused(methods: list[object]) -> None:
    """DS-06."""
    with pytest.raises(EhrMisbehaved, match="PKCE methods without S256"):
        parse_smart_configuration({**DOCUMENT, "code_challenge_methods_supported": methods}, BASE)


@pytest.mark.parametrize("methods", [["S256"], ["S256", "plain"], [], None, "S256"])
def test_an_ehr_that_lists_s256_or_nothing_is_accepted(methods: object) -> None:
    """DS-06: S256 is sent all the same."""
    endpoints = parse_smart_configuration({**DOCUMENT, "code_challenge_methods_supported": methods}, BASE)

    assert endpoints.token_endpoint == "https://auth.example/token"


@pytest.mark.parametrize(
    ("member", "value"),
    [("capabilities", "launch-ehr"), ("capabilities", {"a": 1}), ("issuer", 5), ("jwks_uri", []), ("issuer", "")],
)
def test_a_member_of_the_wrong_kind_counts_as_absent(member: str, value: object) -> None:
    endpoints = parse_smart_configuration({**DOCUMENT, "capabilities": [], member: value}, BASE)

    assert (endpoints.capabilities, endpoints.issuer, endpoints.jwks_uri) == ((), None, None)


@pytest.mark.parametrize("announced", ["true", 1, None, False, []])
def test_iss_in_the_callback_is_required_only_if_announced_as_true(announced: object) -> None:
    document = {**DOCUMENT, "authorization_response_iss_parameter_supported": announced}

    assert parse_smart_configuration(document, BASE).iss_in_callback is False


def test_endpoints_do_not_show_the_whole_document() -> None:
    assert "grant_types_supported" not in repr(parse_smart_configuration(DOCUMENT, BASE))


def test_the_oauth_uris_of_a_capability_statement_are_read() -> None:
    """DS-11."""
    found = parse_oauth_uris(
        statement(authorize="https://a.example/authorize", token="/token", revoke="https://a.example/revoke"), BASE
    )

    assert found == Endpoints(
        token_endpoint="https://ehr.example/token",
        authorization_endpoint="https://a.example/authorize",
        revocation_endpoint="https://a.example/revoke",
        source="metadata",
    )


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"rest": None},
        {"rest": {"security": {}}},
        {"rest": ["server", None, 5]},
        {"rest": [{"security": []}]},
        {"rest": [{"security": {"extension": {"url": OAUTH_URIS}}}]},
        {"rest": [{"security": {"extension": [{"url": OAUTH_URIS}]}}]},
        {"rest": [{"security": {"extension": [{"url": OAUTH_URIS, "extension": [{"url": "token"}]}]}}]},
        statement(authorize="https://a.example/authorize"),
        statement(token=None),
        statement(token=5),
        statement(token="javascript:alert(1)"),
    ],
)
def test_a_capability_statement_without_a_token_endpoint_names_none(document: dict[str, Any]) -> None:
    assert parse_oauth_uris(document, BASE) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'[{"token_endpoint":"https://a"}]',
        b'"text"',
        b"5",
        b"null",
        b"{",
        b"{'a':1}",
        b"\xff\xfe",
        b"\x80abc",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_not_a_json_object_is_no_document(body: bytes) -> None:
    """DS-14, OA-04."""
    assert parse_json_object(body) is None


@pytest.mark.parametrize("body", [b"{}", b' {"a":1} ', b'\xef\xbb\xbf{"a":1}', '{"a":"ü"}'.encode()])
def test_a_json_object_is_a_document(body: bytes) -> None:
    assert parse_json_object(body) is not None


async def test_discovery_asks_below_the_fhir_base_for_json(discovery: Discovery, ehr: ScriptedServer) -> None:
    """DS-01, DS-02."""
    ehr.answers[WELL_KNOWN] = reply(json.dumps(DOCUMENT))

    endpoints = await discovery.endpoints(f"{ehr.url}/r4")

    (request,) = ehr.requests
    assert (request.method, request.target, request.headers["accept"]) == ("GET", WELL_KNOWN, "application/json")
    assert "authorization" not in request.headers
    assert (endpoints.token_endpoint, endpoints.source) == ("https://auth.example/token", "smart-configuration")


@pytest.mark.parametrize(
    "miss",
    [
        reply("", status="404 Not Found"),
        reply("", status="401 Unauthorized"),
        reply("", "Location: /elsewhere", status="302 Found"),
        reply("<!doctype html><p>Welcome", "Content-Type: text/html"),
        reply("[]"),
        reply("not json", "Content-Type: application/json"),
        reply('{"issuer":"https://a.example"}'),
    ],
)
async def test_without_a_smart_configuration_the_capability_statement_is_asked(
    discovery: Discovery, ehr: ScriptedServer, miss: bytes
) -> None:
    """DS-11, DS-14."""
    ehr.answers[WELL_KNOWN] = miss
    ehr.answers["/r4/metadata"] = reply(json.dumps(statement(token="https://a.example/token")))

    endpoints = await discovery.endpoints(f"{ehr.url}/r4")

    assert (endpoints.token_endpoint, endpoints.source) == ("https://a.example/token", "metadata")
    assert [request.headers["accept"] for request in ehr.requests] == ["application/json", "application/fhir+json"]


@pytest.mark.parametrize("metadata", [reply("<CapabilityStatement/>"), reply("{}"), reply("", status="404 Not Found")])
async def test_an_ehr_that_names_no_token_endpoint_is_refused(
    discovery: Discovery, ehr: ScriptedServer, metadata: bytes
) -> None:
    ehr.answers["/r4/metadata"] = metadata

    with pytest.raises(EhrMisbehaved, match="neither smart-configuration nor metadata names a token endpoint"):
        await discovery.endpoints(f"{ehr.url}/r4")


@pytest.mark.parametrize("status", ["500 Oops", "503 Later", "429 Too Many"])
async def test_an_ehr_that_says_later_is_unreachable_now(
    discovery: Discovery, ehr: ScriptedServer, status: str
) -> None:
    ehr.answers[WELL_KNOWN] = reply(json.dumps(DOCUMENT), status=status)

    with pytest.raises(EhrUnreachable):
        await discovery.endpoints(f"{ehr.url}/r4")


async def test_a_lost_document_is_not_mistaken_for_a_lost_token_answer(
    discovery: Discovery, ehr: ScriptedServer
) -> None:
    """RF-05: during a refresh, only a lost token answer may have used up the refresh token."""
    ehr.answers[WELL_KNOWN] = hang_up

    with pytest.raises(EhrUnreachable):
        await discovery.endpoints(f"{ehr.url}/r4")


async def test_endpoints_are_remembered_for_an_hour(discovery: Discovery, ehr: ScriptedServer, clock: Clock) -> None:
    """DS-13."""
    ehr.answers[WELL_KNOWN] = reply(json.dumps(DOCUMENT))
    base = f"{ehr.url}/r4"

    first = await discovery.endpoints(base)
    clock.now += CACHE_SECONDS - 1
    assert await discovery.endpoints(base) is first
    assert len(ehr.requests) == 1

    clock.now += 1
    await discovery.endpoints(base)
    assert len(ehr.requests) == 2


async def test_forgotten_endpoints_are_looked_up_again(discovery: Discovery, ehr: ScriptedServer) -> None:
    """DS-13."""
    ehr.answers[WELL_KNOWN] = reply(json.dumps(DOCUMENT))
    base = f"{ehr.url}/r4"

    await discovery.endpoints(base)
    discovery.forget(base)
    discovery.forget("https://never.example")
    await discovery.endpoints(base)

    assert len(ehr.requests) == 2


async def test_a_failed_discovery_is_not_remembered(discovery: Discovery, ehr: ScriptedServer) -> None:
    base = f"{ehr.url}/r4"
    with pytest.raises(EhrMisbehaved):
        await discovery.endpoints(base)
    ehr.answers[WELL_KNOWN] = reply(json.dumps(DOCUMENT))

    assert (await discovery.endpoints(base)).token_endpoint == "https://auth.example/token"


@pytest.mark.parametrize("slash", ["", "/"])
async def test_the_openid_configuration_stands_below_the_issuer(
    discovery: Discovery, ehr: ScriptedServer, slash: str
) -> None:
    """ID-02, Q6."""
    ehr.answers["/oauth/.well-known/openid-configuration"] = reply('{"issuer":"x"}')

    assert await discovery.openid_configuration(f"{ehr.url}/oauth{slash}") == {"issuer": "x"}


async def test_an_issuer_without_openid_configuration_is_refused(discovery: Discovery, ehr: ScriptedServer) -> None:
    with pytest.raises(EhrMisbehaved, match="no openid-configuration"):
        await discovery.openid_configuration(ehr.url)
