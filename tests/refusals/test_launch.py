"""`/launch/{registration}`: what an EHR, or somebody who plays one, may not do (AL-01, AL-02, DS-03…DS-14)."""

import asyncio
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2
import pytest

from tests.refusals.refusal import assert_page, audited, forget_endpoints, nothing_sent
from tests.stage import App, BrokerStage

pytestmark = pytest.mark.asyncio(loop_scope="module")

LAUNCH = "canary-launch-value"


async def launch(stage: BrokerStage, app: App, registration: str = "sandbox-launch", **given: str) -> httpx2.Response:
    return await app.http.get(f"{stage.public_url}/launch/{registration}?{urlencode(given)}")


async def test_a_launch_goes_to_the_ehr_with_its_own_launch_value_and_the_base_as_audience(
    stage: BrokerStage, app: App
) -> None:
    """AL-01, AL-03, AL-06, AL-11, AL-12, EP-10, Q5."""
    answer = await launch(stage, app, iss=stage.sandbox.fhir_base, launch=LAUNCH)

    assert answer.status_code == 303
    assert answer.headers["cache-control"] == "no-store"
    target = urlsplit(answer.headers["location"])
    asked = dict(parse_qsl(target.query))
    assert f"{target.scheme}://{target.netloc}{target.path}" == f"{stage.sandbox.issuer}/authorize"
    assert (asked["launch"], asked["aud"]) == (LAUNCH, stage.sandbox.fhir_base)
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    assert "launch" in asked["scope"].split()
    assert "launch/patient" not in asked["scope"].split()


async def test_one_trailing_slash_on_iss_is_the_same_ehr(stage: BrokerStage, app: App) -> None:
    answer = await launch(stage, app, iss=stage.sandbox.fhir_base + "/", launch=LAUNCH)

    assert answer.status_code == 303


@pytest.mark.parametrize(
    "iss",
    [
        "",
        "https://attacker.example/fhir",
        "{origin}",
        "{base}//",
        "{base}/Patient",
        "{base}?x=1",
        "{base}#x",
        " {base}",
        "{base}.attacker.example",
        "https{base_without_scheme}",
        "HTTP{base_without_scheme}",
        "{other_case}",
        "http://user@{host}/api/FHIR/R4",
        "http://localhost{port}/api/FHIR/R4",
        "{origin}/oauth2",
        "file:///etc/passwd",
        "<script>alert(1)</script>",
        "x\r\nSet-Cookie: a=b",
    ],
)
async def test_an_iss_that_is_not_on_file_is_refused_before_anything_is_fetched(
    stage: BrokerStage, app: App, iss: str
) -> None:
    """AL-02, NC-15."""
    base, origin = stage.sandbox.fhir_base, stage.sandbox.origin
    iss = iss.format(
        base=base,
        origin=origin,
        base_without_scheme=base.removeprefix("http"),
        other_case=base.replace("/api/FHIR", "/api/fhir"),
        host=urlsplit(origin).netloc,
        port=f":{urlsplit(origin).port}",
    )
    with (
        nothing_sent(stage.sandbox),
        audited(stage, "launch.begin", "denied", "iss is not this registration's FHIR base (AL-02)", hides=[LAUNCH]),
    ):
        answer = await launch(stage, app, iss=iss, launch=LAUNCH)

    foreign = iss if "attacker" in iss or "<" in iss else ""
    assert_page(answer, 400, "invalid_request", hides=[LAUNCH, foreign, "set-cookie", "AL-02"])


