"""What the EHR is asked by `Prefer`: to honour what the decision counts on, to show nothing that may not be read."""

import pytest

from broker.errors import InvalidHandle, InvalidRequest
from broker.flows.fhir_request import FhirRequest, preferences
from tests.test_policy import ALL, ME, decided


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
