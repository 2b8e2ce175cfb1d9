"""One registration at several EHRs, and one of them claims the issuer of another (CB-07, Q3)."""

import json
from dataclasses import replace

import pytest

from broker.egress import Egress
from broker.ehr.endpoints import Endpoints
from broker.ehr.own_issuer import REFUSED_SECONDS, OwnIssuer, strangers
from broker.errors import EhrMisbehaved, EhrUnreachable
from tests.ehr.known import site
from tests.ehr.server import ScriptedServer, reply
from tests.ehr.test_discovery import Clock

HERE = site("https://ehr.example/r4")
OPENID = "/t/.well-known/openid-configuration"
OAUTH = "/.well-known/oauth-authorization-server/t"


@pytest.fixture
def endpoints(ehr: ScriptedServer) -> Endpoints:
    """An EHR whose issuer is at another host than its endpoints."""
    return Endpoints(
        "https://login.example/token",
        authorization_endpoint="https://login.example/authorize",
        jwks_uri="https://keys.example/jwks",
        management_endpoint="https://portal.example/apps",
        issuer=f"{ehr.url}/t",
    )


def document(endpoints: Endpoints, **changes: str | None) -> bytes:
    named = {"issuer": endpoints.issuer, **endpoints.urls(), **changes}
    return reply(json.dumps({name: value for name, value in named.items() if value is not None}))


@pytest.mark.parametrize("place", [OPENID, OAUTH])
async def test_endpoints_that_the_issuer_names_are_its_own(
    egress: Egress, ehr: ScriptedServer, endpoints: Endpoints, place: str
) -> None:
    """Asked once, until they change (RFC 8414 §3.3, CB-07)."""
    ehr.answers[place] = document(endpoints)
    issuers = OwnIssuer(egress, Clock())

    await issuers.require(HERE, endpoints)
    asked = len(ehr.requests)
    await issuers.require(HERE, endpoints)
    assert len(ehr.requests) == asked

    with pytest.raises(EhrMisbehaved):
        await issuers.require(HERE, replace(endpoints, token_endpoint="https://evil.example/token"))


@pytest.mark.parametrize(
    "changes",
    [
        {"token_endpoint": "https://honest.example/token"},
        {"authorization_endpoint": "https://honest.example/authorize"},
        {"authorization_endpoint": None},
        {"token_endpoint": "https://honest.example/token", "revocation_endpoint": "https://login.example/token"},
        {"issuer": "https://login.example"},
    ],
)
async def test_endpoints_that_the_issuer_does_not_name_are_refused(
    egress: Egress, ehr: ScriptedServer, endpoints: Endpoints, changes: dict[str, str | None]
) -> None:
    """Each member for itself; and the issuer is asked again after a minute (CB-07, Q3)."""
    ehr.answers[OPENID] = document(endpoints, **changes)
    clock = Clock()
    issuers = OwnIssuer(egress, clock)
    for _ in range(2):
        with pytest.raises(EhrMisbehaved, match="names an issuer that does not name its"):
            await issuers.require(HERE, endpoints)
    assert [request.target for request in ehr.requests].count(OPENID) == 1

    ehr.answers[OPENID] = document(endpoints)
    clock.now += REFUSED_SECONDS

    await issuers.require(HERE, endpoints)


async def test_an_issuer_that_is_down_stands_for_nothing(
    egress: Egress, ehr: ScriptedServer, endpoints: Endpoints
) -> None:
    """(CB-07)"""
    ehr.answers[OPENID] = reply("", status="503 Later")

    with pytest.raises(EhrUnreachable):
        await OwnIssuer(egress, Clock()).require(HERE, endpoints)


@pytest.mark.parametrize(
    "issuer", ["https://[", "not a url", "https://login.example\\@honest.example", "https://x@login.example"]
)
async def test_an_issuer_that_is_no_url_stands_for_nothing(egress: Egress, endpoints: Endpoints, issuer: str) -> None:
    """(CB-07)"""
    with pytest.raises(EhrMisbehaved):
        await OwnIssuer(egress, Clock()).require(HERE, replace(endpoints, issuer=issuer))


@pytest.mark.parametrize(
    ("changes", "strange"),
    [
        ({"issuer": "https://login.example/any"}, []),
        ({"issuer": "https://honest.example"}, ["authorization_endpoint", "token_endpoint"]),
        (
            {"issuer": "https://login.example", "revocation_endpoint": "https://evil.example/"},
            ["revocation_endpoint"],
        ),
        (
            {"issuer": "https://login.example", "mtls_endpoint_aliases": {"token_endpoint": "https://evil.example/"}},
            ["mtls_endpoint_aliases.token_endpoint"],
        ),
        ({"issuer": "https://login.example:8443"}, ["authorization_endpoint", "token_endpoint"]),
    ],
)
def test_at_the_issuers_origin_nobody_has_to_be_asked(
    endpoints: Endpoints, changes: dict[str, object], strange: list[str]
) -> None:
    """Where keys are, and where people manage their apps, no credential goes."""
    assert strangers(replace(endpoints, **changes), {}) == strange  # type: ignore[arg-type]  # members of the table
