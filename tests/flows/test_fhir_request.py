"""What the EHR is asked by `Prefer`: to honour what the decision counts on, to show nothing that may not be read."""

import json
from dataclasses import replace

import pytest

from broker.errors import InvalidHandle, InvalidRequest
from broker.flows.fhir_request import FhirRequest, preferences
from broker.interactions import Interaction, parse_interaction
from broker.policy import decide
from tests.interactions.asking import ask, ask_bundle, entry
from tests.test_policy import ALL, ME, app, decided, grant, handle, known


def patches(*urls: str) -> bytes:
    entries = [{"request": {"method": "PATCH", "url": url}, "resource": {"resourceType": "Parameters"}} for url in urls]
    return json.dumps({"resourceType": "Bundle", "type": "batch", "entry": entries}).encode()


@pytest.mark.parametrize(
    ("method", "url", "held", "asked"),
    [
        ("GET", f"Observation?patient={ME}", "user/Observation.rs", []),
        ("GET", f"Observation?patient={ME}", "patient/Observation.rs", ["handling=strict"]),
        ("GET", "Observation?category=x", "user/Observation.rs?category=x", ["handling=strict"]),
        ("PATCH", "Observation/o1", "user/Observation.u", ["return=minimal"]),
        ("PUT", "Observation/o1", "user/Observation.cu", []),
    ],
)
def test_the_ehr_is_asked_what_the_decision_needs(method: str, url: str, held: str, asked: list[str]) -> None:
    assert preferences(decided(method, url, held=held, granted=ALL, policy=ALL)) == asked


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        (b"return=minimal", ["return=minimal"]),
        (b"return=representation", ["return=representation"]),
        (b'respond-later, RETURN = "OperationOutcome"; x', ["return=OperationOutcome"]),
        (b"return=minimal, return=representation", ["return=representation"]),
        (b'x="y, return=minimal', ["return=minimal"]),
        (b"return=bogus, handling=lenient, wait=10", []),
        (rb'return="represent\ation"', []),
    ],
)
def test_of_what_an_app_prefers_that_goes_on_which_fhir_has_and_only_in_its_spelling(
    said: bytes, asked: list[str]
) -> None:
    """(SC-02) (SC-05): an EHR that reads quotes and repetitions otherwise is asked the same."""
    interaction = parse_interaction("PUT", b"Observation/o1", b"", [(b"prefer", said)], None)
    held = "user/Observation.u"

    assert preferences(decide(handle(held), grant(held), known(app(held)), interaction)) == asked


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", b"Observation/o1", None),
        ("PATCH", b"Observation?_id=o1", None),
        ("POST", b"", patches("Observation/o1")),
        ("POST", b"", patches("Observation?_id=o1", "Observation/o2")),
    ],
    ids=["alone", "by criteria", "batch", "batch of two"],
)
@pytest.mark.parametrize("said", [b"", b"return=bogus", b"return=OperationOutcome", b'x="y'])
def test_what_a_patch_makes_of_a_resource_is_not_shown_to_whoever_may_not_read_it(
    method: str, path: bytes, body: bytes | None, said: bytes
) -> None:
    """(SC-02) (SC-09): whatever the app prefers, and also where it is an entry of a Bundle."""
    path, _, query = path.partition(b"?")
    headers = [(b"prefer", said), (b"content-type", b"application/fhir+json")]
    interaction = parse_interaction(method, path, query, headers, body)
    held = "user/Observation.us"

    assert preferences(decide(handle(held), grant(held), known(app(held)), interaction)) == ["return=minimal"]


CREATE = ask("POST Observation", If_None_Exist="identifier=a")
ENTRY = entry("POST Observation", {"resourceType": "Observation"}, ifNoneExist="identifier=a")


@pytest.mark.parametrize(
    ("interaction", "held", "asked"),
    [
        (CREATE, "user/Observation.cs", ["return=minimal"]),
        (ask_bundle(ENTRY), "user/Observation.cs", ["return=minimal"]),
        (ask_bundle(entry("GET Observation/o2"), ENTRY), "user/Observation.crs", ["return=minimal"]),
        (ask_bundle(ENTRY, Prefer="return=representation"), "user/Observation.crs", ["return=representation"]),
        (ask("POST Observation"), "user/Observation.c", []),
        (ask_bundle(entry("PUT Observation/o1", {"resourceType": "Observation"})), "user/Observation.u", []),
    ],
    ids=["alone", "in a Bundle", "beside a read", "by who may read", "without a condition", "an update"],
)
def test_what_a_conditional_create_finds_is_not_shown_to_whoever_may_not_read_it(
    interaction: Interaction, held: str, asked: list[str]
) -> None:
    """(SC-02) (SC-09): some servers answer with what is stored unless they are told not to."""
    permit = decide(handle(held), grant(held), known(app(held)), interaction)

    headers = arrived().headers_for_ehr(permit)
    assert headers == {"accept": "application/fhir+json"} | ({"prefer": asked[0]} if asked else {})


@pytest.mark.parametrize("name", [b"If-Match", b"If-None-Match", b"If-Modified-Since"])
def test_no_condition_goes_on_where_its_answer_would_tell_of_what_may_not_be_read(name: bytes) -> None:
    """(PX-14): 412 and 304 say which version there is."""
    request_ = replace(arrived((name, b'W/"1"')), method="GET", raw_path=b"Observation/o1")
    checked = decided("GET", "Observation/o1", held="user/Observation.rs?category=x")
    unchecked = decided("GET", "Observation/o1", held="user/Observation.rs")

    assert name.decode().lower() not in request_.headers_for_ehr(checked)
    assert request_.headers_for_ehr(unchecked)[name.decode().lower()] == 'W/"1"'


def arrived(*headers: tuple[bytes, bytes], handle: str = "sbh_x", query: bytes = b"") -> FhirRequest:
    return FhirRequest("ehr", handle, "POST", b"Observation", query, headers, None, "r")


@pytest.mark.parametrize(
    ("request_", "error", "cause"),
    [
        (arrived(handle=""), InvalidHandle, "no bearer token"),
        (arrived(query=b"a=1&access%5Ftoken=x"), InvalidRequest, "in the URL"),
        (arrived(query=b"a=1&note=%22sbh_0123456789ab"), InvalidRequest, "in the URL"),
        (arrived((b"Content-Length", b"2"), (b"Transfer-Encoding", b"chunked")), InvalidRequest, "two lengths"),
    ],
)
def test_an_unsound_request_is_refused(request_: FhirRequest, error: type[Exception], cause: str) -> None:
    with pytest.raises(error, match=cause):
        request_.require_sound()


@pytest.mark.parametrize(
    "request_",
    [arrived((b"content-length", b"2")), arrived(query=b"_getpages=1&_sbpage=Aa0-_sbh_0123456789abZ")],
    ids=["one length", "a page link in which there is something like a handle"],
)
def test_a_sound_request_passes(request_: FhirRequest) -> None:
    assert request_.require_sound() is None  # type: ignore[func-returns-value]  # it returns
