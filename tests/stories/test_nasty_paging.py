"""Walking a search whose pages are nasty: tokens that die, links that are absolute and wrong (spec §21, case 17)."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from broker.ehr.rewriting import WITHHELD
from tests.stage import App, BrokerStage, Sandbox, open_stage
from tests.stage.broker import APP_SECRET_TEXT
from tests.stories.held import audit_of, code_of, upstream
from tests.stories.test_exchange import acting, exchanged

CATEGORY = "category=http://terminology.hl7.org/CodeSystem/observation-category"
FILTERED = f"launch/patient patient/Patient.r patient/Observation.s?{CATEGORY}|laboratory"
LABORATORY = f"{CATEGORY}%7Claboratory"
STYLES = ["opaque", "session-id", "page-context"]


async def search(app: App, handle: str, path: str) -> dict[str, Any]:
    answer = await app.fhir(handle, path)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def link(app: App, bundle: dict[str, Any], relation: str = "next") -> str | None:
    """A page link, relative to the FHIR base; a link elsewhere fails."""
    found = [one["url"] for one in bundle["link"] if one["relation"] == relation]
    if not found:
        return None
    assert found[0].startswith(app.base)
    return str(found[0]).removeprefix(app.base).removeprefix("/")


async def pages(app: App, handle: str, path: str | None) -> AsyncIterator[dict[str, Any]]:
    while path is not None:
        bundle = await search(app, handle, path)
        yield bundle
        path = link(app, bundle)


def ids(bundle: dict[str, Any]) -> list[str]:
    return [entry["resource"]["id"] for entry in bundle["entry"]]


@pytest.mark.parametrize("style", STYLES)
async def test_ten_pages_are_walked_whole_though_the_token_dies_on_the_way(
    stage: BrokerStage, app: App, style: str
) -> None:
    """(NC-17) (PX-06) (PX-07) (PX-08)."""
    stage.sandbox.switch(page_links=style)
    given = await app.standalone()
    handle, patient = given["access_token"], given["patient"]
    whole = ids(await search(app, handle, f"Observation?patient={patient}&_count=30"))
    walked: list[str] = []

    async for bundle in pages(app, handle, f"Observation?patient={patient}&_count=3"):
        walked += ids(bundle)
        if len(walked) == 15:
            stage.sandbox.expire()
        if len(walked) == 30:
            break

    assert walked == whole
    assert stage.sandbox.counts()["token.refresh_token"] == 1


async def test_a_token_that_dies_on_a_page_is_renewed_and_the_page_asked_for_once_more(
    stage: BrokerStage, app: App
) -> None:
    """(NC-17) (PX-08)."""
    given = await app.standalone()
    handle = given["access_token"]
    first = await search(app, handle, f"Observation?patient={given['patient']}&_count=2")
    stage.sandbox.fault("paging_401")

    second = await search(app, handle, str(link(app, first)))

    assert not {*ids(first)} & {*ids(second)}
    counts = stage.sandbox.counts()
    assert (counts["token.refresh_token"], counts["fhir"]) == (1, 3)


@pytest.mark.parametrize("style", STYLES)
async def test_the_pages_of_a_search_that_a_scope_allows_by_its_filter_are_allowed_too(
    stage: BrokerStage, app: App, style: str
) -> None:
    """(NC-17) (PX-07) (SC-05): the link does not show the filter; what the broker adds to it does.

    Without that it is nothing that can be read, or a search by a parameter that is not on the EHR's list: the answer to
    that is checked.
    """
    stage.sandbox.switch(page_links=style)
    given = await app.standalone(scope=FILTERED)
    handle, patient = given["access_token"], given["patient"]
    first = await search(app, handle, f"Observation?patient={patient}&{LABORATORY}&_count=2")
    next_page = str(link(app, first))

    second = await search(app, handle, next_page)
    before = upstream(stage.sandbox)
    bare = await app.fhir(handle, next_page.partition("&_sbpage=")[0])

    assert len(ids(second)) == 2
    assert "_sbpage" not in stage.sandbox.journal("fhir")[-1]["parameters"]
    if style == "session-id":
        assert bare.json()["entry"][:2] == second["entry"]
        assert bare.json()["entry"][2]["search"] == {"mode": "outcome"}
        assert json.loads(stage.audit_lines()[-2])["reason"] == "patient-scope checked"
    else:
        assert bare.status_code == 403
        assert upstream(stage.sandbox) == before


@pytest.mark.parametrize("style", STYLES)
async def test_everything_of_a_patient_is_walked_though_the_ehrs_token_reaches_further(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, style: str
) -> None:
    """(PX-07) (PX-14): no page after the first says whose it is; what the broker adds to its link does."""
    scope = "launch/patient patient/*.rs user/Practitioner.rs"
    async with open_stage(sandbox, redis, tmp_path, more=acting("mixed", "growth-chart", scope)) as stage:
        stage.sandbox.switch(page_links=style)
        app = App(stage.base, "mixed", auth=("mixed", APP_SECRET_TEXT))
        given = await app.standalone(scope=scope)
        assert "user/Practitioner.rs" in given["scope"].split()

        path: str | None = f"Patient/{given['patient']}/$everything?_count=5"
        for _ in range(3):
            assert path is not None
            bundle = await search(app, given["access_token"], path)
            path = link(app, bundle)
        await app.close()


@pytest.mark.parametrize(
    ("fault", "parameters"),
    [
        ("paging_internal_host", {}),
        ("paging_internal_host", {"origin": "https://ehr.internal"}),
        ("paging_port", {}),
        ("paging_port", {"port": 8080}),
    ],
)
async def test_a_next_link_to_another_origin_is_withheld_and_no_handle_or_token_goes_there(
    stage: BrokerStage, app: App, fault: str, parameters: dict[str, Any]
) -> None:
    """(NC-17) (PX-02) (PX-03) (PX-06): of the entries nothing is lost."""
    given = await app.standalone()
    stage.sandbox.fault(fault, **parameters)

    bundle = await search(app, given["access_token"], f"Observation?patient={given['patient']}&_count=2")

    links = {one["relation"]: one["url"] for one in bundle["link"]}
    assert links["next"] == WITHHELD
    assert links["self"].startswith(app.base)
    assert len(ids(bundle)) == 2
    (asked,) = stage.sandbox.journal("fhir")
    assert asked["status"] == 200


@pytest.mark.parametrize("style", STYLES)
async def test_pages_at_a_host_that_only_the_ehr_knows_are_walked_where_the_settings_name_it(
    sandbox: Sandbox, redis: Redis, tmp_path: Path, style: str
) -> None:
    """(NC-17) (PX-06): nothing is sent to an alias; the broker does not even look it up."""
    aliases = 'aliases = ["http://ehr.internal:8080/api/FHIR/R4"]'
    async with open_stage(sandbox, redis, tmp_path, ehr=aliases) as stage:
        stage.sandbox.switch(page_links=style)
        stage.sandbox.fault("paging_internal_host")
        app = stage.app()
        given = await app.standalone()
        path = f"Observation?patient={given['patient']}&_count=3"
        walked = [ids(bundle) async for bundle in pages(app, given["access_token"], path)]
        await app.close()

    assert len(walked) > 2
    assert sandbox.counts()["fhir"] == len(walked)


async def test_a_link_to_another_origin_cannot_be_followed_through_the_broker(stage: BrokerStage, app: App) -> None:
    """(NC-17) (PX-02) (PX-03)."""
    given = await app.standalone()
    before = upstream(stage.sandbox)

    for path in ("http://ehr.internal:8080/api/FHIR/R4?_getpages=x", "/ehr.internal/Observation", "@ehr.internal/x"):
        answer = await app.fhir(given["access_token"], path)
        assert (answer.status_code, code_of(answer)) == (403, "uninterpretable_interaction")

    assert upstream(stage.sandbox) == before


async def test_a_paging_session_that_is_gone_is_told_as_the_ehr_tells_it_and_asked_for_once(
    stage: BrokerStage, app: App
) -> None:
    """(NC-17) (EP-21): Epic's 4113; nothing is tried again."""
    given = await app.standalone()
    handle = given["access_token"]
    first = await search(app, handle, f"Observation?patient={given['patient']}&_count=2")
    stage.sandbox.fault("paging_gone")

    answer = await app.fhir(handle, str(link(app, first)))

    assert (answer.status_code, answer.json()["resourceType"]) == (410, "OperationOutcome")
    counts = stage.sandbox.counts()
    assert (counts["fhir"], counts["token.refresh_token"]) == (2, 0)


