import asyncio
import json

import pytest
from structlog.testing import capture_logs

from broker.egress import Egress
from broker.ehr.discovery import AGAIN_SECONDS, BRIDGE_SECONDS, CACHE_SECONDS, Discovery
from broker.ehr.endpoints import parse_smart_configuration
from broker.errors import EhrError, EhrMisbehaved, EhrRefused, EhrUnreachable
from tests.ehr.documents import DOCUMENT, statement
from tests.ehr.known import RememberedEndpoints, site
from tests.ehr.server import ScriptedServer, hang_up, reply

WELL_KNOWN = "/r4/.well-known/smart-configuration"
SOUND = reply(json.dumps(DOCUMENT))
MOVED = reply(json.dumps({**DOCUMENT, "token_endpoint": "https://evil.example/token"}))
INVALID_CLIENT = EhrRefused("the token endpoint answered invalid_client", error="invalid_client")
INVALID_GRANT = EhrRefused("the token endpoint answered invalid_grant", error="invalid_grant")
NOT_THERE = EhrMisbehaved("the token endpoint answered status 404 without a JSON object (OA-04)")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(clock: Clock) -> RememberedEndpoints:
    return RememberedEndpoints(clock)


@pytest.fixture
def discovery(egress: Egress, clock: Clock, known: RememberedEndpoints) -> Discovery:
    return Discovery(egress, clock, known)


async def test_discovery_asks_below_the_fhir_base_for_json(discovery: Discovery, ehr: ScriptedServer) -> None:
    """Below the base even when it has a path (DS-01), and with an Accept (DS-02)."""
    ehr.answers[WELL_KNOWN] = SOUND

    endpoints = await discovery.endpoints(site(f"{ehr.url}/r4"))

    (request,) = ehr.requests
    assert (request.method, request.target, request.headers["accept"]) == ("GET", WELL_KNOWN, "application/json")
    assert "authorization" not in request.headers
    assert (endpoints.token_endpoint, endpoints.source) == ("https://auth.example/token", "smart-configuration")


@pytest.mark.parametrize("label", ["text/plain", "application/fhir+json", "text/html"])
async def test_a_document_counts_by_what_it_is_and_not_by_its_label(
    discovery: Discovery, ehr: ScriptedServer, label: str
) -> None:
    """An EHR that ignores Accept still works; names of headers compare without case (DS-02, DS-12)."""
    ehr.answers[WELL_KNOWN] = reply(json.dumps(DOCUMENT), f"CONTENT-type: {label}")

    assert (await discovery.endpoints(site(f"{ehr.url}/r4"))).token_endpoint == "https://auth.example/token"


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
    """A page, a list or a redirect is a miss (DS-11, DS-14)."""
    ehr.answers[WELL_KNOWN] = miss
    ehr.answers["/r4/metadata"] = reply(json.dumps(statement(token="https://a.example/token")))

    endpoints = await discovery.endpoints(site(f"{ehr.url}/r4"))

    assert (endpoints.token_endpoint, endpoints.source) == ("https://a.example/token", "metadata")
    assert [request.headers["accept"] for request in ehr.requests] == ["application/json", "application/fhir+json"]


async def test_the_capability_statement_is_asked_for_as_the_profile_says(
    discovery: Discovery, ehr: ScriptedServer
) -> None:
    """Epic answers XML without it, and wants its own name for JSON (EP-09, OT-03)."""
    ehr.answers["/r4/metadata"] = reply(json.dumps(statement(token="https://a.example/token")))

    await discovery.endpoints(site(f"{ehr.url}/r4", vendor="epic"))

    assert ehr.requests[-1].headers["accept"] == "application/json+fhir"


