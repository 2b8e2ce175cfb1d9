"""What renewing a grant, by a refresh or by its person, leaves in the audit trail."""

from dataclasses import dataclass

from broker.audit import AuditRecord, AuditTrail, Event, Outcome
from broker.grants import Grant


@dataclass(frozen=True, slots=True)
class RefreshTrail:
    """Writes one line about a grant."""

    audit: AuditTrail

    def record(self, grant: Grant, outcome: Outcome, reason: str, *, event: Event = "grant.refresh") -> None:
        """Raises `AuditUnavailable`: then what it is about does not happen."""
        self.audit.record(
            AuditRecord(
                event=event,
                outcome=outcome,
                app=grant.terms.app,
                ehr=grant.terms.ehr,
                registration=grant.terms.registration,
                grant=grant.tag,
                generation=grant.generation,
                reason=reason,
            )
        )
