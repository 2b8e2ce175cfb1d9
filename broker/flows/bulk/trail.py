"""What the audit trail says of exports: each call to an EHR before it is made, and its answer (blueprint §5.9)."""

from dataclasses import dataclass

from broker.audit import AuditRecord, AuditTrail, Event, Outcome
from broker.bulk import Due, Job
from broker.errors import BrokerError
from broker.flows.use_record import record_of
from broker.policy import Permit


@dataclass(frozen=True, slots=True)
class BulkTrail:
    """Writes it."""

    audit: AuditTrail

    def allowed(self, event: Event, permit: Permit, job: Job, request_id: str, *, status: int | None = None) -> None:
        """Write what is done with an export; with the EHR's `status`, that it was. Raises `AuditUnavailable`."""
        self.audit.record(record_of(event, "allowed", permit, request_id, job=job.id, status=status))

    def failed(self, event: Event, permit: Permit, job: Job, request_id: str, error: Exception) -> None:
        """Write that it came to nothing; of a fault of the broker, which kind."""
        self.audit.record(record_of(event, "failed", permit, request_id, job=job.id, reason=_reason(error)))

    def abandoned(self, job: Job, outcome: Outcome, reason: str | None = None) -> None:
        """Write that a job is ended which its app has not asked for in long, or how that went."""
        self.audit.record(
            AuditRecord(
                event="bulk.abandon",
                outcome=outcome,
                app=job.app,
                ehr=job.ehr,
                registration=job.registration,
                grant=job.tag,
                job=job.id,
                interaction=job.interaction.label,
                reason=reason,
            )
        )

    def unreadable(self, due: Due, reason: str) -> None:
        """Write that a job is forgotten whose record nobody can read, so that its EHR is not told."""
        self.audit.record(
            AuditRecord(
                event="bulk.abandon",
                outcome="failed",
                app=due.app,
                ehr=due.ehr,
                registration=due.registration,
                job=due.id,
                reason=reason,
            )
        )


def _reason(error: Exception) -> str:
    if isinstance(error, BrokerError):
        return f"{error.code}: {error.detail}"
    return f"{BrokerError.code}: {type(error).__name__}"