async def test_each_client_of_epic_has_its_own_endpoints(discovery: Discovery, ehr: ScriptedServer) -> None:
    """The header names the client, and what came back is kept for that client alone (EP-08)."""
    ehr.answers[WELL_KNOWN] = SOUND
    await discovery.endpoints(site(f"{ehr.url}/r4", vendor="epic", client_id="one"))
    ehr.answers[WELL_KNOWN] = MOVED

    endpoints = await discovery.endpoints(site(f"{ehr.url}/r4", vendor="epic", client_id="two"))

    assert [request.headers["epic-client-id"] for request in ehr.requests] == ["one", "two"]
    assert endpoints.token_endpoint == "https://evil.example/token"


async def test_no_other_vendor_is_told_the_client(discovery: Discovery, ehr: ScriptedServer) -> None:
    """(EP-08)"""
    ehr.answers[WELL_KNOWN] = SOUND

    await discovery.endpoints(site(f"{ehr.url}/r4"))

    assert "epic-client-id" not in ehr.requests[0].headers


@pytest.mark.parametrize("metadata", [reply("<CapabilityStatement/>"), reply("{}"), reply("", status="404 Not Found")])
async def test_an_ehr_that_names_no_token_endpoint_is_refused(
    discovery: Discovery, ehr: ScriptedServer, metadata: bytes
) -> None:
    """XML is nobody's JSON (DS-03, DS-11, DS-14)."""
    ehr.answers["/r4/metadata"] = metadata

    with pytest.raises(EhrMisbehaved, match="neither smart-configuration nor metadata names a token endpoint"):
        await discovery.endpoints(site(f"{ehr.url}/r4"))


@pytest.mark.parametrize("status", ["500 Oops", "503 Later", "429 Too Many"])
async def test_an_ehr_that_says_later_is_unreachable_now(
    discovery: Discovery, ehr: ScriptedServer, status: str
) -> None:
    ehr.answers[WELL_KNOWN] = reply(json.dumps(DOCUMENT), status=status)

    with pytest.raises(EhrUnreachable):
        await discovery.endpoints(site(f"{ehr.url}/r4"))


async def test_a_lost_document_is_not_mistaken_for_a_lost_token_answer(
    discovery: Discovery, ehr: ScriptedServer
) -> None:
    """During a refresh, only a lost token answer may have used up the refresh token (RF-05)."""
    ehr.answers[WELL_KNOWN] = hang_up

    with pytest.raises(EhrUnreachable):
        await discovery.endpoints(site(f"{ehr.url}/r4"))


# The cache


async def test_endpoints_are_remembered_for_an_hour(discovery: Discovery, ehr: ScriptedServer, clock: Clock) -> None:
    """Two launches within that time cause one fetch (DS-13)."""
    ehr.answers[WELL_KNOWN] = SOUND
    here = site(f"{ehr.url}/r4")

    first = await discovery.endpoints(here)
    clock.now += CACHE_SECONDS - 1
    assert await discovery.endpoints(here) == first
    assert len(ehr.requests) == 1

    clock.now += 1
    await discovery.endpoints(here)
    assert len(ehr.requests) == 2


async def test_replicas_share_what_one_of_them_found(
    egress: Egress, clock: Clock, known: RememberedEndpoints, ehr: ScriptedServer
) -> None:
    """(DS-13)"""
    ehr.answers[WELL_KNOWN] = SOUND

    for _ in range(2):
        await Discovery(egress, clock, known).endpoints(site(f"{ehr.url}/r4"))

    assert len(ehr.requests) == 1


@pytest.mark.parametrize(("error", "asked"), [(INVALID_CLIENT, 2), (NOT_THERE, 2), (INVALID_GRANT, 1)])
async def test_a_failure_that_looks_like_a_move_makes_it_look_again_once(
    discovery: Discovery, ehr: ScriptedServer, clock: Clock, error: EhrError, asked: int
) -> None:
    """`invalid_client` or 404 at an endpoint; a refused code or refresh token says nothing of places (DS-13)."""
    ehr.answers[WELL_KNOWN] = SOUND
    here = site(f"{ehr.url}/r4")
    await discovery.endpoints(here)
    clock.now += AGAIN_SECONDS

    for _ in range(3):
        discovery.doubt(here, error)
        await discovery.endpoints(here)

    assert len(ehr.requests) == asked


