"""What the audit trail says of one request at `/oauth/token`: that a handle is about to be stored, or the refusal.

Whatever is known by then is in it, so that a handle that was announced and then not stored is named by both records.
"""

from dataclasses import replace

from broker.apps import App
from broker.audit import AuditRecord, AuditTrail, Outcome
from broker.errors import BrokerError, Refusal
from broker.flows.scope_text import for_audit
from broker.grants import Grant
from broker.handles import Handle
from broker.limits import Limits
from broker.scopes import Scopes


class MintTrail:
    """Writes the records of one request by an app that has proved itself."""

    def __init__(self, audit: AuditTrail, app: App, request_id: str) -> None:
        self._audit = audit
        self._known = AuditRecord(event="handle.mint", outcome="denied", app=app.id, request_id=request_id)

    def shown(self, handle: Handle, grant: Grant) -> None:
        """Know the handle that is to be exchanged, whosever it is, until another one is announced."""
        self._known = replace(
            self._known,
            ehr=handle.ehr,
            registration=grant.terms.registration,
            grant=handle.tag,
            handle=handle.id,
            actors=" ".join(handle.actors) or None,
        )

    def announced(
        self,
        handle_id: str,
        grant: Grant,
        scopes: Scopes,
        *,
        actors: str | None = None,
        limits: Limits | None = None,
        reason: str | None = None,
    ) -> None:
        """Record a handle that is about to be stored, by its public id. Raises `AuditUnavailable`."""
        known = replace(
            self._known,
            ehr=grant.terms.ehr,
            registration=grant.terms.registration,
            grant=grant.tag,
            handle=handle_id,
            actors=actors,
            scope=for_audit(scopes),
            limits=limits.names if limits else None,
        )
        self._audit.record(replace(known, outcome="allowed", reason=reason))
        self._known = known

    def refused(self, error: BrokerError) -> None:
        """Record why there is no handle. Raises `AuditUnavailable`."""
        outcome: Outcome = "denied" if isinstance(error, Refusal) else "failed"
        self._audit.record(replace(self._known, outcome=outcome, reason=error.detail))
