"""Every route that the application has, with what fits its description and what does not (OA-01, OA-03, CB-05)."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, note, settings
from schemathesis import Case, GenerationMode

from tests.docs.test_surface import route_texts
from tests.fuzz.answers import Answer, assert_sound
from tests.fuzz.routes import PROOF, TOKEN_EXCHANGE, exchange, openapi
from tests.fuzz.target import Target

FITTING, UNFITTING = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
EXAMPLES = {FITTING: 500, UNFITTING: 200}
"""In all; every operation gets the same number of them, but for these, which have much to be asked."""
TIMES = {"POST /oauth/token": 8, "GET /oauth/authorize": 4}
steady = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def texts(value: Any) -> Iterator[str]:
    """Every text in what was sent."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from texts(member)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


def send(case: Case[Any], target: Target, session: requests.Session) -> Answer:
    if case.headers and case.headers.get("DPoP") == PROOF:
        case.headers["DPoP"] = target.prover.proof(case.method, f"{target.stage.public_url}{case.formatted_path}")
    answer = case.call(base_url=target.stage.public_url, session=session, allow_redirects=False, timeout=10)
    headers = {name.lower(): ", ".join(values) for name, values in answer.headers.items()}
    return Answer(urlsplit(str(answer.request.url)).path, answer.status_code, headers, answer.content or b"")


@pytest.mark.timeout(150)  # every route there is, one after the other
@pytest.mark.parametrize("mode", EXAMPLES)
def test_no_route_fails_or_says_too_much(
    target: Target, session: requests.Session, mode: GenerationMode, subtests: pytest.Subtests
) -> None:
    """Errors in the dialect of the path, nothing repeated, nothing kept (OA-01, OA-03, CB-05, TR-03, HB-07)."""
    document = openapi(target)
    described = schemathesis.openapi.from_dict(document, config=schemathesis.Config())
    operations = [described[path][method] for path, item in document["paths"].items() for method in item]
    for operation in operations:

        @settings(steady, max_examples=EXAMPLES[mode] // len(operations) * TIMES.get(operation.label, 1))
        @given(case=operation.as_strategy(generation_mode=mode))
        def hold(case: Case[Any]) -> None:
            told = [*texts(case.query), *texts(case.body)]
            answer = send(case, target, session)
            note(f"{case.method} {answer.path} query {case.query} headers {case.headers} body {case.body!r}")
            assert_sound(answer, target, told)

        with subtests.test(operation.label):
            hold()


@pytest.mark.parametrize("kind", ["handle", "bound_handle"])
def test_what_is_known_of_a_token_exchange_leads_to_a_handle(
    target: Target, session: requests.Session, kind: str
) -> None:
    """Otherwise what is made of it would be refused before anything is looked at (HB-03)."""
    known = {name: schema["enum"][0] for name, schema in exchange(target).items() if name != "actor_token"}
    form = {**known, "grant_type": TOKEN_EXCHANGE, "client_id": "growth-chart", "subject_token": getattr(target, kind)}
    endpoint = f"{target.stage.public_url}/oauth/token"

    answer = session.post(endpoint, data=form, headers={"DPoP": target.prover.proof("POST", endpoint)}, timeout=10)

    assert (answer.status_code, answer.json()["token_type"]) == (200, "DPoP")


def test_no_route_is_left_out(target: Target) -> None:
    """What is not in the document are exports, which look like the FHIR requests of a test of their own."""
    described = {f"{method.upper()} {path}" for path, item in openapi(target)["paths"].items() for method in item}
    served = set(route_texts(target.stage.broker.application.routes))

    assert {route for route in served - described if "$export" not in route and "/_bulk/" not in route} == set()
    assert described <= served