async def test_failures_in_a_row_do_not_make_a_storm(discovery: Discovery, ehr: ScriptedServer, clock: Clock) -> None:
    """A doubt waits until a minute has passed since the last look, and is not lost (DS-13)."""
    ehr.answers[WELL_KNOWN] = SOUND
    here = site(f"{ehr.url}/r4")
    await discovery.endpoints(here)
    discovery.doubt(here, INVALID_CLIENT)
    clock.now += AGAIN_SECONDS - 1
    await discovery.endpoints(here)
    assert len(ehr.requests) == 1

    clock.now += 1
    await discovery.endpoints(here)
    assert len(ehr.requests) == 2


async def test_a_failed_first_discovery_is_not_remembered(discovery: Discovery, ehr: ScriptedServer) -> None:
    here = site(f"{ehr.url}/r4")
    with pytest.raises(EhrMisbehaved):
        await discovery.endpoints(here)
    ehr.answers[WELL_KNOWN] = SOUND

    assert (await discovery.endpoints(here)).token_endpoint == "https://auth.example/token"


@pytest.mark.parametrize("down", [hang_up, reply("", status="503 Later"), reply("<html>")])
async def test_a_discovery_that_is_down_is_bridged_with_what_was_known(
    discovery: Discovery, ehr: ScriptedServer, clock: Clock, down: bytes
) -> None:
    """For a week, asked once a minute, with a line in the log (DS-13)."""
    ehr.answers[WELL_KNOWN] = SOUND
    here = site(f"{ehr.url}/r4")
    await discovery.endpoints(here)
    ehr.answers[WELL_KNOWN] = down
    clock.now += BRIDGE_SECONDS

    with capture_logs() as logs:
        assert (await discovery.endpoints(here)).token_endpoint == "https://auth.example/token"
        asked = len(ehr.requests)
        assert (await discovery.endpoints(here)).token_endpoint == "https://auth.example/token"

    assert len(ehr.requests) == asked
    assert [(line["event"], line["ehr"]) for line in logs] == [("discovery_bridged", "ehr")]
    clock.now += AGAIN_SECONDS
    with pytest.raises(EhrError):
        await discovery.endpoints(here)


# What may be used


async def test_another_host_is_not_used_until_it_is_approved(
    discovery: Discovery, ehr: ScriptedServer, clock: Clock, known: RememberedEndpoints
) -> None:
    """(DS-15)"""
    ehr.answers[WELL_KNOWN] = SOUND
    here = site(f"{ehr.url}/r4")
    await discovery.endpoints(here)
    ehr.answers[WELL_KNOWN] = MOVED
    clock.now += CACHE_SECONDS

    assert (await discovery.endpoints(here)).token_endpoint == "https://auth.example/token"

    known.pins[here.key] = known.pins[here.key].approve()
    assert (await discovery.endpoints(here)).token_endpoint == "https://evil.example/token"


@pytest.mark.parametrize(
    "url",
    [
        "http://auth.example/token",
        "https://10.0.0.5/token",
        "https://user@auth.example/token",
        "https://[fd00:ec2::254]/t",
    ],
)
async def test_a_token_endpoint_that_could_never_be_called_is_not_pinned(
    discovery: Discovery, ehr: ScriptedServer, known: RememberedEndpoints, url: str
) -> None:
    """Plain http, a private address, a user name (DS-15, TK-08)."""
    ehr.answers[WELL_KNOWN] = reply(json.dumps({**DOCUMENT, "token_endpoint": url}))

    with pytest.raises(EhrMisbehaved, match=r"the token endpoint cannot be used|token_endpoint is not a URL"):
        await discovery.endpoints(site(f"{ehr.url}/r4"))

    assert known.pins == {}


