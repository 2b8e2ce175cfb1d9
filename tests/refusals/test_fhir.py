"""`/fhir/{ehr}/…`: what a handle may not do, and what an EHR's answer may not do (PX-*, OA-08, OA-09, HB-07, HB-08)."""

import asyncio
import json
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from broker.audit import AuditRecord, AuditTrail
from broker.credentials import HANDLE, mint, new_tag
from broker.errors import AuditUnavailable
from tests.refusals.refusal import assert_outcome, audited, logged, nothing_sent
from tests.stage import App, BrokerStage, MovableClock

pytestmark = pytest.mark.asyncio(loop_scope="module")

NO_CREDENTIALS = 'Bearer realm="token broker"'
INVALID_TOKEN = 'Bearer realm="token broker", error="invalid_token"'
INSUFFICIENT_SCOPE = 'Bearer realm="token broker", error="insufficient_scope"'


def ones(count: int) -> bytes:
    return b"\1" * count


UNKNOWN = mint(HANDLE, new_tag(ones), ones).reveal()


class Chart:
    """A handle on one patient's chart, and what belongs to another."""

    def __init__(self, given: dict[str, Any], other: str, other_observation: str) -> None:
        self.handle = str(given["access_token"])
        self.patient = str(given["patient"])
        self.other = other
        self.other_observation = other_observation


async def launched(stage: BrokerStage, app: App, patients: list[str], scope: str = "launch patient/*.rs") -> Any:
    return await app.launched(stage.sandbox.launch("broker-launch", patients[0]), scope=scope)


@pytest_asyncio.fixture(loop_scope="module")
async def backend(reports: App) -> str:
    scope = "system/Patient.rs system/Observation.rs"
    answer = await reports.token(grant_type="client_credentials", scope=scope, resource=reports.base)
    return str(answer.json()["access_token"])


@pytest_asyncio.fixture(loop_scope="module")
async def chart(stage: BrokerStage, app: App, reports: App, patients: list[str], backend: str) -> Chart:
    found = (await reports.fhir(backend, f"Observation?patient={patients[1]}&_count=1")).json()
    given = await launched(stage, app, patients)
    return Chart(given, patients[1], str(found["entry"][0]["resource"]["id"]))


async def noted(app: App, given: dict[str, Any], patient: str) -> httpx2.Response:
    """Write an Observation."""
    observation = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "note"},
        "subject": {"reference": f"Patient/{patient}"},
    }
    headers = {"Content-Type": "application/fhir+json"}
    return await app.fhir(given["access_token"], "Observation", method="POST", json=observation, headers=headers)


_record = AuditTrail.record


def _full_once_the_ehr_answers(trail: AuditTrail, entry: AuditRecord) -> None:
    if entry.event == "handle.answer":
        raise AuditUnavailable("the disk is full")
    _record(trail, entry)


async def raw(app: App, handle: str, target: str, method: str = "GET") -> httpx2.Response:
    """Request a target as it is written: no client library normalises it."""
    path = app.base.partition("://")[2].partition("/")[2]
    headers = {"Authorization": f"Bearer {handle}"}
    extensions = {"target": f"/{path}{target}".encode()}
    return await app.http.request(method, app.base, headers=headers, extensions=extensions)


