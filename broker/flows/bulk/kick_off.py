"""`$export` at the broker: permitted or refused, and then begun at the EHR, at once or when it is its turn."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from broker.apps import Directory
from broker.bulk import Job, Jobs, new_job_id
from broker.clock import Clock, Entropy
from broker.errors import BrokerError, NotFound
from broker.flows.at_ehr import at_ehr
from broker.flows.bulk.admit import Admit
from broker.flows.bulk.answers import ExportAnswers
from broker.flows.bulk.begin import BeginAtEhr
from broker.flows.bulk.trail import BulkTrail
from broker.flows.fhir_request import FhirRequest
from broker.flows.relay import FhirAnswer
from broker.interactions import Export
from broker.policy import Permit


@dataclass(frozen=True, slots=True)
class KickOff:
    """Begins exports for apps."""

    directory: Directory
    admit: Admit
    jobs: Jobs
    begin: BeginAtEhr
    answers: ExportAnswers
    trail: BulkTrail
    clock: Clock
    entropy: Entropy

    @asynccontextmanager
    async def __call__(self, request: FhirRequest) -> AsyncIterator[FhirAnswer]:
        """Give the answer. Raises a `BrokerError`; after a `Refusal` nothing was sent."""
        request = at_ehr(request, self.directory)
        admitted = await self.admit.kick_off(request)
        permit, export = admitted.permit, admitted.what
        ehr = self.directory.ehr(permit.handle.ehr)
        job = self._job(permit, export, request, by_post=ehr.profile.bulk_kickoff == "post")
        self.trail.allowed("bulk.accept", permit, job, request.request_id)
        abandoned_at = self.clock() + ehr.bulk_abandon_seconds
        stored = await self.jobs.begin(job, abandoned_at=abandoned_at)
        try:
            begun = await self.begin(permit, stored, request.request_id)
        except NotFound:  # it has ended already
            raise
        except BrokerError:
            await self.jobs.end(job)
            raise
        yield begun.refusal or self.answers.accepted(job)

    def _job(self, permit: Permit, export: Export, request: FhirRequest, *, by_post: bool) -> Job:
        """Make the job's record. Where the EHR takes kick-offs by POST alone, it becomes one (Q10, BD-02)."""
        interaction, handle, terms = export.interaction, permit.handle, permit.grant.terms
        query = f"?{interaction.query}" if interaction.query else ""
        return Job(
            id=new_job_id(self.entropy),
            ehr=handle.ehr,
            registration=terms.registration,
            flow=terms.flow,
            app=handle.app,
            tag=handle.tag,
            needs=interaction.needs,
            type=interaction.type,
            path=interaction.path,
            query=interaction.query,
            parameters=export.resource.decode(),
            method="POST" if by_post else interaction.method,
            request=f"{self.directory.fhir_base(request.ehr)}/{interaction.path}{query}",
            separate_status=export.separate_status,
            began_at=self.clock(),
        )
