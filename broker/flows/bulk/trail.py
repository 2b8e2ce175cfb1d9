"""What the audit trail says of exports: each call to an EHR before it is made, and its answer (blueprint §5.9)."""

from dataclasses import dataclass

from broker.audit import AuditRecord, AuditTrail, Event, Outcome
from broker.bulk import Job
from broker.errors import BrokerError
from broker.flows.fhir_request import FhirRequest
from broker.grants import Grant
from broker.handles import Handle
from broker.policy import Permit


@dataclass(frozen=True, slots=True)
class BulkTrail:
    """Writes it."""

    audit: AuditTrail

    def allowed(self, event: Event, permit: Permit, job: Job, request_id: str, *, status: int | None = None) -> None:
        """Write what is done with an export; with the EHR's `status`, that it was. Raises `AuditUnavailable`."""
        self._record(event, "allowed", permit, job, request_id, status=status)

    def failed(self, event: Event, permit: Permit, job: Job, request_id: str, error: BrokerError) -> None:
        """Write that it came to nothing."""
        self._record(event, "failed", permit, job, request_id, reason=f"{error.code}: {error.detail}")

    def denied(
        self, event: Event, request: FhirRequest, handle: Handle | None, grant: Grant | None, error: BrokerError
    ) -> None:
        """Write that it was refused."""
        self.audit.record(
            AuditRecord(
                event=event,
                outcome="denied",
                app=handle.app if handle else None,
                ehr=handle.ehr if handle else None,
                registration=grant.terms.registration if grant else None,
                grant=handle.tag if handle else None,
                handle=handle.id if handle else None,
                actors=" ".join(handle.actors) or None if handle else None,
                limits=handle.limits.names if handle and handle.limits else None,
                reason=f"{error.code}: {error.detail}",
                request_id=request.request_id,
            )
        )

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

    def _record(
        self,
        event: Event,
        outcome: Outcome,
        permit: Permit,
        job: Job,
        request_id: str,
        *,
        status: int | None = None,
        reason: str | None = None,
    ) -> None:
        self.audit.record(
            AuditRecord(
                event=event,
                outcome=outcome,
                app=permit.handle.app,
                ehr=permit.handle.ehr,
                registration=permit.grant.terms.registration,
                grant=permit.handle.tag,
                handle=permit.handle.id,
                actors=" ".join(permit.handle.actors) or None,
                limits=permit.handle.limits.names if permit.handle.limits else None,
                job=job.id,
                interaction=permit.interaction.label,
                status=status,
                reason=reason,
                request_id=request_id,
            )
        )