class TestHandles:
    @pytest.mark.parametrize(
        ("headers", "challenge"),
        [
            ([], NO_CREDENTIALS),
            ([("Authorization", "Bearer")], INVALID_TOKEN),
            ([("Authorization", "Basic {handle}")], INVALID_TOKEN),
            ([("Authorization", "{handle}")], INVALID_TOKEN),
            ([("Authorization", "Bearer {handle}"), ("Authorization", "Bearer {handle}")], INVALID_TOKEN),
            ([("Authorization", "Bearer {handle}"), ("Authorization", "Basic eDp5")], INVALID_TOKEN),
            ([("Cookie", "access_token={handle}"), ("X-Access-Token", "{handle}")], NO_CREDENTIALS),
        ],
    )
    async def test_a_request_brings_one_bearer_handle(
        self, stage: BrokerStage, app: App, chart: Chart, headers: list[tuple[str, str]], challenge: str
    ) -> None:
        """OA-08, OA-09."""
        sent = [(name, value.format(handle=chart.handle)) for name, value in headers]
        with nothing_sent(stage.sandbox), logged("no bearer token, or two", hides=[chart.handle]):
            answer = await app.http.get(f"{app.base}/Patient/{chart.patient}", headers=sent)

        assert_outcome(answer, 401, "invalid_token", challenge=challenge, hides=[chart.handle, chart.patient])

    @pytest.mark.parametrize(
        "query",
        [
            "access_token=x",
            "access%5Ftoken=x",
            "%61ccess_token=x",
            "name={handle}",
            "_id=%73{handle_without_s}",
            "_count=1&note=sbr_{handle_without_prefix}",
        ],
    )
    async def test_a_handle_does_not_stand_in_a_url(
        self, stage: BrokerStage, app: App, chart: Chart, query: str
    ) -> None:
        """OA-08, PX-01."""
        query = query.format(
            handle=chart.handle, handle_without_s=chart.handle[1:], handle_without_prefix=chart.handle[4:]
        )
        with nothing_sent(stage.sandbox), logged("a token in the URL", hides=[chart.handle]):
            answer = await raw(app, chart.handle, f"/Patient/{chart.patient}?{query}")

        assert_outcome(answer, 400, "invalid_request", hides=[chart.handle, chart.patient])

    @pytest.mark.parametrize(
        ("handle", "cause"),
        [
            ("x", "malformed"),
            ("canary-at-raw-token", "malformed"),
            (UNKNOWN[:-1] + "0", "malformed"),
            (UNKNOWN + "x", "malformed"),
            (UNKNOWN.replace("sbh_", "sbr_"), "malformed"),
            (UNKNOWN.replace("sbh_", "SBH_"), "malformed"),
            ("z" * 10_000, "malformed"),
            (UNKNOWN, "unknown, expired or revoked"),
        ],
    )
    async def test_a_handle_that_was_never_issued_is_refused(
        self, stage: BrokerStage, app: App, handle: str, cause: str
    ) -> None:
        """OA-09."""
        hides = [handle] if len(handle) > 1 else []
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", cause, hides=hides):
            answer = await app.fhir(handle, "Patient/someone")

        assert_outcome(answer, 401, "invalid_token", challenge=INVALID_TOKEN, hides=[*hides, "someone"])

    async def test_a_malformed_handle_costs_no_look_up(self, stage: BrokerStage, app: App) -> None:
        before = (await stage.redis.info("commandstats"))["cmdstat_hgetall"]["calls"]
        await app.fhir(UNKNOWN[:-1] + "0", "Patient/someone")
        assert (await stage.redis.info("commandstats"))["cmdstat_hgetall"]["calls"] == before

        await app.fhir(UNKNOWN, "Patient/someone")
        assert (await stage.redis.info("commandstats"))["cmdstat_hgetall"]["calls"] == before + 1

    async def test_a_handle_ends_after_five_minutes(
        self, stage: BrokerStage, app: App, chart: Chart, borrowed_clock: MovableClock
    ) -> None:
        """HB-02."""
        borrowed_clock.advance(290)
        assert (await app.fhir(chart.handle, f"Patient/{chart.patient}")).status_code == 200
        borrowed_clock.advance(10)

        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "has expired"):
            answer = await app.fhir(chart.handle, f"Patient/{chart.patient}")
        assert_outcome(answer, 401, "invalid_token", challenge=INVALID_TOKEN, hides=[chart.handle, chart.patient])

    async def test_a_handle_is_bound_to_one_ehr(self, stage: BrokerStage, app: App, chart: Chart) -> None:
        """HB-02, OR-01: the two EHRs have one issuer."""
        elsewhere = App(f"{stage.public_url}/fhir/other", http=app.http)
        cause = "is bound to EHR sandbox"
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", cause, hides=[chart.patient]):
            answer = await elsewhere.fhir(chart.handle, f"Patient/{chart.patient}")

        assert_outcome(answer, 401, "invalid_token", challenge=INVALID_TOKEN, hides=[chart.handle, chart.patient])

    @pytest.mark.parametrize("ehr", ["nobody", "SANDBOX", "sandbox%2f", ""])
    async def test_an_ehr_that_is_not_configured_is_not_found(
        self, stage: BrokerStage, app: App, chart: Chart, ehr: str
    ) -> None:
        elsewhere = App(f"{stage.public_url}/fhir/{ehr}", http=app.http)
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "unknown EHR", hides=[chart.patient]):
            answer = await elsewhere.fhir(chart.handle, f"Patient/{chart.patient}")

        assert_outcome(answer, 404, "not_found", hides=[chart.handle, chart.patient])

    @pytest.mark.parametrize("document", ["metadata", ".well-known/smart-configuration"])
    async def test_an_ehr_that_is_not_configured_is_not_described(
        self, stage: BrokerStage, app: App, document: str
    ) -> None:
        with nothing_sent(stage.sandbox), logged("unknown EHR"):
            answer = await app.http.get(f"{stage.public_url}/fhir/nobody/{document}")

        assert_outcome(answer, 404, "not_found")

    @pytest.mark.parametrize(
        ("method", "document"),
        [("POST", "metadata"), ("PATCH", "metadata"), ("PUT", ".well-known/smart-configuration")],
    )
    async def test_a_handle_that_is_tried_at_a_document_by_another_method_is_recorded(
        self, stage: BrokerStage, app: App, chart: Chart, method: str, document: str
    ) -> None:
        """HB-09."""
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "uninterpretable_interaction: "):
            answer = await app.fhir(chart.handle, document, method=method)

        assert_outcome(answer, 403, "uninterpretable_interaction", hides=[chart.handle])

    async def test_a_revoked_grant_kills_its_handles_at_once(
        self, stage: BrokerStage, app: App, patients: list[str]
    ) -> None:
        """HB-08, IN-08."""
        before = {tag async for tag in stage.broker.grants.tags()}
        given = await launched(stage, app, patients)
        (tag,) = {tag async for tag in stage.broker.grants.tags()} - before
        assert await stage.broker.revoke_grant(tag, cause="test") == "revoked"

        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "unknown, expired or revoked"):
            answer = await app.fhir(given["access_token"], f"Patient/{given['patient']}")
        assert_outcome(answer, 401, "invalid_token", challenge=INVALID_TOKEN, hides=[given["access_token"]])


