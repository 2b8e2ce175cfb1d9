"""A FHIR server over the default population, and clients with whatever access a test gives them."""

from itertools import count

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from sandbox.access import Access
from sandbox.fhir.capability import Publication
from sandbox.fhir.repository import Repository
from sandbox.fhir.routes import fhir_routes
from sandbox.population import build
from sandbox.population.elements import Population, Resource

BASE = "http://ehr.test"
ENDPOINTS = {
    "authorize": "http://ehr.test/oauth2/authorize",
    "token": "http://ehr.test/oauth2/token",
    "introspect": "http://ehr.test/oauth2/introspect",
    "revoke": "http://ehr.test/oauth2/revoke",
}


class Ehr:
    """The server, its clock, and the access tokens it has handed out."""

    def __init__(self, population: Population, untouched: Repository) -> None:
        self.population = population
        self.now = 1_795_000_000.0
        self._granted: dict[str, Access] = {}
        numbers = count(1)
        routes = fhir_routes(
            untouched.copy(lambda: self.now),
            lambda: BASE,
            lambda header: self._granted.get(header or ""),
            lambda: self.now,
            lambda _client_id: Publication(ENDPOINTS),
            new_id=lambda: f"new-{next(numbers)}",
        )
        self._app = Starlette(routes=routes)

    def client(self, *scopes: str, patient: str | None = None, client_id: str = "app") -> TestClient:
        """A client holding an access token of these scopes."""
        header = f"Bearer token-{len(self._granted)}"
        self._granted[header] = Access(client_id, frozenset(scopes), patient)
        return TestClient(self._app, base_url=BASE, headers={"Authorization": header})

    def anonymous(self) -> TestClient:
        return TestClient(self._app, base_url=BASE)

    def all(self, type_: str) -> list[Resource]:
        return list(self.population[type_].values())

    def patient(self, name: str) -> Resource:
        return next(patient for patient in self.all("Patient") if patient["name"][0]["text"] == name)

    def chart(self, type_: str, patient: Resource) -> list[Resource]:
        """The patient's resources of a type, read without the server's own index."""
        own = f"Patient/{patient['id']}"
        return [r for r in self.all(type_) if own in (r[e]["reference"] for e in ("subject", "patient") if e in r)]


def assert_refused(answer: httpx2.Response, status: int, code: str) -> str:
    """The answer is an OperationOutcome with this status and code; its sentence is handed back."""
    outcome = answer.json()
    issue = outcome["issue"][0]
    assert (answer.status_code, outcome["resourceType"], issue["severity"]) == (status, "OperationOutcome", "error")
    assert issue["code"] == code
    assert answer.headers["content-type"] == "application/fhir+json; charset=utf-8"
    return str(issue["diagnostics"])


def ids(bundle: Resource, mode: str = "match") -> list[str]:
    """The ids of a searchset's entries of one mode, in order."""
    return [entry["resource"]["id"] for entry in bundle.get("entry", []) if entry["search"]["mode"] == mode]


@pytest.fixture(scope="session")
def population() -> Population:
    return build(7, 200)


@pytest.fixture(scope="session")
def untouched(population: Population) -> Repository:
    """What every server begins with."""
    return Repository(population, lambda: 0.0)


@pytest.fixture
def ehr(population: Population, untouched: Repository) -> Ehr:
    return Ehr(population, untouched)


@pytest.fixture
def backend(ehr: Ehr) -> TestClient:
    """A backend service that may do everything."""
    return ehr.client("system/*.cruds", client_id="backend")


@pytest.fixture
def amy(ehr: Ehr) -> Resource:
    return ehr.patient("Amy Shaw")


@pytest.fixture
def camila(ehr: Ehr) -> Resource:
    return ehr.patient("Camila Lopez")


@pytest.fixture
def amys_app(ehr: Ehr, amy: Resource) -> TestClient:
    """An app launched for Amy Shaw that may read her whole chart."""
    return ehr.client("patient/*.rs", patient=amy["id"])
