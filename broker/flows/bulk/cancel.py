"""End an export because its app says so (BD-15): at the EHR first, so that none runs on there unknown."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from broker.bulk import FileLists, Job, Jobs
from broker.ehr.fhir_server import FHIR_JSON
from broker.errors import BrokerError, EhrMisbehaved, EhrUnreachable
from broker.flows.bulk.admit import Admit
from broker.flows.bulk.ask import AskEhrBulk, once
from broker.flows.bulk.trail import BulkTrail
from broker.flows.fhir_request import FhirRequest
from broker.flows.relay import FhirAnswer
from broker.policy import Permit


@dataclass(frozen=True, slots=True)
class EndAtEhr:
    """Tells the EHR."""

    ask: AskEhrBulk
    trail: BulkTrail

    async def __call__(self, permit: Permit, job: Job, request_id: str) -> None:
        """End an export there, if it was accepted; that it will be was recorded. Raises a `BrokerError`."""
        if job.status_url is None:
            return
        headers = {"accept": FHIR_JSON, "x-request-id": request_id}
        heard = await self.ask.hear(permit, "DELETE", job.status_url, headers=headers)
        self.trail.allowed("bulk.answer", permit, job, request_id, status=heard.status)
        require_ended(heard.status)


@dataclass(frozen=True, slots=True)
class CancelExport:
    """Ends exports for apps."""

    admit: Admit
    jobs: Jobs
    files: FileLists
    end_at_ehr: EndAtEhr
    trail: BulkTrail

    @asynccontextmanager
    async def __call__(self, request: FhirRequest, job_id: str) -> AsyncIterator[FhirAnswer]:
        """Give the answer: 202, after which nothing of the export is found any more. Raises a `BrokerError`."""
        admitted = await self.admit.job(request, "bulk.cancel", job_id, method="DELETE")
        permit, job = admitted.permit, admitted.what.job
        self.trail.allowed("bulk.cancel", permit, job, request.request_id)
        try:
            await self.end_at_ehr(permit, job, request.request_id)
            await forget(self.jobs, self.files, job)
        except BrokerError as error:
            self.trail.failed("bulk.answer", permit, job, request.request_id, error)
            raise
        yield FhirAnswer(202, {}, once(b""))


def require_ended(status: int) -> None:
    """Raise unless a DELETE that was answered so ended an export, or found none. 405: the EHR knows no cancelling."""
    if status in {429, 502, 503, 504}:
        raise EhrUnreachable(f"the EHR answered {status} to the end of an export")
    if not 200 <= status < 300 and status not in {404, 405, 410, 501}:
        raise EhrMisbehaved(f"the EHR answered {status} to the end of an export")


async def forget(jobs: Jobs, files: FileLists, job: Job) -> None:
    """Forget an export and all that its manifests list. Raises `StoreUnavailable`."""
    await jobs.end(job)
    for number, listing in enumerate(job.listings):
        await files.forget(job, number, listing)