ANOTHER_PATIENTS = [
    "Patient/{other}",
    "Patient/{other}/_history",
    "Patient/{other}/_history/1",
    "Patient/{other}/$everything",
    "Patient/{other}/Observation",
    "Patient/{other}/*",
    "Patient?_id={other}",
    "Patient?_id={patient},{other}",
    "Observation?patient={other}",
    "Observation?patient=Patient/{other}",
    "Observation?patient={patient},{other}",
    "Observation?patient={patient}&patient={other}",
    "Observation?subject=Patient/{other}",
    "Observation?subject:Patient={other}",
    "Observation?patient:Patient={other}",
    "Condition?patient={other}&_summary=count",
    "Encounter?_has:Observation:encounter:patient={other}",
    "Observation?PATIENT={other}",
]


class TestPatients:
    @pytest.mark.parametrize("path", ANOTHER_PATIENTS)
    async def test_a_handle_for_one_patient_cannot_read_another(
        self, stage: BrokerStage, app: App, chart: Chart, path: str
    ) -> None:
        """PX-14, CX-01."""
        path = path.format(other=chart.other, patient=chart.patient)
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "", hides=[chart.other]):
            answer = await app.fhir(chart.handle, path)

        challenge = INSUFFICIENT_SCOPE if answer.json()["issue"][0]["code"] == "forbidden" else None
        code = "insufficient_scope" if challenge else "uninterpretable_interaction"
        assert_outcome(answer, 403, code, challenge=challenge, hides=[chart.other, chart.patient, chart.handle])

    @pytest.mark.parametrize("form", ["patient={other}", "_id={other}", "subject=Patient/{other}"])
    async def test_a_search_by_form_is_read_like_one_by_query(
        self, stage: BrokerStage, app: App, chart: Chart, form: str
    ) -> None:
        """PX-14, SC-02."""
        type_ = "Patient" if form.startswith("_id") else "Observation"
        content = form.format(other=chart.other)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "names another patient"):
            answer = await app.fhir(chart.handle, f"{type_}/_search", method="POST", content=content, headers=headers)

        assert_outcome(answer, 403, "insufficient_scope", challenge=INSUFFICIENT_SCOPE, hides=[chart.other])

    async def test_a_resource_of_another_patient_is_not_reached_by_its_id(
        self, stage: BrokerStage, app: App, chart: Chart
    ) -> None:
        """SC-15: the broker cannot know whose it is; the EHR's token is for one patient, and its refusal comes."""
        before = stage.sandbox.counts()["fhir"]
        answer = await app.fhir(chart.handle, f"Observation/{chart.other_observation}")

        assert answer.status_code in {403, 404}
        assert answer.json()["resourceType"] == "OperationOutcome"
        assert stage.sandbox.counts()["fhir"] == before + 1

    @pytest.mark.parametrize("path", ["Patient/{patient}", "Observation?patient={patient}", "Observation?_count=1"])
    async def test_the_handles_own_patient_is_answered(self, app: App, chart: Chart, path: str) -> None:
        assert (await app.fhir(chart.handle, path.format(patient=chart.patient))).status_code == 200