async def test_another_endpoint_that_could_never_be_called_is_left_out_with_a_warning(
    discovery: Discovery, ehr: ScriptedServer
) -> None:
    """(DS-15)"""
    said = {
        "revocation_endpoint": "http://auth.example/revoke",
        "mtls_endpoint_aliases": {"token_endpoint": "https://169.254.169.254/"},
    }
    ehr.answers[WELL_KNOWN] = reply(json.dumps({**DOCUMENT, **said}))

    endpoints = await discovery.endpoints(site(f"{ehr.url}/r4"))

    assert (endpoints.revocation_endpoint, endpoints.mtls_endpoint_aliases) == (None, {})
    assert endpoints.warnings == (
        "revocation_endpoint is left out: the URL is not https (TK-08, DS-15)",
        "mtls_endpoint_aliases.token_endpoint is left out: a host has a link-local address (DS-15)",
    )


async def test_what_the_operator_says_wins_over_discovery(discovery: Discovery, ehr: ScriptedServer) -> None:
    """(OR-02)"""
    ehr.answers[WELL_KNOWN] = SOUND

    endpoints = await discovery.endpoints(site(f"{ehr.url}/r4", token_endpoint="https://own.example/token"))

    assert endpoints.token_endpoint == "https://own.example/token"
    assert endpoints.authorization_endpoint == "https://auth.example/authorize"


async def test_with_the_operators_token_endpoint_an_ehr_needs_no_documents(
    discovery: Discovery, ehr: ScriptedServer
) -> None:
    """(OR-02)"""
    endpoints = await discovery.endpoints(site(f"{ehr.url}/r4", token_endpoint="https://own.example/token"))

    assert (endpoints.token_endpoint, endpoints.source) == ("https://own.example/token", "broker.toml")


# The OpenID Provider


@pytest.mark.parametrize("slash", ["", "/"])
async def test_the_openid_configuration_stands_below_the_issuer(
    discovery: Discovery, ehr: ScriptedServer, slash: str
) -> None:
    """(ID-02, Q6)"""
    ehr.answers["/oauth/.well-known/openid-configuration"] = reply('{"issuer":"x"}')

    assert await discovery.openid_configuration(f"{ehr.url}/oauth{slash}") == {"issuer": "x"}
    assert len(ehr.requests) == 1


@pytest.mark.parametrize(
    ("place", "order"),
    [
        ("append", ["/oauth/.well-known/openid-configuration", "/.well-known/openid-configuration/oauth"]),
        ("insert", ["/.well-known/openid-configuration/oauth", "/oauth/.well-known/openid-configuration"]),
    ],
)
async def test_where_it_is_not_in_one_place_the_other_is_tried(
    discovery: Discovery, ehr: ScriptedServer, place: str, order: list[str]
) -> None:
    """OpenID Connect appends, RFC 8414 inserts; the profile says what comes first (Q6)."""
    ehr.answers[order[0]] = reply("<html>")
    ehr.answers[order[1]] = reply('{"issuer":"x"}')

    found = await discovery.openid_configuration(f"{ehr.url}/oauth", place=place)  # type: ignore[arg-type]  # of the table

    assert found == {"issuer": "x"}
    assert [request.target for request in ehr.requests] == order


async def test_an_issuer_without_openid_configuration_is_refused(discovery: Discovery, ehr: ScriptedServer) -> None:
    with pytest.raises(EhrMisbehaved, match="no openid-configuration"):
        await discovery.openid_configuration(ehr.url)

    assert len(ehr.requests) == 1


@pytest.mark.parametrize(
    ("answer", "warnings"),
    [
        ('{"issuer":"ISSUER"}', ()),
        (
            '{"issuer":"ISSUER/"}',
            ("openid-configuration names another issuer than the one it is found by (OA-17)",),
        ),
        ("<html>", ("openid-configuration of the issuer cannot be read (ID-02)",)),
    ],
)
async def test_an_issuer_that_is_found_under_another_name_is_shown(
    discovery: Discovery, ehr: ScriptedServer, answer: str, warnings: tuple[str, ...]
) -> None:
    """The equality is exact, the slash at the end included (OA-17)."""
    issuer = f"{ehr.url}/oauth"
    sso = {"capabilities": ["sso-openid-connect"], "issuer": issuer, "jwks_uri": f"{ehr.url}/keys"}
    ehr.answers[WELL_KNOWN] = reply(json.dumps({**DOCUMENT, **sso}))
    ehr.answers["/oauth/.well-known/openid-configuration"] = reply(answer.replace("ISSUER", issuer))

    with capture_logs() as logs:
        assert (await discovery.endpoints(site(f"{ehr.url}/r4"))).warnings == warnings

    assert [line["text"] for line in logs] == list(warnings)


