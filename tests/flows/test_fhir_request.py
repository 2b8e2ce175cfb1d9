"""What the EHR is asked by `Prefer`: to honour what the decision counts on, to show nothing that may not be read."""

import pytest

from broker.flows.fhir_request import preferences
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