def entry(method: str, url: str, resource: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"request": {"method": method, "url": url}} | ({"resource": resource} if resource else {})


class TestScopes:
    @pytest.mark.parametrize(
        ("method", "path", "cause"),
        [
            ("POST", "Observation", "no scope covers Observation.c"),
            ("PUT", "Observation/1", "no scope covers Observation.u"),
            ("PATCH", "Observation/1", "no scope covers Observation.u"),
            ("DELETE", "Observation/1", "no scope covers Observation.d"),
            ("PUT", "Observation?identifier=1", "no scope covers Observation."),
            ("DELETE", "Observation?identifier=1", "no scope covers Observation.d"),
            ("PUT", "Patient/{patient}", "no scope covers Patient.u"),
        ],
    )
    async def test_a_reading_handle_cannot_write(
        self, stage: BrokerStage, app: App, chart: Chart, method: str, path: str, cause: str
    ) -> None:
        """SC-02, TR-05, OA-09."""
        body = json.dumps({"resourceType": "Observation", "note": "canary-note"}).encode()
        headers = {"Content-Type": "application/fhir+json"}
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", cause, hides=["canary-note"]):
            path = path.format(patient=chart.patient)
            answer = await app.fhir(chart.handle, path, method=method, content=body, headers=headers)

        assert_outcome(answer, 403, "insufficient_scope", challenge=INSUFFICIENT_SCOPE, hides=["canary-note", cause])

    @pytest.mark.parametrize(
        ("scope", "path", "cause"),
        [
            ("launch patient/Patient.rs", "Observation?_count=1", "no scope covers Observation.s"),
            ("launch patient/Patient.rs", "Observation/1", "no scope covers Observation.r"),
            ("launch patient/Patient.r", "Patient?_count=1", "no scope covers Patient.s"),
            ("launch patient/Patient.s", "Patient/{patient}", "no scope covers Patient.r"),
            ("launch patient/Patient.rs", "?_type=Patient,Observation", "no scope covers Observation.s"),
            ("launch patient/Patient.rs", "_history", "no scope covers *.s"),
            ("launch patient/Patient.rs", "Patient/{patient}/$everything", "no scope covers *.r"),
            ("launch patient/Patient.rs", "Patient/{patient}/Condition", "no scope covers Condition.s"),
            ("launch patient/Observation.rs", "Observation?_include=Observation:subject", "no scope covers *.r"),
            ("launch patient/Observation.rs", "Observation?_include=Observation:patient", "no scope covers Patient.r"),
            ("launch patient/Observation.rs", "Observation?_include=*", "no scope covers *.r"),
            ("launch patient/Observation.rs", "Observation?_revinclude=Condition:evidence", "covers Condition.s"),
            ("launch patient/Observation.rs", "Observation?subject:Patient.name=x", "no scope covers Patient.s"),
            ("launch patient/Observation.rs", "Observation?_has:Condition:evidence:code=x", "covers Condition.s"),
            (
                "launch patient/Observation.rs?category=laboratory",
                "Observation/_history",
                "Observation.s is covered with search parameters that this does not say",
            ),
        ],
    )
    async def test_every_type_that_a_request_reaches_needs_its_scope(
        self, stage: BrokerStage, app: App, patients: list[str], scope: str, path: str, cause: str
    ) -> None:
        """SC-02, SC-05, TR-05."""
        given = await launched(stage, app, patients, scope)
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", cause, hides=[patients[0]]):
            answer = await app.fhir(given["access_token"], path.format(patient=patients[0]))

        assert_outcome(answer, 403, "insufficient_scope", challenge=INSUFFICIENT_SCOPE, hides=[patients[0], cause])

    @pytest.mark.parametrize(
        "forbidden",
        [
            entry("GET", "Patient/{other}"),
            entry("GET", "Observation?patient={other}"),
            entry("DELETE", "Observation/1"),
            entry("POST", "Condition", {"resourceType": "Condition"}),
        ],
    )
    @pytest.mark.parametrize("kind", ["batch", "transaction"])
    async def test_a_bundle_with_one_forbidden_entry_is_refused_whole(
        self, stage: BrokerStage, app: App, chart: Chart, forbidden: dict[str, Any], kind: str
    ) -> None:
        """SC-09."""
        request = {**forbidden["request"], "url": forbidden["request"]["url"].format(other=chart.other)}
        entries = [entry("GET", f"Patient/{chart.patient}"), {**forbidden, "request": request}]
        bundle = {"resourceType": "Bundle", "type": kind, "entry": entries}
        headers = {"Content-Type": "application/fhir+json"}
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "insufficient_scope"):
            answer = await app.fhir(chart.handle, "", method="POST", json=bundle, headers=headers)

        assert_outcome(answer, 403, "insufficient_scope", challenge=INSUFFICIENT_SCOPE, hides=[chart.other])

    async def test_a_body_that_has_to_be_read_is_limited(self, stage: BrokerStage, app: App, chart: Chart) -> None:
        """PX-12."""
        headers = {"Content-Type": "application/fhir+json"}
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "of more than 4194304 bytes"):
            answer = await app.fhir(chart.handle, "", method="POST", content=b" " * ((4 << 20) + 1), headers=headers)

        assert_outcome(answer, 413, "too_large")

    async def test_a_body_of_too_many_values_is_not_read(self, stage: BrokerStage, app: App, chart: Chart) -> None:
        """SC-09: reading it would keep everybody else waiting."""
        headers, body = {"Content-Type": "application/fhir+json"}, b'{"entry":[' + b"{}," * 130_000 + b"{}]}"
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "a body of more than 250000 values"):
            answer = await app.fhir(chart.handle, "", method="POST", content=body, headers=headers)

        assert_outcome(answer, 403, "uninterpretable_interaction")


