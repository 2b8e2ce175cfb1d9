"""What a token opens: nothing without one, and no more than its scopes."""

from typing import Any

import pytest

from tests.stage import App, BrokerStage

pytestmark = pytest.mark.asyncio(loop_scope="module")

READABLE = ("Patient", "Condition", "Observation")
CLOSED = ("AllergyIntolerance", "CarePlan", "Encounter", "Immunization", "MedicationRequest", "Procedure")


async def test_without_a_token_nothing_is_read(public: App, stage: BrokerStage) -> None:
    """g10_unauthorized_access: 401, and a challenge that names no error where no token was sent (OA-09)."""
    patient = (await public.standalone())["patient"]
    answer = await public.http.get(f"{stage.base}/Patient/{patient}")

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="token broker"'
    assert answer.json()["resourceType"] == "OperationOutcome"


@pytest.mark.parametrize("scheme", ["Basic", "Token", "bearer-x"])
async def test_another_scheme_is_no_token(public: App, stage: BrokerStage, scheme: str) -> None:
    """OA-08: a bearer token comes in one way."""
    given = await public.standalone()
    headers = {"Authorization": f"{scheme} {given['access_token']}"}

    assert (await public.http.get(f"{stage.base}/Patient", headers=headers)).status_code == 401


@pytest.mark.parametrize("resource_type", READABLE)
async def test_a_granted_type_is_searched(limited: App, resource_type: str) -> None:
    """g10_restricted_access_test: what the user selected can be read (TR-05, SC-02)."""
    given = await limited.standalone(
        scope="launch/patient patient/Patient.rs patient/Condition.rs patient/Observation.rs"
    )
    query = f"?_id={given['patient']}" if resource_type == "Patient" else f"?patient={given['patient']}"

    assert (await limited.fhir(given["access_token"], resource_type + query)).status_code == 200


@pytest.mark.parametrize("resource_type", CLOSED)
async def test_any_other_type_is_forbidden(limited: App, resource_type: str) -> None:
    """g10_restricted_access_test: 401 or 403 for what was not selected (TR-05, OA-09)."""
    given = await limited.standalone(
        scope="launch/patient patient/Patient.rs patient/Condition.rs patient/Observation.rs"
    )
    answer = await limited.fhir(given["access_token"], f"{resource_type}?patient={given['patient']}")

    assert answer.status_code == 403
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


async def test_a_filter_in_a_scope_binds_each_search(public: App) -> None:
    """g10_smart_fine_grained_scopes: with `?category=…` only that is found, whatever a search says (SC-05)."""
    given = await public.standalone(scope="patient/Observation.rs?category=laboratory")
    search = f"Observation?patient={given['patient']}"

    assert (await public.fhir(given["access_token"], f"{search}&category=laboratory")).status_code == 200
    for asked, found in ((search, {"laboratory"}), (f"{search}&category=vital-signs", set[str]())):
        answer = await public.fhir(given["access_token"], asked)
        assert answer.status_code == 200
        assert {code for entry in answer.json().get("entry", ()) for code in _categories(entry)} == found


def _categories(entry: dict[str, Any]) -> set[str]:
    return {coding["code"] for category in entry["resource"].get("category", ()) for coding in category["coding"]}
