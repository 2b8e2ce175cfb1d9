"""`/oauth/introspect` (RFC 7662): an app asks about a handle of its own; anybody else's is just inactive (HB-06)."""

from dataclasses import dataclass
from typing import Any

from broker.apps import App, Directory
from broker.audit import AuditRecord, AuditTrail
from broker.flows.issue_handle import context_members, token_type
from broker.flows.tell_identity import TellIdentity
from broker.handles import Handle, Handles


@dataclass(frozen=True, slots=True)
class Introspect:
    """Tells what a handle may do."""

    directory: Directory
    handles: Handles
    tell_identity: TellIdentity
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
                actors=" ".join(found[0].actors) or None if found else None,
                request_id=request_id,
            )
        )
        if found is None or not mine:
            return {"active": False}
        handle, grant = found
        return {
            **context_members(grant.terms.context),
            **_narrowing(handle),
            **self.tell_identity.claims(app.id, grant, handle.scopes),
            "active": True,
            "client_id": handle.app,
            "token_type": token_type(handle.jkt),
            **({} if handle.jkt is None else {"cnf": {"jkt": handle.jkt}}),
            "scope": str(handle.scopes),
            "exp": int(handle.expires_at),
            "aud": self.directory.fhir_base(handle.ehr),
        }


def _narrowing(handle: Handle) -> dict[str, Any]:
    """Return what token exchange made of a handle: its patient, and who acts for whom (RFC 8693 §4.1)."""
    narrowing: dict[str, Any] = {} if handle.patient is None else {"patient": handle.patient}
    for app in handle.actors:
        narrowing["act"] = {"sub": app} | ({"act": narrowing["act"]} if "act" in narrowing else {})
    return narrowing