class TestInterpretation:
    @pytest.mark.parametrize(
        "target",
        [
            "/%2e%2e/secret",
            "/Patient/%2e",
            "/Patient/..",
            "/../sandbox/Patient/1",
            "//Patient/1",
            "/Patient//1",
            "/Patient/1/",
            "/Patient;x=1/1",
            "/Patient/1;x",
            "/Patient%2F1",
            "/Patient/1%00",
            "/Patient/a%20b",
            "/Patient/1/$export",
            "/$process-message",
            "/Patient/$match",
            "/Patient/1/unknown/thing",
            "/patient/1",
            "/PATIENT/1",
            "/Resource/1",
            "/Patient?_filter=name%20eq%20x",
            "/Patient?_query=everybody",
            "/Patient?_list=1",
            "/Patient?a=b;c=d",
            "/Patient?a=%zz",
            "/Patient?name=%ff",
            "/Patient?name=a%00b",
            "/Patient?name",
            "/Patient?=x",
            "/Patient?_getpages=x",
            "/Patient/1?_include=*",
            "/Observation?_count=1&_format=json&_format=xml",
        ],
    )
    async def test_what_cannot_be_interpreted_is_refused(
        self, stage: BrokerStage, app: App, chart: Chart, target: str
    ) -> None:
        """PX-03."""
        cause = "uninterpretable_interaction: "
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", cause, hides=[target]):
            answer = await raw(app, chart.handle, target)

        assert_outcome(answer, 403, "uninterpretable_interaction", hides=[target, chart.handle])

    @pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PURGE"])
    async def test_a_method_that_fits_no_path_is_refused(
        self, stage: BrokerStage, app: App, chart: Chart, method: str
    ) -> None:
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "uninterpretable_interaction: "):
            answer = await app.fhir(chart.handle, "Patient/1/_history", method=method)

        assert_outcome(answer, 403, "uninterpretable_interaction")

    @pytest.mark.parametrize(
        "header",
        ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-URL", "X-Rewrite-URL"],
    )
    async def test_a_header_cannot_change_what_was_decided(
        self, stage: BrokerStage, app: App, chart: Chart, header: str
    ) -> None:
        cause = "a header that overrides the method or the path"
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", cause):
            answer = await app.fhir(chart.handle, f"Patient/{chart.patient}", headers={header: "DELETE"})

        assert_outcome(answer, 403, "uninterpretable_interaction", hides=[chart.patient])

    async def test_an_asynchronous_answer_is_refused(self, stage: BrokerStage, app: App, chart: Chart) -> None:
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "only an export is answered"):
            answer = await app.fhir(chart.handle, "Observation?_count=1", headers={"Prefer": "respond-async"})

        assert_outcome(answer, 403, "uninterpretable_interaction")

    @pytest.mark.parametrize(
        ("path", "accept"),
        [
            ("Patient/{patient}", "application/fhir+xml"),
            ("Patient/{patient}", "text/html"),
            ("Observation?_count=1", "application/xml"),
            ("Observation?_count=1&_format=xml", "application/fhir+json"),
            ("Observation?_count=1&_format=application/fhir%2Bxml", "*/*"),
            ("Patient/{patient}?_format=xml", "application/fhir+json"),
            ("Patient/{patient}/_history?_format=ttl", "*/*"),
        ],
    )
    async def test_a_format_whose_links_cannot_be_rewritten_is_not_acceptable(
        self, stage: BrokerStage, app: App, chart: Chart, path: str, accept: str
    ) -> None:
        path = path.format(patient=chart.patient)
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "not_acceptable: "):
            answer = await app.fhir(chart.handle, path, headers={"Accept": accept})

        assert_outcome(answer, 406, "not_acceptable", hides=[chart.patient])