async def test_an_unknown_iss_is_never_connected_to(stage: BrokerStage, app: App) -> None:
    """AL-02, NC-15: the zero-egress half; the named host is one that would notice."""
    connections: list[str] = []

    async def notice(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append("somebody came")
        writer.close()

    listener = await asyncio.start_server(notice, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener:
        answer = await launch(stage, app, iss=f"http://127.0.0.1:{port}/fhir", launch=LAUNCH)
        await asyncio.sleep(0)

    assert_page(answer, 400, "invalid_request", hides=[str(port)])
    assert connections == []


async def test_iss_may_be_missing_in_no_launch(stage: BrokerStage, app: App) -> None:
    """AL-01."""
    with nothing_sent(stage.sandbox), audited(stage, "launch.begin", "denied", "iss is not"):
        answer = await launch(stage, app, launch=LAUNCH)

    assert_page(answer, 400, "invalid_request", hides=[LAUNCH])


@pytest.mark.parametrize(
    ("registration", "cause"),
    [
        ("nobody", "unknown registration"),
        ("sandbox-backend", "the registration names no app"),
        ("unlaunched", "the registration names no app"),
        ("sandbox-launch%2f..", ""),
        ("SANDBOX-LAUNCH", "unknown registration"),
    ],
)
async def test_only_a_launch_registration_with_an_app_is_launched(
    stage: BrokerStage, app: App, registration: str, cause: str
) -> None:
    with nothing_sent(stage.sandbox):
        if cause:
            with audited(stage, "launch.begin", "denied", cause, hides=[LAUNCH]):
                answer = await launch(stage, app, registration, iss=stage.sandbox.fhir_base, launch=LAUNCH)
            assert_page(answer, 404, "not_found", hides=[LAUNCH, cause])
        else:
            answer = await launch(stage, app, registration, iss=stage.sandbox.fhir_base, launch=LAUNCH)
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("value", ["", "x" * 8193])
async def test_a_launch_value_is_neither_absent_nor_endless(stage: BrokerStage, app: App, value: str) -> None:
    """AL-01."""
    with (
        nothing_sent(stage.sandbox),
        audited(stage, "launch.begin", "denied", "launch is missing or too long", hides=[value]),
    ):
        answer = await launch(stage, app, iss=stage.sandbox.fhir_base, launch=value)

    assert_page(answer, 400, "invalid_request", hides=[value])


@pytest.mark.parametrize("name", ["iss", "launch", "anything"])
async def test_no_parameter_may_be_given_twice(stage: BrokerStage, app: App, name: str) -> None:
    """OA-01."""
    query = urlencode([("iss", stage.sandbox.fhir_base), ("launch", LAUNCH), (name, "1"), (name, "2")])
    with nothing_sent(stage.sandbox):
        answer = await app.http.get(f"{stage.public_url}/launch/sandbox-launch?{query}")

    assert_page(answer, 400, "invalid_request", hides=[LAUNCH])


@pytest.mark.parametrize("query", ["iss=%ff&launch=x", "&".join(f"p{n}=1" for n in range(101))])
async def test_a_query_that_cannot_be_read_is_refused(stage: BrokerStage, app: App, query: str) -> None:
    with nothing_sent(stage.sandbox):
        answer = await app.http.get(f"{stage.public_url}/launch/sandbox-launch?{query}")

    assert_page(answer, 400, "invalid_request")


async def test_a_launch_url_is_only_got(stage: BrokerStage, app: App) -> None:
    answer = await app.http.post(f"{stage.public_url}/launch/sandbox-launch", data={"iss": stage.sandbox.fhir_base})

    assert answer.status_code == 405
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("faults", "status", "code", "cause"),
    [
        ([("discovery_drop", {})], 503, "ehr_unreachable", "no answer (RemoteProtocolError)"),
        ([("discovery_500", {})], 503, "ehr_unreachable", "status 500"),
        (
            [("discovery_404", {}), ("metadata_html", {})],
            502,
            "ehr_misbehaved",
            "neither smart-configuration nor metadata names a token endpoint",
        ),
        (
            [("discovery_html", {}), ("metadata_html", {})],
            502,
            "ehr_misbehaved",
            "neither smart-configuration nor metadata names a token endpoint",
        ),
        ([("discovery_members", {"drop": ["authorization_endpoint"]})], 502, "ehr_misbehaved", "(DS-04)"),
        (
            [("discovery_members", {"set": {"code_challenge_methods_supported": ["plain"]}})],
            502,
            "ehr_misbehaved",
            "(DS-06)",
        ),
    ],
)
async def test_an_ehr_that_cannot_be_discovered_gives_a_page_that_says_so(
    stage: BrokerStage, app: App, faults: list[tuple[str, dict[str, object]]], status: int, code: str, cause: str
) -> None:
    """DS-03, DS-04, DS-06, DS-14."""
    await forget_endpoints(stage)
    for name, parameters in faults:
        stage.sandbox.fault(name, **parameters)
    before = stage.sandbox.counts()
    with audited(stage, "launch.begin", "failed", cause, hides=[LAUNCH]):
        answer = await launch(stage, app, iss=stage.sandbox.fhir_base, launch=LAUNCH)

    assert_page(answer, status, code, hides=[LAUNCH, cause, "Maintenance"])
    assert "set-cookie" not in answer.headers
    assert stage.sandbox.counts()["token"] == before["token"]


@pytest.mark.parametrize("fault", ["discovery_404", "discovery_html"])
async def test_metadata_names_the_endpoints_where_smart_configuration_is_missing(
    stage: BrokerStage, app: App, fault: str
) -> None:
    """DS-11, DS-14, NC-12."""
    await forget_endpoints(stage)
    stage.sandbox.fault(fault)

    answer = await launch(stage, app, iss=stage.sandbox.fhir_base, launch=LAUNCH)

    assert answer.status_code == 303
    assert answer.headers["location"].startswith(f"{stage.sandbox.issuer}/authorize?")
