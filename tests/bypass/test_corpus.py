"""The written attempts, played to a real broker in front of the sandbox, whose token opens everything (PX-*, SC-*)."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from broker.store.embedded import EmbeddedServer
from tests.bypass.corpus import Attempt, read_attempts
from tests.bypass.stage import Target, running_target
from tests.fuzz.answers import Answer
from tests.stage import Sandbox

ATTEMPTS = read_attempts()
OF_ONE_PATIENT = frozenset({"mine", "minetype", "minewriter", "chart"})
TYPES = {"observations": {"Observation"}, "minetype": {"Observation"}, "labs": {"Observation"}, "creator": set[str]()}
"""The types that a handle may see, where these are not all."""
ENVELOPES = {"Bundle", "OperationOutcome", "CapabilityStatement"}


@pytest.fixture(scope="module")
def target(
    sandbox_process: Sandbox, valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    sandbox_process.reset()
    with running_target(sandbox_process, valkey, tmp_path_factory.mktemp("bypass")) as target:
        yield target


def marked(mark: str) -> list[Any]:
    chosen = [attempt for attempt in ATTEMPTS if attempt.mark == mark]
    return [pytest.param(one, id=f"{one.place} {one.handle} {one.tries}") for one in chosen]


@pytest.mark.parametrize("attempt", marked("!"))
def test_an_attempt_is_refused_before_the_ehr_hears_of_it(target: Target, attempt: Attempt) -> None:
    answer, calls = target.play(attempt)

    assert calls == 0
    assert_refused(answer)


@pytest.mark.parametrize("attempt", marked("~"))
def test_an_attempt_shows_nothing_that_is_not_the_handles(target: Target, attempt: Attempt) -> None:
    answer, calls = target.play(attempt)

    assert answer is not None
    if not calls:
        assert_refused(answer)
    assert not foreign(answer, attempt.handle, target)


@pytest.mark.parametrize("attempt", marked("+"))
def test_what_is_allowed_is_answered_by_the_ehr(target: Target, attempt: Attempt) -> None:
    answer, calls = target.play(attempt)

    assert answer is not None
    assert answer.status == 200, answer.text
    assert calls == (0 if attempt.target == "metadata" else 1)
    assert not foreign(answer, attempt.handle, target)


def test_what_an_attempt_must_not_show_is_there_to_be_shown(target: Target) -> None:
    """Else nothing could be found in the answers to the attempts."""
    wide = Attempt("", "wide", "+", "GET", "Observation?patient={other}&_include=Observation:subject", (), None, "")
    answer, calls = target.play(wide)

    assert calls == 1
    assert answer is not None
    for handle in ("mine", "chart", "observations", "minetype", "labs", "creator"):
        assert foreign(answer, handle, target), handle


def test_there_are_many_attempts_and_no_two_are_the_same() -> None:
    counts = Counter(attempt.mark for attempt in ATTEMPTS)
    made = Counter((one.handle, one.method, one.target, one.headers, one.body) for one in ATTEMPTS)

    assert counts["!"] >= 500
    assert counts["~"] >= 100
    assert counts["+"] >= 20
    assert [what for what, times in made.items() if times > 1] == []


def assert_refused(answer: Answer | None) -> None:
    """Refused by the broker in FHIR's words; or, where it is not HTTP, by the server, which knows no others."""
    assert answer is not None
    assert answer.status in {400, 401, 403, 404, 405, 406}, answer.text
    if answer.is_head or (answer.status == 400 and answer.body == b"Invalid HTTP request received."):
        return
    assert answer.headers["content-type"] == "application/fhir+json", answer.text
    outcome = json.loads(answer.body)
    assert (outcome["resourceType"], len(outcome["issue"])) == ("OperationOutcome", 1)
    assert outcome["issue"][0]["details"]["coding"][0]["system"] == "urn:smart-token-broker:error"


def foreign(answer: Answer, handle: str, target: Target) -> list[str]:
    """Return what an answer shows that its handle must not see."""
    text = answer.body.decode()
    found = [target.names["other"]] if handle in OF_ONE_PATIENT and target.names["other"] in text else []
    resources = list(_resources(json.loads(text))) if text.startswith("{") else []
    if handle in TYPES:
        found += {one["resourceType"] for one in resources} - TYPES[handle] - ENVELOPES
    if handle == "labs":
        found += [
            one["id"] for one in resources if one["resourceType"] == "Observation" and "laboratory" not in str(one)
        ]
    return found


def _resources(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "resourceType" in node:
            yield node
        for value in node.values():
            yield from _resources(value)
    elif isinstance(node, list):
        for value in node:
            yield from _resources(value)