class TestPageLinks:
    @pytest_asyncio.fixture(loop_scope="module")
    async def next_page(self, reports: App, backend: str) -> str:
        """The next link of a search, relative to the FHIR base."""
        bundle = (await reports.fhir(backend, "Patient?_count=5")).json()
        (link,) = [link["url"] for link in bundle["link"] if link["relation"] == "next"]
        return str(link).removeprefix(reports.base)

    async def test_a_page_link_is_followed_as_it_was_given(self, reports: App, backend: str, next_page: str) -> None:
        """PX-07."""
        assert (await raw(reports, backend, next_page)).json()["resourceType"] == "Bundle"

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("_getpagesoffset=5", "_getpagesoffset=6"),
            ("_getpages=", "_getpages=x"),
            ("_count=5", "_count=50"),
            ("_sbpage=", "_sbpage=x"),
            ("_sbpage=", "_sbpage=."),
            ("?", "?_include=*&"),
            ("?_getpages", "/Patient?_getpages"),
            ("?", "?name=x&"),
        ],
    )
    async def test_a_changed_page_link_is_refused(
        self, stage: BrokerStage, reports: App, backend: str, next_page: str, old: str, new: str
    ) -> None:
        """PX-07."""
        assert old in next_page
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "uninterpretable_interaction: "):
            answer = await raw(reports, backend, next_page.replace(old, new, 1))

        assert_outcome(answer, 403, "uninterpretable_interaction")

    async def test_a_page_link_without_the_brokers_part_needs_every_type(
        self, stage: BrokerStage, reports: App, backend: str, next_page: str
    ) -> None:
        """PX-07."""
        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "no scope covers *.s"):
            answer = await raw(reports, backend, next_page.partition("&_sbpage=")[0])

        assert_outcome(answer, 403, "insufficient_scope", challenge=INSUFFICIENT_SCOPE)

    async def test_a_page_link_of_another_authorization_is_refused(
        self, stage: BrokerStage, app: App, reports: App, chart: Chart, next_page: str
    ) -> None:
        """PX-07."""
        again = await reports.token(grant_type="client_credentials", scope="system/Patient.rs", resource=reports.base)
        for other, handle in ((reports, again.json()["access_token"]), (app, chart.handle)):
            cause = "a page link that was changed, or made for another authorization"
            with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", cause):
                answer = await raw(other, handle, next_page)
            assert_outcome(answer, 403, "uninterpretable_interaction")


