"""The CapabilityStatement: what this server does, and where its OAuth endpoints are (DS-11)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sandbox.fhir.parameters import PARAMETERS, Parameter
from sandbox.population.elements import HL7, Resource

_OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
_INTERACTIONS = ("read", "vread", "update", "delete", "history-instance", "create", "search-type")


@dataclass(frozen=True, slots=True)
class Publication:
    """What a CapabilityStatement says of the OAuth endpoints, and how it is written."""

    endpoints: Mapping[str, str]
    """URLs by name: authorize, token, introspect, revoke; without any, there is no `oauth-uris` extension."""
    format: Literal["xml", "json"] = "xml"
    """What is sent when nothing is asked for: XML, as Epic answers (EP-09), or JSON."""
    only: bool = False
    """Send that whatever is asked for."""

    def wants_json(self, format_: str | None, accept: str) -> bool:
        """Say which it is to be; `_format` outranks Accept."""
        asked = accept if format_ is None else format_
        if self.format == "xml":
            return "json" in asked and not self.only
        return "xml" not in asked or self.only


def capability_statement(base_url: str, endpoints: Mapping[str, str]) -> Resource:
    """Return the statement of the server at `base_url`; `endpoints` are OAuth endpoint URLs by name."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": "2026-11-01",
        "publisher": "Sandbox EHR",
        "kind": "instance",
        "instantiates": ["http://hl7.org/fhir/us/core/CapabilityStatement/us-core-server"],
        "software": {"name": "Sandbox EHR", "version": "1"},
        "implementation": {"description": "A simulated EHR of synthetic patients", "url": base_url},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [
            {
                "mode": "server",
                "security": _security(endpoints),
                "resource": [_resource(type_) for type_ in PARAMETERS],
                "interaction": [{"code": "batch"}, {"code": "transaction"}],
            }
        ],
    }


def _security(endpoints: Mapping[str, str]) -> Resource:
    uris = [{"url": name, "valueUri": url} for name, url in endpoints.items()]
    extension = {"extension": [{"url": _OAUTH_URIS, "extension": uris}]} if uris else {}
    service = {"system": f"{HL7}/restful-security-service", "code": "SMART-on-FHIR", "display": "SMART-on-FHIR"}
    return {
        **extension,
        "cors": True,
        "service": [{"coding": [service], "text": "OAuth2 using SMART-on-FHIR profile"}],
    }


def _resource(type_: str) -> Resource:
    parameters = PARAMETERS[type_]
    references = [f"{type_}:{p.name}" for p in parameters.values() if p.kind == "reference"]
    statement: Resource = {
        "type": type_,
        "interaction": [{"code": code} for code in _INTERACTIONS],
        "versioning": "versioned-update",
        "readHistory": True,
        "updateCreate": True,
        "conditionalCreate": True,
        "conditionalRead": "not-match",
        "conditionalUpdate": False,
        "conditionalDelete": "not-supported",
    }
    if references:
        statement["searchInclude"] = references
    statement["searchParam"] = [_parameter(parameter) for parameter in parameters.values()]
    if type_ == "Patient":
        definition = "http://hl7.org/fhir/OperationDefinition/Patient-everything"
        statement["operation"] = [{"name": "everything", "definition": definition}]
    return statement


def _parameter(parameter: Parameter) -> Resource:
    return {"name": parameter.name, "type": parameter.kind}