@pytest.mark.parametrize("style", STYLES)
async def test_a_page_link_is_good_for_its_own_authorization_alone(
    stage: BrokerStage, app: App, reports: App, style: str
) -> None:
    """(NC-17) (PX-07) (PX-16): another app with rights enough of its own may not turn it."""
    stage.sandbox.switch(page_links=style)
    given = await app.standalone(scope=FILTERED)
    first = await search(app, given["access_token"], f"Observation?patient={given['patient']}&{LABORATORY}&_count=2")
    other = await reports.token(grant_type="client_credentials", scope="system/Observation.rs", resource=reports.base)
    before = upstream(stage.sandbox)

    answer = await reports.fhir(other.json()["access_token"], str(link(app, first)))

    assert (answer.status_code, code_of(answer)) == (403, "uninterpretable_interaction")
    assert upstream(stage.sandbox) == before
    assert "made for another authorization" in audit_of(stage, "handle.use")[-1]["reason"]


def shown(answer: httpx2.Response) -> set[tuple[str, str]]:
    resources = [entry["resource"] for entry in answer.json()["entry"] if entry["search"]["mode"] != "outcome"]
    return {
        (one["resourceType"], *(concept["coding"][0]["code"] for concept in one.get("category", [])))
        for one in resources
    }


@pytest.mark.parametrize(
    ("scope", "search_path", "alone"),
    [
        (
            f"system/Patient.rs system/Observation.rs?{CATEGORY}|laboratory",
            "Patient?_revinclude=Observation:patient&_count=1",
            "Patient?",
        ),
        (f"system/Observation.rs?{CATEGORY}|laboratory", "Observation?foo=1&_count=2", f"Observation?{LABORATORY}&"),
    ],
    ids=["included", "filtered"],
)
async def test_a_place_in_a_search_that_is_cut_out_of_its_next_link_shows_no_more_than_that(
    stage: BrokerStage, reports: App, scope: str, search_path: str, alone: str
) -> None:
    """(PX-07) (SC-05): an EHR that is given a place takes no notice of what stands beside it."""
    stage.sandbox.switch(page_links="session-id")
    asked = {"grant_type": "client_credentials", "resource": reports.base}
    wide = await reports.token(**asked, scope="system/Observation.rs system/Patient.rs")
    handle = (await exchanged(reports, wide.json()["access_token"], scope=scope))["access_token"]
    first = await search(reports, handle, search_path)
    (place,) = [pair for pair in str(link(reports, first)).partition("?")[2].split("&") if "sessionID" in pair]

    answer = await reports.fhir(handle, alone + place)

    assert answer.status_code == 200
    assert json.loads(stage.audit_lines()[-2])["reason"].endswith("checked")
    assert shown(answer) <= {("Patient",), ("Observation", "laboratory")}
