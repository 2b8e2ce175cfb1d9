"""`authorization_details`: SMART's way to say for which FHIR server a token is meant (RFC 9396)."""

import json
from typing import Any

import pytest

from tests.refusals.refusal import nothing_sent
from tests.stage import App, BrokerStage

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_granted_entry_is_in_the_token_response(public: App, stage: BrokerStage) -> None:
    """TR-10: type, location, scope and context, as the top level says them."""
    details = json.dumps([{"type": "smart_on_fhir", "locations": [stage.base], "scope": "patient/Condition.rs"}])
    response = await public.exchange(
        await public.authorize(scope="launch/patient patient/Patient.rs", authorization_details=details)
    )

    assert response["scope"] == "launch/patient patient/Condition.rs patient/Patient.rs"
    (entry,) = response["authorization_details"]
    assert entry.pop("fhirContext", None) == response.get("fhirContext")
    assert entry.pop("encounter", None) == response.get("encounter")
    assert entry == {
        "type": "smart_on_fhir",
        "locations": [stage.base],
        "scope": response["scope"],
        "patient": response["patient"],
    }


async def test_who_does_not_ask_by_details_is_not_answered_by_them(public: App) -> None:
    assert "authorization_details" not in await public.standalone()


async def test_the_type_is_advertised(public: App, stage: BrokerStage) -> None:
    """RFC 9396 §10."""
    for url in (
        f"{stage.base}/.well-known/smart-configuration",
        f"{stage.public_url}/.well-known/openid-configuration",
    ):
        assert (await public.http.get(url)).json()["authorization_details_types_supported"] == ["smart_on_fhir"]


ENTRY: dict[str, Any] = {"type": "smart_on_fhir", "locations": ["{base}"]}


@pytest.mark.parametrize(
    "details",
    [
        "not json",
        "{}",
        "[]",
        "[" * 1000,
        [1],
        [ENTRY, ENTRY],
        [{"locations": ["{base}"]}],
        [{"type": "smart_on_fhir"}],
        [{**ENTRY, "type": "openid_credential"}],
        [{**ENTRY, "locations": ["https://elsewhere.example/fhir"]}],
        [{**ENTRY, "locations": ["{base}", "https://elsewhere.example/fhir"]}],
        [{**ENTRY, "locations": "{base}"}],
        [{**ENTRY, "actions": ["read"]}],
        [{**ENTRY, "scope": ["patient/*.rs"]}],
    ],
)
async def test_any_other_details_are_refused(public: App, stage: BrokerStage, details: object) -> None:
    """RFC 9396 §5: malformed, of another type, for another location, or with more than the type has."""
    text = details if isinstance(details, str) else json.dumps(details).replace("{base}", stage.base)
    with nothing_sent(stage.sandbox):
        landing = await public.authorize(authorization_details=text)

    assert landing.parameters["error"] == "invalid_authorization_details"
    assert "code" not in landing.parameters
