"""The brand bundle and the long list of endpoints: what they hold, and what changes in them."""

from typing import Any

import pytest

from tests.sandbox.oauth.driver import FHIR_BASE, ORIGIN, Driver


def resources(bundle: dict[str, Any], type_: str) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == type_]


async def test_the_smart_configuration_leads_to_one_brand_of_the_bundle(ehr: Driver) -> None:
    """(BR-02, BR-03, BR-04)"""
    smart = (await ehr.http.get("/api/FHIR/R4/.well-known/smart-configuration")).json()
    bundle = (await ehr.http.get(smart["user_access_brand_bundle"])).json()
    assert (bundle["type"], bundle["timestamp"]) == ("collection", "2026-11-01T00:00:00Z")
    brands = resources(bundle, "Organization")
    assert len(brands) == 2
    assert [b["id"] for b in brands if smart["user_access_brand_identifier"] in b["identifier"]] == ["lakeside"]


async def test_every_brand_names_an_endpoint_of_the_bundle(ehr: Driver) -> None:
    """(BR-04)"""
    bundle = (await ehr.http.get("/brands.json")).json()
    (endpoint,) = resources(bundle, "Endpoint")
    assert endpoint["address"] == FHIR_BASE
    assert endpoint["extension"][0]["valueCode"] == "4.0.1"
    assert endpoint["contact"]
    for brand in resources(bundle, "Organization"):
        assert brand["endpoint"] == [{"reference": f"Endpoint/{endpoint['id']}"}]


async def test_a_brand_s_logo_is_there(ehr: Driver) -> None:
    (brand, _) = resources((await ehr.http.get("/brands.json")).json(), "Organization")
    (logo,) = brand["extension"][0]["extension"]
    assert logo["valueUrl"].startswith(f"{ORIGIN}/static/")
    assert (await ehr.http.get(logo["valueUrl"])).headers["content-type"] == "image/svg+xml"


async def test_the_bundles_are_valid_fhir_r4(ehr: Driver) -> None:
    from fhir.resources.R4B.bundle import Bundle  # noqa: PLC0415 - slow to import

    for path in ("/brands.json", "/endpoints.json?count=3"):
        assert Bundle.model_validate((await ehr.http.get(path)).json()).type == "collection"


@pytest.mark.parametrize("tag", ["{}", "W/{}", '"another", {}'])
@pytest.mark.parametrize("path", ["/brands.json", "/endpoints.json?count=5"])
async def test_who_has_a_bundle_already_is_told_so(ehr: Driver, path: str, tag: str) -> None:
    """(BR-01)"""
    etag = (await ehr.http.get(path)).headers["etag"]
    answer = await ehr.http.get(path, headers={"If-None-Match": tag.format(etag)})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert (await ehr.http.get(path, headers={"If-None-Match": '"another"'})).status_code == 200


async def test_the_list_has_as_many_endpoints_as_are_asked_for(ehr: Driver) -> None:
    bundle = (await ehr.http.get("/endpoints.json?count=5000")).json()
    addresses = [endpoint["address"] for endpoint in resources(bundle, "Endpoint")]
    assert len(set(addresses)) == 5000
    assert addresses[:2] == [FHIR_BASE, "https://ehr-00001.hospitals.example/api/FHIR/R4"]


@pytest.mark.parametrize("count", ["0", "-1", "x", "50001", ""])
async def test_a_count_is_a_number_with_a_limit(ehr: Driver, count: str) -> None:
    assert (await ehr.http.get(f"/endpoints.json?count={count}")).status_code == 400


@pytest.mark.parametrize(
    ("fault", "path", "parameters", "index"),
    [
        ("brands_moved", "/brands.json", {}, 0),
        ("endpoints_moved", "/endpoints.json?count=5", {}, 0),
        ("endpoints_moved", "/endpoints.json?count=5", {"entry": 3}, 3),
    ],
)
async def test_an_address_can_change_and_the_tag_with_it(
    ehr: Driver, fault: str, path: str, parameters: dict[str, Any], index: int
) -> None:
    """(BR-01, DS-15)"""
    before = await ehr.http.get(path)
    await ehr.arm(fault, address="https://new.example/r4", **parameters)
    after = await ehr.http.get(path)
    assert after.headers["etag"] != before.headers["etag"]
    addresses = [endpoint["address"] for endpoint in resources(after.json(), "Endpoint")]
    was = [endpoint["address"] for endpoint in resources(before.json(), "Endpoint")]
    assert [n for n, (old, new) in enumerate(zip(was, addresses, strict=True)) if old != new] == [index]
    assert addresses[index] == "https://new.example/r4"
