"""What apps are told of their exports: where they are, that they go on, and the manifest with the broker's URLs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from broker.apps import Directory
from broker.bulk import FileLists, Job, ListedFile, render_manifest
from broker.bulk.waits import retry_after
from broker.ehr.fhir_server import FHIR_JSON
from broker.flows.bulk.ask import once
from broker.flows.check_dpop import CheckDpop
from broker.flows.fhir_request import FhirRequest
from broker.flows.relay import FhirAnswer

_MANIFEST: Final = "application/json"


@dataclass(frozen=True, slots=True)
class ExportAnswers:
    """Makes them."""

    directory: Directory
    files: FileLists

    def accepted(self, job: Job) -> FhirAnswer:
        """The kick-off was accepted (BD-03)."""
        return FhirAnswer(202, {"content-location": self._job_url(job), **_preference(job)}, once(b""))

    def going_on(self, job: Job, wait: float) -> FhirAnswer:
        """It is not complete; ask again in `wait` seconds (BD-05, BD-06)."""
        progress = "in line" if job.state in {"waiting", "starting"} else job.progress
        headers = {"retry-after": retry_after(wait)} | ({"x-progress": progress} if progress else {})
        return _told(job, 202, headers, b"")

    async def complete(self, job: Job, number: int, files: list[ListedFile] | None = None) -> FhirAnswer:
        """One of its manifests; `files` are what it lists, where they are at hand (BD-08, BD-17)."""
        listing = job.listings[number]
        listed = files if files is not None else await self.files.all(job, number, listing)
        following = number + 1 if number + 1 < len(job.listings) else None
        body = await asyncio.to_thread(
            render_manifest,
            listing.head,
            list(enumerate(listed)),
            request=job.request,
            file_url=lambda index: f"{self._job_url(job)}/{number}-{listing.version}-{index}",
            next_url=f"{self._job_url(job)}/manifest-{following}" if following is not None else None,
        )
        headers = {"content-type": _MANIFEST} | ({"expires": listing.expires} if listing.expires else {})
        return _told(job, 200, headers, body)

    def failed(self, job: Job) -> FhirAnswer:
        """The EHR said that it failed."""
        status, outcome = job.failure or (500, "")
        return _told(job, status, {"content-type": FHIR_JSON}, outcome.encode())

    def _job_url(self, job: Job) -> str:
        return f"{self.directory.fhir_base(job.ehr)}/_bulk/{job.id}"


Journey: TypeAlias = Callable[[FhirRequest], AbstractAsyncContextManager[FhirAnswer]]


def telling_nonce(journey: Journey, check_dpop: CheckDpop) -> Journey:
    """Return the journey whose answers tell a client that proves itself the nonce to use next (RFC 9449 §8.2)."""

    @asynccontextmanager
    async def told(request: FhirRequest) -> AsyncIterator[FhirAnswer]:
        async with journey(request) as answer:
            yield replace(answer, headers={**answer.headers, **check_dpop.headers(request.proofs)})

    return told


def _told(job: Job, status: int, headers: Mapping[str, str], body: bytes) -> FhirAnswer:
    """Tell the status, or in its stead by a header, if the app asked for that (BD-04)."""
    if not job.separate_status:
        return FhirAnswer(status, headers, once(body))
    return FhirAnswer(200, {**headers, "x-export-status": str(status)}, once(body))


def _preference(job: Job) -> dict[str, str]:
    return {"preference-applied": "separate-export-status"} if job.separate_status else {}
