"""The CapabilityStatement of an EHR, as it is at the broker: its endpoints and its security name the broker only."""

import json
from dataclasses import dataclass, field
from typing import Any, Final

from broker.apps import Directory
from broker.clock import Clock
from broker.egress import Egress
from broker.ehr.endpoints import OAUTH_URIS, parse_json_object
from broker.ehr.url_map import UrlMap
from broker.errors import EhrMisbehaved, EhrUnreachable
from broker.settings import EhrSettings
from broker.single_flight import SingleFlight

_CACHE_SECONDS: Final = 300.0
_FAILED_SECONDS: Final = 5.0
"""Anybody may ask for metadata, so a failure is remembered, too."""
_TIMEOUT_SECONDS: Final = 10.0
_STATEMENT_BYTES: Final = 16 << 20
_SERVICE: Final = "http://terminology.hl7.org/CodeSystem/restful-security-service"


@dataclass(frozen=True, slots=True)
class DescribeEhr:
    """Answers `metadata` for the broker's own FHIR bases."""

    directory: Directory
    egress: Egress
    clock: Clock
    statements: dict[str, tuple[float, bytes]] = field(default_factory=dict)
    """Until when, and what; empty where the last attempt failed."""
    flights: SingleFlight[bytes] = field(default_factory=SingleFlight)

    async def metadata(self, ehr_id: str) -> bytes:
        """Return the EHR's CapabilityStatement with endpoints and security pointing at the broker.

        Raises `NotFound`, `EhrError`.
        """
        ehr = self.directory.ehr(ehr_id)
        until, body = self.statements.get(ehr.id, (0.0, b""))
        if until <= self.clock():
            return await self.flights.run(ehr.id, lambda: self._fetch(ehr))
        if not body:
            raise EhrUnreachable(f"metadata of {ehr.id} could not be read a moment ago")
        return body

    async def _fetch(self, ehr: EhrSettings) -> bytes:
        """Who comes meanwhile waits for the same: a failure is remembered only once it is one."""
        try:
            body = await self._read(ehr)
        except Exception:
            self.statements[ehr.id] = (self.clock() + _FAILED_SECONDS, b"")
            raise
        self.statements[ehr.id] = (self.clock() + _CACHE_SECONDS, body)
        return body

    async def _read(self, ehr: EhrSettings) -> bytes:
        answer = await self.egress.fetch(
            "GET",
            f"{ehr.fhir_base}/metadata",
            headers=self.directory.sites(ehr)[0].headers(ehr.profile.fhir_accept),
            timeout=_TIMEOUT_SECONDS,
            limit=_STATEMENT_BYTES,
        )
        statement = parse_json_object(answer.body) if answer.status == 200 else None
        if statement is None or statement.get("resourceType") != "CapabilityStatement":
            raise EhrMisbehaved(f"metadata of {ehr.id} (status {answer.status}) is not a CapabilityStatement (DS-14)")
        return json.dumps(self._point_here(statement, self.directory.urls(ehr.id, ehr.fhir_base))).encode()

    def _point_here(self, statement: dict[str, Any], urls: UrlMap) -> dict[str, Any]:
        base, oauth = urls.ours, f"{self.directory.public_url}/oauth"
        described: dict[str, Any] = json.loads(urls.name_broker(json.dumps(statement)))
        endpoints = {"authorize": "authorize", "token": "token", "introspect": "introspect", "revoke": "revoke"}
        security = {
            "extension": [
                {
                    "url": OAUTH_URIS,
                    "extension": [{"url": u, "valueUri": f"{oauth}/{path}"} for u, path in endpoints.items()],
                }
            ],
            "service": [{"coding": [{"system": _SERVICE, "code": "SMART-on-FHIR"}], "text": "SMART on FHIR"}],
        }
        given = described.get("rest")
        parts = [part for part in given if isinstance(part, dict)] if isinstance(given, list) else []
        rest = [{**part, "security": security} for part in parts or [{"mode": "server"}]]
        implementation = {**_dict(described.get("implementation")), "url": base}
        implementation.setdefault("description", "FHIR server behind a SMART token broker")
        return {**described, "rest": rest, "implementation": implementation}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