class TestTheEhrsAnswers:
    @pytest.mark.parametrize(
        ("fault", "status", "code", "cause"),
        [
            ("fhir_html", 502, "ehr_misbehaved", "something that is not FHIR JSON (OA-04)"),
            ("fhir_redirect", 502, "ehr_misbehaved", "the EHR redirects (status 302)"),
            ("fhir_drop", 504, "ehr_answer_lost", "no answer"),
        ],
    )
    async def test_what_is_no_fhir_answer_is_not_relayed(
        self, stage: BrokerStage, app: App, chart: Chart, fault: str, status: int, code: str, cause: str
    ) -> None:
        """PX-05, OA-04; a read that a connection did not take is sent once more on another (RFC 9110 §9.2.2)."""
        stage.sandbox.fault(fault, times=2)
        with audited(stage, "handle.answer", "failed", cause, hides=[chart.patient, "elsewhere"]):
            answer = await app.fhir(chart.handle, f"Patient/{chart.patient}")

        assert_outcome(answer, status, code, hides=["Maintenance", "elsewhere.invalid", chart.patient, cause])
        assert "location" not in answer.headers

    @pytest.mark.parametrize(("fault", "status"), [("fhir_500", 500), ("fhir_429", 429), ("fhir_403", 403)])
    async def test_a_fhir_error_is_relayed_without_the_ehrs_challenge_and_nothing_is_refreshed(
        self, stage: BrokerStage, app: App, chart: Chart, fault: str, status: int
    ) -> None:
        """PX-09, PX-10, PX-11, PX-16, SC-15."""
        stage.sandbox.fault(fault)
        before = stage.sandbox.counts()
        answer = await app.fhir(chart.handle, f"Patient/{chart.patient}")

        assert answer.status_code == status
        assert answer.json()["issue"][0]["diagnostics"] == "a fault was armed"
        assert "www-authenticate" not in answer.headers
        assert answer.headers["cache-control"] == "private, no-store"
        assert answer.headers.get("retry-after") == ("1" if status == 429 else None)
        after = stage.sandbox.counts()
        assert after["fhir"] == before["fhir"] + 1
        assert after["token"] == before["token"]

    async def test_a_body_that_breaks_off_never_ends_cleanly(self, stage: BrokerStage, app: App, chart: Chart) -> None:
        stage.sandbox.fault("fhir_drop_mid_body")
        with (
            audited(stage, "handle.answer", "failed", "the answer broke off"),
            pytest.raises(httpx2.RemoteProtocolError, match="incomplete chunked read"),
        ):
            await app.fhir(chart.handle, "Observation?_count=50")

    async def test_a_401_to_a_read_costs_one_refresh_and_one_more_try(
        self, stage: BrokerStage, app: App, chart: Chart
    ) -> None:
        """PX-08."""
        stage.sandbox.fault("fhir_401")
        before = stage.sandbox.counts()
        answer = await app.fhir(chart.handle, f"Patient/{chart.patient}")

        assert answer.json()["id"] == chart.patient
        after = stage.sandbox.counts()
        assert after["token.refresh_token"] == before["token.refresh_token"] + 1
        assert after["fhir"] == before["fhir"] + 2

    async def test_a_search_by_form_is_a_read(self, stage: BrokerStage, app: App, chart: Chart) -> None:
        """PX-08."""
        stage.sandbox.fault("fhir_401")
        before = stage.sandbox.counts()["fhir"]
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await app.fhir(chart.handle, "Observation/_search", method="POST", content="_count=1", headers=headers)

        assert answer.status_code == 200
        assert stage.sandbox.counts()["fhir"] == before + 2

    async def test_a_401_to_a_write_is_not_replayed(self, stage: BrokerStage, app: App, patients: list[str]) -> None:
        """PX-08."""
        given = await launched(stage, app, patients, "launch offline_access patient/Observation.cruds")
        stage.sandbox.fault("fhir_401")
        before = stage.sandbox.counts()
        with audited(stage, "handle.answer", "failed", "401 to a write"):
            answer = await noted(app, given, patients[0])

        assert_outcome(answer, 503, "ehr_unreachable", hides=["a fault was armed", given["access_token"]])
        assert answer.headers["retry-after"] == "1"
        after = stage.sandbox.counts()
        assert after["token.refresh_token"] == before["token.refresh_token"] + 1
        assert after["fhir"] == before["fhir"] + 1
        again = await noted(app, given, patients[0])
        assert again.status_code == 201
        assert again.headers["location"].startswith(f"{stage.base}/Observation/")

    @pytest.mark.parametrize("fault", [None, "fhir_html", "fhir_drop"])
    async def test_a_write_that_may_be_done_is_never_to_be_tried_again(
        self, stage: BrokerStage, app: App, patients: list[str], monkeypatch: pytest.MonkeyPatch, fault: str | None
    ) -> None:
        """HB-09: also where the disk is full by the time that the EHR has answered; else it would be done twice."""
        given = await launched(stage, app, patients, "launch patient/Observation.cruds")
        monkeypatch.setattr(AuditTrail, "record", _full_once_the_ehr_answers)
        before = stage.sandbox.counts()["fhir"]
        if fault is not None:
            stage.sandbox.fault(fault)
        answer = await noted(app, given, patients[0])

        status, code = (502, "ehr_misbehaved") if fault == "fhir_html" else (504, "ehr_answer_lost")
        assert_outcome(answer, status, code)
        assert "retry-after" not in answer.headers
        assert stage.sandbox.counts()["fhir"] == before + 1

    async def test_a_read_whose_answer_cannot_be_recorded_is_withheld_and_may_be_tried_again(
        self, app: App, chart: Chart, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """HB-09."""
        monkeypatch.setattr(AuditTrail, "record", _full_once_the_ehr_answers)
        answer = await app.fhir(chart.handle, f"Patient/{chart.patient}")

        assert_outcome(answer, 503, "audit_unavailable", hides=[chart.patient])
        assert answer.headers["retry-after"] == "1"

    async def test_a_second_401_ends_in_the_brokers_own_words(self, stage: BrokerStage, app: App, chart: Chart) -> None:
        """PX-08, PX-10."""
        stage.sandbox.fault("fhir_401_all")
        before = stage.sandbox.counts()
        with audited(stage, "handle.answer", "failed", "the EHR refuses the fresh token", hides=[chart.patient]):
            answer = await app.fhir(chart.handle, f"Patient/{chart.patient}")

        hides = ["a fault was armed", chart.patient, chart.handle, "canary-"]
        assert_outcome(answer, 401, "reauthorization_required", challenge=INVALID_TOKEN, hides=hides)
        after = stage.sandbox.counts()
        assert after["token.refresh_token"] == before["token.refresh_token"] + 1
        assert after["fhir"] == before["fhir"] + 2

    async def test_many_readers_of_an_expired_token_cost_one_refresh(
        self, stage: BrokerStage, app: App, chart: Chart
    ) -> None:
        """PX-08, RF-04."""
        stage.sandbox.expire()
        before = stage.sandbox.counts()["token.refresh_token"]
        answers = await asyncio.gather(*(app.fhir(chart.handle, f"Patient/{chart.patient}") for _ in range(5)))

        assert [answer.status_code for answer in answers] == [200] * 5
        assert stage.sandbox.counts()["token.refresh_token"] == before + 1

    async def test_a_refresh_that_the_ehr_refuses_ends_the_grant(
        self, stage: BrokerStage, app: App, patients: list[str]
    ) -> None:
        """RF-08."""
        given = await launched(stage, app, patients)
        stage.sandbox.fault("fhir_401")
        stage.sandbox.fault("token_invalid_grant", client_id="broker-launch")
        first = await app.fhir(given["access_token"], f"Patient/{patients[0]}")
        assert_outcome(first, 401, "reauthorization_required", challenge=INVALID_TOKEN, hides=["a fault was armed"])

        with nothing_sent(stage.sandbox), audited(stage, "handle.use", "denied", "needs_reauth"):
            second = await app.fhir(given["access_token"], f"Patient/{patients[0]}")
        assert_outcome(second, 401, "reauthorization_required", challenge=INVALID_TOKEN)
