"""The FHIR proxy, with requests made of FHIR's own words in every order, and of what is not FHIR at all."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.answers import Answer, assert_sound
from tests.fuzz.target import Target
from tests.fuzz.wire import connection, read_answer, request

PATIENT = "the-patient"
"""Stands for the patient of the handle, whom only the running stage knows."""
METHODS = ("GET", "GET", "GET", "POST", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
PATHS = (f"Patient/{PATIENT}", "Observation", "Observation/_search", f"Patient/{PATIENT}/Observation", "Observation/1",
         f"Patient/{PATIENT}/_history", f"Patient/{PATIENT}/$everything", "Patient", "", "metadata", "Group/1/$export",
         "Patient/somebody-else", "Observation/1/_history/1", "_history", "Condition", "Binary/1")  # fmt: skip
SEGMENTS = ("Patient", "Observation", PATIENT, "_search", "_history", "1", "$export", "..", ".", "", "%2e%2e", "%2F",
            "%00", "Patient%3Fa", "*", "fhir", "sandbox", "a" * 70)  # fmt: skip
PAIRS = (("patient", PATIENT), ("subject", f"Patient/{PATIENT}"), ("_count", "2"), ("_include", "Observation:subject"),
         ("_id", PATIENT), ("_format", "json"), ("_summary", "count"), ("code", "a,b"), ("patient", "somebody-else"),
         ("_revinclude", "Provenance:target"), ("date", "ge2020-01-01"), ("_sort", "-date"))  # fmt: skip
NAMES = ("patient", "_id", "_has:Observation:patient:code", "subject:Patient.name", "_page", "code", "_filter",
         "access_token", "patient:missing", "_format")  # fmt: skip
VALUES = (PATIENT, "2", "*", "xml", "text/html", "http://127.0.0.1:1/Patient/1", "%zz", "%ff", "")
JSON, FORM = ("Content-Type", "application/fhir+json"), ("Content-Type", "application/x-www-form-urlencoded")
HEADERS = (("Accept", "text/html"), ("Accept", "application/fhir+xml"), ("Prefer", "respond-async"),
           ("If-Match", 'W/"1"'), ("X-HTTP-Method-Override", "DELETE"), ("Range", "bytes=0-1"),
           ("X-Request-Id", "not hexadecimal"), ("Content-Encoding", "gzip"), ("Cookie", "a=b"), ("Origin", "null"),
           ("X-Forwarded-Host", "a"))  # fmt: skip
steady = settings(
    max_examples=300,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
Body = tuple[list[tuple[str, str]], bytes]
"""With the header that says what it is."""


def query_of(given: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[str]:
    return st.lists(given, max_size=2).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))


def as_json(document: object) -> Body:
    return [JSON], json.dumps(document).encode()


words = st.sampled_from([*SEGMENTS, *VALUES])
noise = st.text(max_size=12).map(quote)
segments = st.one_of(st.sampled_from(SEGMENTS), noise)
pairs = st.tuples(st.sampled_from(NAMES), st.one_of(st.sampled_from(VALUES), noise))
forms = query_of(st.one_of(st.sampled_from(PAIRS), pairs)).map(lambda text: ([FORM], text.encode()))
entries = st.fixed_dictionaries(
    {
        "request": st.fixed_dictionaries(
            {"method": st.sampled_from(METHODS), "url": st.one_of(st.sampled_from(PATHS), words)}
        )
    },
    optional={
        "fullUrl": words,
        "resource": st.fixed_dictionaries({}, optional={"resourceType": words, "id": words}),
    },
)
bundles = st.fixed_dictionaries(
    {"resourceType": st.just("Bundle"), "type": st.sampled_from(["batch", "batch", "transaction", "searchset", 1])},
    optional={"entry": st.lists(entries, max_size=3)},
)


@dataclass(frozen=True)
class Asked:
    """One request, before the stage's own values are put in."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: Body

    def bytes_for(self, target: Target, credentials: tuple[tuple[str, str], ...]) -> tuple[str, bytes]:
        """Return the path and the whole request."""
        path = f"/fhir/sandbox/{self.path}".replace(PATIENT, target.patient)
        query = self.query.replace(PATIENT, target.patient)
        kind, body = self.body
        content = body.replace(PATIENT.encode(), target.patient.encode())
        uri = f"{path}?{query}" if query else path
        return path, request(self.method, uri, [*credentials, *kind, *self.headers], content)


nothing: st.SearchStrategy[Body] = st.tuples(st.just([]), st.just(b""))
headers = st.lists(st.sampled_from(HEADERS), max_size=2, unique_by=lambda header: header[0])
plausible = st.builds(
    Asked,
    method=st.sampled_from(["GET", "HEAD"]),
    path=st.sampled_from(PATHS),
    query=query_of(st.sampled_from(PAIRS)),
    headers=headers,
    body=nothing,
)
anything = st.builds(
    Asked,
    method=st.sampled_from(METHODS),
    path=st.one_of(st.sampled_from(PATHS), st.lists(segments, max_size=4).map("/".join)),
    query=query_of(st.one_of(st.sampled_from(PAIRS), pairs)),
    headers=headers,
    body=st.one_of(
        nothing, forms, bundles.map(as_json), st.tuples(st.sampled_from([[JSON], [FORM], []]), st.binary(max_size=40))
    ),
)
batches = st.builds(
    Asked, method=st.just("POST"), path=st.just(""), query=st.just(""), headers=headers, body=bundles.map(as_json)
)
asked = st.one_of(plausible, anything, batches)


def ask(target: Target, wanted: Asked, *credentials: tuple[str, str]) -> Answer:
    path, sent = wanted.bytes_for(target, credentials)
    with connection(target.port) as connected:
        connected.sendall(sent)
        answer = read_answer(connected, wanted.method, path)
    assert answer is not None, sent
    return answer


@steady
@given(wanted=asked)
def test_no_request_with_a_handle_fails_or_says_too_much(target: Target, wanted: Asked) -> None:
    """Refused by the broker or answered by the EHR, always in FHIR's words (PX-01, PX-10, OA-09, HB-07)."""
    answer = ask(target, wanted, ("Authorization", f"Bearer {target.handle}"))

    assert_sound(answer, target)


@pytest.fixture
def silent_ehr(target: Target) -> Iterator[None]:
    """The EHR's FHIR server hears nothing while this lasts."""
    before: Any = target.stage.sandbox.counts()["fhir"]
    yield
    assert target.stage.sandbox.counts()["fhir"] == before


@steady
@given(wanted=asked, credentials=st.sampled_from(["", "Bearer", "Bearer sbh_x", "Basic cmVwb3J0czp4", "bearer \u00e9"]))
def test_no_request_without_a_handle_reaches_the_ehr(
    target: Target, silent_ehr: None, wanted: Asked, credentials: str
) -> None:
    """Public documents apart, the answer is 401, or a refusal that needs no handle to be seen (PX-02, OA-09)."""
    answer = ask(target, wanted, *([("Authorization", credentials)] if credentials else []))

    assert_sound(answer, target)
    assert answer.status in {200, 400, 401, 403, 404, 405, 413, 501}
