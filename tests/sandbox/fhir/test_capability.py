"""The CapabilityStatement: open to all, XML unless asked otherwise, with the OAuth endpoints."""

from xml.etree import ElementTree as ET

import pytest
from starlette.testclient import TestClient

from sandbox.fhir.parameters import PARAMETERS
from sandbox.fhir.xml import to_xml
from sandbox.population.elements import Resource
from tests.sandbox.fhir.conftest import BASE, ENDPOINTS, Ehr

FHIR = "{http://hl7.org/fhir}"


@pytest.fixture
def statement(ehr: Ehr) -> Resource:
    resource: Resource = ehr.anonymous().get("/metadata", headers={"Accept": "application/fhir+json"}).json()
    return resource


@pytest.mark.parametrize(
    ("url", "accept", "json"),
    [
        ("/metadata", "*/*", False),
        ("/metadata", "application/fhir+xml", False),
        ("/metadata", "text/html", False),
        ("/metadata", "application/json", True),
        ("/metadata", "application/fhir+json", True),
        ("/metadata", "application/fhir+json;q=1.0, */*;q=0.1", True),
        ("/metadata?_format=json", "*/*", True),
        ("/metadata?_format=application/fhir%2Bjson", "application/fhir+xml", True),
        ("/metadata?_format=xml", "application/fhir+json", False),
    ],
)
def test_metadata_is_xml_unless_json_is_asked_for(ehr: Ehr, url: str, accept: str, *, json: bool) -> None:
    """EP-09."""
    answer = ehr.anonymous().get(url, headers={"Accept": accept})
    expected = "application/fhir+json; charset=utf-8" if json else "application/fhir+xml; charset=utf-8"
    assert (answer.status_code, answer.headers["content-type"]) == (200, expected)
    assert answer.text.startswith('{"resourceType":"CapabilityStatement"' if json else "<?xml")


def test_metadata_is_valid_fhir_r4(statement: Resource) -> None:
    from fhir.resources.R4B.capabilitystatement import CapabilityStatement  # noqa: PLC0415 - slow to import

    assert CapabilityStatement.model_validate(statement).fhirVersion == "4.0.1"


def test_metadata_names_the_oauth_endpoints(statement: Resource) -> None:
    """DS-11."""
    extension = statement["rest"][0]["security"]["extension"][0]
    assert extension["url"] == "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
    assert {uri["url"]: uri["valueUri"] for uri in extension["extension"]} == ENDPOINTS


def test_metadata_names_this_server_and_every_type_and_parameter(statement: Resource) -> None:
    assert statement["implementation"]["url"] == BASE
    resources = {resource["type"]: resource for resource in statement["rest"][0]["resource"]}
    assert {t: [p["name"] for p in r["searchParam"]] for t, r in resources.items()} == {
        type_: list(parameters) for type_, parameters in PARAMETERS.items()
    }


def test_the_xml_says_what_the_json_says(ehr: Ehr, statement: Resource) -> None:
    root = ET.fromstring(ehr.anonymous().get("/metadata").content)  # noqa: S314 - our own bytes
    assert root.tag == f"{FHIR}CapabilityStatement"
    extension = root.find(f"{FHIR}rest/{FHIR}security/{FHIR}extension")
    assert extension is not None
    uris = {uri.get("url"): uri[0].get("value") for uri in extension}
    assert uris == ENDPOINTS
    types = [element.get("value") for element in root.iterfind(f"{FHIR}rest/{FHIR}resource/{FHIR}type")]
    assert types == [resource["type"] for resource in statement["rest"][0]["resource"]]


def test_xml_writes_primitives_as_values_and_repeats_lists() -> None:
    resource = {
        "resourceType": "Basic",
        "a": [1, "<&>"],
        "b": {"c": True},
        "extension": [{"url": "u", "valueCode": "x"}],
    }
    assert to_xml(resource).partition(b"\n")[2].decode() == (
        '<Basic xmlns="http://hl7.org/fhir"><a value="1" /><a value="&lt;&amp;&gt;" /><b><c value="true" /></b>'
        '<extension url="u"><valueCode value="x" /></extension></Basic>'
    )


def test_only_reading_metadata_is_open(ehr: Ehr) -> None:
    client: TestClient = ehr.anonymous()
    assert client.get("/metadata").status_code == 200
    assert client.post("/metadata").status_code == 401
