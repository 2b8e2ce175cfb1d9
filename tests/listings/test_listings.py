"""Bundles in which vendors and providers list their endpoints (BR-04, BR-06)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidRequest
from broker.listings import Listing, read_listings

VERSION = "http://hl7.org/fhir/StructureDefinition/endpoint-fhir-version"
ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
REST = {"system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "hl7-fhir-rest"}


def bundle(*resources: dict[str, Any]) -> dict[str, Any]:
    entries = [
        {"fullUrl": f"https://lists.example/{r['resourceType']}/{r.get('id')}", "resource": r} for r in resources
    ]
    return {"resourceType": "Bundle", "type": "collection", "timestamp": "2026-11-01T00:00:00Z", "entry": entries}


def endpoint(
    known_as: str = "e1", /, address: object = "https://fhir.clinic.example/r4/", **more: Any
) -> dict[str, Any]:
    return {"resourceType": "Endpoint", "id": known_as, "status": "active", "address": address, **more}


def brand(name: str, *references: str, **more: Any) -> dict[str, Any]:
    refers = [{"reference": reference} for reference in references]
    return {"resourceType": "Organization", "id": name.lower(), "name": name, "endpoint": refers, **more}


def test_an_endpoint_is_called_what_its_brand_is_called() -> None:
    """(BR-04)"""
    listed = bundle(
        brand("Affiliate", "https://lists.example/Endpoint/e1", partOf={"reference": "Organization/health"}),
        brand("Good Health", "https://lists.example/Endpoint/e1"),
        endpoint(extension=[{"url": VERSION, "valueCode": "4.0.1"}], connectionType=REST),
    )

    assert read_listings(listed).found == (
        Listing("https://lists.example/Endpoint/e1", "Good Health", "https://fhir.clinic.example/r4", "4.0.1"),
    )


def test_references_may_be_relative_or_contained() -> None:
    """(BR-04)"""
    contained = brand("Inside", "#in", contained=[endpoint("in", "https://in.example/fhir")])
    found = read_listings(bundle(brand("Beside", "Endpoint/e1"), endpoint(), contained)).found

    assert {(listing.name, listing.fhir_base) for listing in found} == {
        ("Beside", "https://fhir.clinic.example/r4"),
        ("Inside", "https://in.example/fhir"),
    }


def test_a_plain_bundle_of_endpoints_names_them_itself() -> None:
    listed = bundle(
        endpoint("e1", "https://a.example/interconnect/api/FHIR/DSTU2", name="Clinic A"),
        endpoint("e2", "https://b.example/api/FHIR/R4", managingOrganization={"display": "Clinic B"}),
        endpoint("e3", "https://c.example/x", contained=[{"resourceType": "Organization", "name": "Clinic C"}]),
        endpoint("e4", "https://d.example/x"),
    )

    assert [(listing.name, listing.fhir_version) for listing in read_listings(listed).found] == [
        ("Clinic A", "1.0.2"),
        ("Clinic B", "4.0.1"),
        ("Clinic C", None),
        ("d.example", None),
    ]


@pytest.mark.parametrize(
    ("spoiled", "cause"),
    [
        (endpoint(address="ftp://clinic.example"), "not an absolute https URL"),
        (endpoint(address="http://clinic.example/r4"), "not an absolute https URL"),
        (endpoint(address="https://user:pw@clinic.example"), "not an absolute https URL"),
        (endpoint(address="https://clinic.example/r4?x=1"), "not an absolute https URL"),
        (endpoint(address="https://[::1"), "not an absolute https URL"),
        (endpoint(address=None, _address={"extension": [{"url": ABSENT, "valueCode": "asked-declined"}]}), "absolute"),
        (endpoint(status="off"), "not active"),
        (endpoint(connectionType={"code": "direct-project"}), "not a FHIR REST endpoint"),
    ],
)
def test_what_cannot_be_used_is_left_out_with_its_reason(spoiled: dict[str, Any], cause: str) -> None:
    """Other endpoints of the same bundle are still read (BR-06)."""
    listings = read_listings(bundle(spoiled, endpoint("good", "https://good.example/fhir")))

    assert [listing.fhir_base for listing in listings.found] == ["https://good.example/fhir"]
    assert len(listings.left_out) == 1
    assert cause in listings.left_out[0]


def test_an_address_that_is_listed_twice_is_one_ehr() -> None:
    listings = read_listings(bundle(endpoint("e1"), endpoint("e2")))

    assert (len(listings.found), len(listings.left_out)) == (1, 1)


@pytest.mark.parametrize("document", [{}, {"resourceType": "Bundle"}, {"resourceType": "Patient", "entry": []}])
def test_something_else_than_a_bundle_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="not a FHIR Bundle"):
        read_listings(document)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = ("address", "status", "connectionType", "extension", "name", "contained", "managingOrganization", "endpoint")


@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(MEMBERS, json_values)), max_size=4))
def test_no_bundle_breaks_the_reader(resources: list[dict[str, Any]]) -> None:
    kinds = ("Endpoint", "Organization")
    entries = [{"fullUrl": "u", "resource": {"resourceType": kind, **r}} for r in resources for kind in kinds]
    listings = read_listings({"resourceType": "Bundle", "entry": entries})

    assert all(listing.fhir_base.startswith(("https://", "http://")) for listing in listings.found)
    assert all(listing.name.isprintable() for listing in listings.found)