@pytest.mark.parametrize("pause", [0.0, 1.0, AGAIN_SECONDS])
async def test_what_is_known_is_not_used_any_longer_between_two_tries_either(
    discovery: Discovery, ehr: ScriptedServer, clock: Clock, pause: float
) -> None:
    """A week is a week, although the EHR is asked once a minute only (DS-13)."""
    ehr.answers[WELL_KNOWN] = SOUND
    here = site(f"{ehr.url}/r4")
    await discovery.endpoints(here)
    ehr.answers.clear()
    clock.now += BRIDGE_SECONDS + 1
    with pytest.raises(EhrError):
        await discovery.endpoints(here)
    clock.now += pause

    with pytest.raises(EhrError):
        await discovery.endpoints(here)
    ehr.answers[WELL_KNOWN] = SOUND
    clock.now += AGAIN_SECONDS

    first, second = await asyncio.gather(discovery.endpoints(here), discovery.endpoints(here))
    assert first == second


@pytest.mark.parametrize("issuer", ["https://[", "https://x\\@ehr.example", "http://h:99999"])
async def test_an_issuer_that_cannot_be_read_takes_nothing_away(
    discovery: Discovery, ehr: ScriptedServer, clock: Clock, known: RememberedEndpoints, issuer: str
) -> None:
    """It is another one, so it waits for an operator (DS-15)."""
    ehr.answers[WELL_KNOWN] = SOUND
    here = site(f"{ehr.url}/r4")
    await discovery.endpoints(here)
    ehr.answers[WELL_KNOWN] = reply(json.dumps({**DOCUMENT, "capabilities": ["sso-openid-connect"], "issuer": issuer}))
    clock.now += CACHE_SECONDS

    assert (await discovery.endpoints(here)).issuer is None
    assert [move.member for move in known.pins[here.key].moves] == ["issuer"]


async def test_whatever_goes_wrong_with_an_answer_what_was_known_is_used(
    egress: Egress, ehr: ScriptedServer, clock: Clock, known: RememberedEndpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what nobody has thought of; the kind of error is logged, and nothing that the EHR wrote (DS-13)."""
    ehr.answers[WELL_KNOWN] = SOUND
    here, discovery = site(f"{ehr.url}/r4"), Discovery(egress, clock, known)
    await discovery.endpoints(here)
    clock.now += CACHE_SECONDS

    async def fail(*_: object) -> None:
        raise UnicodeError("canary")

    monkeypatch.setattr("broker.ehr.discovery.find_endpoints", fail)
    with capture_logs() as logs:
        assert (await discovery.endpoints(here)).token_endpoint == "https://auth.example/token"

    assert [(line["event"], line["cause"]) for line in logs] == [("discovery_bridged", "unforeseen: UnicodeError")]


def test_the_operators_endpoint_is_not_replaced_by_the_ehrs_alias_for_it() -> None:
    """A certificate is shown, and a code given, where the operator says (OR-02, OA-19)."""
    aliases = {"token_endpoint": "https://alias.example/token", "revocation_endpoint": "https://alias.example/revoke"}
    found = parse_smart_configuration({**DOCUMENT, "mtls_endpoint_aliases": aliases}, "https://ehr.example/r4")

    used = site("https://ehr.example/r4", token_endpoint="https://operator.example/token").apply(found)

    assert used.token_endpoint == "https://operator.example/token"
    assert used.mtls_endpoint_aliases == {"revocation_endpoint": "https://alias.example/revoke"}
