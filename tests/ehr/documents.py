"""Documents of an EHR, as tests serve them."""

from typing import Any, Final

DOCUMENT: Final = {
    "authorization_endpoint": "https://auth.example/authorize",
    "token_endpoint": "https://auth.example/token",
    "capabilities": ["launch-ehr", "client-confidential-asymmetric", "https://ehr.example/capability"],
    "code_challenge_methods_supported": ["S256"],
    "grant_types_supported": ["authorization_code"],
}
OAUTH_URIS: Final = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"


def statement(**endpoints: object) -> dict[str, Any]:
    """Return a CapabilityStatement with the `oauth-uris` extension."""
    parts = [{"url": name, "valueUri": url} for name, url in endpoints.items()]
    security = {"extension": [{"url": "other"}, {"url": OAUTH_URIS, "extension": parts}]}
    return {"resourceType": "CapabilityStatement", "rest": [{"mode": "server", "security": security}]}
