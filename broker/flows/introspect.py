"""`/oauth/introspect` (RFC 7662): an app asks about a handle of its own; anybody else's is just inactive (HB-06)."""

from dataclasses import dataclass
from typing import Any

from broker.apps import App, Directory
from broker.audit import AuditRecord, AuditTrail
from broker.flows.issue_handle import context_members
from broker.handles import Handles


@dataclass(frozen=True, slots=True)
class Introspect:
    """Tells what a handle may do."""

    directory: Directory
    handles: Handles
    audit: AuditTrail

    async def __call__(self, app: App, token: str, *, request_id: str) -> dict[str, Any]:
        """Return the introspection response."""
        found = await self.handles.find(token)
        mine = found is not None and found[0].app == app.id and found[1].state == "active"
        self.audit.record(
            AuditRecord(
                event="handle.introspect",
                outcome="allowed" if mine else "denied",
                app=app.id,
                handle=found[0].id if found else None,
                grant=found[0].tag if found else None,
                request_id=request_id,
            )
        )
        if found is None or not mine:
            return {"active": False}
        handle, grant = found
        return {
            "active": True,
            "client_id": handle.app,
            "token_type": "Bearer",
            "scope": str(handle.scopes),
            "exp": int(handle.expires_at),
            "aud": self.directory.fhir_base(handle.ehr),
            **context_members(grant.terms.context),
        }
