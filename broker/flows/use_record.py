"""What the audit trail says of a handle that is used: with a permit, or with the refusal that it got instead."""

from broker.audit import AuditRecord, Event, Outcome
from broker.errors import BrokerError
from broker.grants import Grant
from broker.handles import Handle
from broker.interactions import Interaction
from broker.policy import Permit


def record_of(
    event: Event,
    outcome: Outcome,
    permit: Permit,
    request_id: str,
    *,
    job: str | None = None,
    status: int | None = None,
    reason: str | None = None,
) -> AuditRecord:
    """Return the record of what is done with a permit, or of how that went.

    `job` is the id of an export, `status` the EHR's answer.
    """
    handle = permit.handle
    return AuditRecord(
        event=event,
        outcome=outcome,
        app=handle.app,
        ehr=handle.ehr,
        registration=permit.grant.terms.registration,
        grant=handle.tag,
        handle=handle.id,
        actors=" ".join(handle.actors) or None,
        job=job,
        interaction=permit.interaction.label,
        limits=handle.limits.names if handle.limits else None,
        status=status,
        reason=reason,
        request_id=request_id,
    )


def record_of_refusal(
    event: Event,
    error: BrokerError,
    handle: Handle | None,
    grant: Grant | None,
    request_id: str,
    interaction: Interaction | None = None,
) -> AuditRecord:
    """Return the record of a refusal, with as much as was known by then."""
    return AuditRecord(
        event=event,
        outcome="denied",
        app=handle.app if handle else None,
        ehr=handle.ehr if handle else None,
        registration=grant.terms.registration if grant else None,
        grant=handle.tag if handle else None,
        handle=handle.id if handle else None,
        actors=" ".join(handle.actors) or None if handle else None,
        interaction=interaction.label if interaction else None,
        limits=handle.limits.names if handle and handle.limits else None,
        reason=f"{error.code}: {error.detail}",
        request_id=request_id,
    )
