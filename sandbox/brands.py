"""Who is behind the FHIR base: a SMART user-access brand bundle, and a vendor's list of thousands of endpoints."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sandbox.oauth.server import AuthorizationServer

UPDATED = "2026-11-01T00:00:00Z"
MOST_ENDPOINTS = 50_000
_STRUCTURE = "http://hl7.org/fhir/StructureDefinition"
_URI = "urn:ietf:rfc:3986"
_CONNECTION = {
    "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type",
    "code": "hl7-fhir-rest",
}
_PAYLOAD = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/endpoint-payload-type", "code": "none"}]}
_BRANDS = (
    ("lakeside", "Lakeside Health", "https://lakeside.example", None),
    ("lakeside-children", "Lakeside Children's Hospital", "https://children.lakeside.example", "lakeside"),
)
"""Id, name, identifier (a URL without www and path, BR-05) and the brand it is part of."""

Resource = dict[str, Any]


def brand_routes(server: AuthorizationServer) -> list[BaseRoute]:
    """Return the routes."""

    async def brands(request: Request) -> Response:
        settings = server.settings
        struck = server.faults.next("brands.answer")
        address = struck.parameters["address"] if struck else settings.fhir_base
        return _cached(request, brand_bundle(settings.public_url, address))

    async def endpoints(request: Request) -> Response:
        text = request.query_params.get("count", "1000")
        if not text.isascii() or not text.isdigit() or not 0 < int(text) <= MOST_ENDPOINTS:
            return Response(f"count is a number up to {MOST_ENDPOINTS}", 400)
        struck = server.faults.all("endpoints_bundle.answer")
        moved = {int(armed.parameters["entry"]): armed.parameters["address"] for armed in struck}
        addresses = [server.settings.fhir_base, *(_address(number) for number in range(1, int(text)))]
        return _cached(request, endpoints_bundle([moved.get(n, old) for n, old in enumerate(addresses)]))

    return [Route("/brands.json", brands), Route("/endpoints.json", endpoints)]


def brand_bundle(public_url: str, address: str) -> Resource:
    """Return the brand bundle (BR-03, BR-04): two brands, one the part of the other, and the endpoint of both."""
    endpoint = _endpoint("lakeside-r4", "Lakeside Health, FHIR R4", address, public_url)
    return _bundle([*(_organization(public_url, *brand) for brand in _BRANDS), endpoint])


def endpoints_bundle(addresses: list[str]) -> Resource:
    """Return an Epic-style list of endpoints, one for each address."""
    return _bundle(
        [
            _endpoint(f"endpoint-{number}", f"Hospital {number:05}", address, "https://hospitals.example")
            for number, address in enumerate(addresses)
        ]
    )


def _organization(public_url: str, id_: str, name: str, identifier: str, parent: str | None) -> Resource:
    portal = [
        {"url": "portalName", "valueString": f"{name} Portal"},
        {"url": "portalUrl", "valueUrl": public_url},
        {"url": "portalEndpoint", "valueReference": {"reference": "Endpoint/lakeside-r4"}},
    ]
    brand = [{"url": "brandLogo", "valueUrl": f"{public_url}/static/lakeside.svg"}]
    organization: Resource = {
        "resourceType": "Organization",
        "id": id_,
        "extension": [
            {"url": f"{_STRUCTURE}/organization-brand", "extension": brand},
            {"url": f"{_STRUCTURE}/organization-portal", "extension": portal},
        ],
        "identifier": [{"system": _URI, "value": identifier}],
        "active": True,
        "type": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/organization-type", "code": "prov"}]}],
        "name": name,
        "telecom": [{"system": "url", "value": identifier}],
        "address": [{"line": ["1 Lakeside Way"], "city": "Madison", "state": "WI", "postalCode": "53703"}],
        "endpoint": [{"reference": "Endpoint/lakeside-r4"}],
    }
    return organization | ({"partOf": {"reference": f"Organization/{parent}"}} if parent else {})


def _endpoint(id_: str, name: str, address: str, contact: str) -> Resource:
    return {
        "resourceType": "Endpoint",
        "id": id_,
        "extension": [{"url": f"{_STRUCTURE}/endpoint-fhir-version", "valueCode": "4.0.1"}],
        "status": "active",
        "connectionType": _CONNECTION,
        "name": name,
        "contact": [{"system": "url", "value": contact}],
        "payloadType": [_PAYLOAD],
        "address": address,
    }


def _bundle(resources: list[Resource]) -> Resource:
    entry = [
        {"fullUrl": f"https://lakeside.example/{resource['resourceType']}/{resource['id']}", "resource": resource}
        for resource in resources
    ]
    return {"resourceType": "Bundle", "type": "collection", "timestamp": UPDATED, "entry": entry}


def _address(number: int) -> str:
    return f"https://ehr-{number:05}.hospitals.example/api/FHIR/R4"


def _cached(request: Request, document: Mapping[str, Any]) -> Response:
    """Answer with an entity tag, or 304 to who has the document already (BR-01)."""
    body = json.dumps(document, separators=(",", ":")).encode()
    headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"', "Cache-Control": "max-age=300"}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if headers["ETag"] in known:
        return Response(None, 304, headers)
    return Response(body, headers={**headers, "Content-Type": "application/fhir+json"})
