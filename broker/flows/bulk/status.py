"""How an export stands: asked of the EHR when its time has come, else answered from what is known (BD-05 to BD-08).

permitted?  →  too early, or somebody asks already: answer at once  →  record  →  ask  →  write down  →  answer
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from broker.apps import Directory
from broker.bulk import FileLists, Job, Jobs, Listing, Manifest, StoredJob, parse_manifest
from broker.bulk.job import JOB_BYTES, no_such_export
from broker.bulk.jobs import turn_seconds
from broker.bulk.manifest import MANIFEST_BYTES, MOST_FILES, MOST_MANIFESTS
from broker.bulk.waits import FIRST_SECONDS, clean_progress, is_transient, next_wait, retry_after
from broker.clock import Clock
from broker.errors import EhrError, EhrMisbehaved, EhrUnreachable
from broker.flows.bulk.admit import Admit
from broker.flows.bulk.answers import ExportAnswers
from broker.flows.bulk.ask import AskEhrBulk, Heard
from broker.flows.bulk.begin import BeginAtEhr
from broker.flows.bulk.cancel import forget
from broker.flows.bulk.trail import BulkTrail
from broker.flows.fhir_request import FhirRequest
from broker.flows.relay import FhirAnswer
from broker.policy import Permit

FRESH_SECONDS: Final = 60.0
"""How long a manifest is answered as it was fetched; later the EHR is asked again, since links in it may be short-lived
(OR-08)."""
_ACCEPT: Final = {"accept": "application/json, application/fhir+json;q=0.9"}


@dataclass(frozen=True, slots=True)
class Status:
    """Tells apps how their exports stand."""

    directory: Directory
    admit: Admit
    jobs: Jobs
    files: FileLists
    begin: BeginAtEhr
    ask: AskEhrBulk
    answers: ExportAnswers
    trail: BulkTrail
    clock: Clock

    @asynccontextmanager
    async def __call__(self, request: FhirRequest, job_id: str, number: int = 0) -> AsyncIterator[FhirAnswer]:
        """Give the status, or one of the further manifests. Raises a `BrokerError`."""
        admitted = await self.admit.job(request, "bulk.poll", job_id, method="GET")
        permit, stored = admitted.permit, admitted.what
        job = stored.job
        if number and number >= len(job.listings):
            raise no_such_export(f"export {job.id} has no manifest {number}")
        if job.state == "failed":
            yield self.answers.failed(job)
            return
        ehr = self.directory.ehr(job.ehr)
        at = await self.jobs.claim(job, number, lasts=turn_seconds(ehr.fhir_timeout))
        await self.jobs.postpone(job, abandoned_at=max(at, self.clock()) + ehr.bulk_abandon_seconds)
        if at:
            yield await self._early(job, number, at)
            return
        try:
            answer = await self._in_time(permit, stored, number, request.request_id)
        except EhrError as error:
            yield await self._known_all_the_same(stored.job, number, error)
            return
        yield answer

    async def _early(self, job: Job, number: int, at: float) -> FhirAnswer:
        if job.state == "complete" and job.listings[number].is_known:
            return await self.answers.complete(job, number)
        return self.answers.going_on(job, at - self.clock())

    async def _known_all_the_same(self, job: Job, number: int, error: EhrError) -> FhirAnswer:
        """Answer with the manifest that is known, while the EHR gives no newer one."""
        if job.state == "complete" and job.listings[number].is_known:
            return await self.answers.complete(job, number)
        raise error

    async def _in_time(self, permit: Permit, stored: StoredJob, number: int, request_id: str) -> FhirAnswer:
        job = stored.job
        if job.state in {"waiting", "starting"}:
            begun = await self.begin(permit, stored, request_id)
            return begun.refusal or self.answers.going_on(begun.stored.job, begun.wait)
        self.trail.allowed("bulk.poll", permit, job, request_id)
        try:
            heard = await self._hear(permit, stored, number, request_id)
            self.trail.allowed("bulk.answer", permit, job, request_id, status=heard.status)
            return await self._heard(permit, stored, number, heard)
        except Exception as error:
            self.trail.failed("bulk.answer", permit, job, request_id, error)
            raise

    async def _hear(self, permit: Permit, stored: StoredJob, number: int, request_id: str) -> Heard:
        """Ask the EHR. Where that comes to nothing, the next one to ask need not wait for long."""
        headers, url = {**_ACCEPT, "x-request-id": request_id}, stored.job.listings[number].url
        try:
            return await self.ask.hear(permit, "GET", url, headers=headers, limit=MANIFEST_BYTES)
        except EhrError as error:
            asked = error.retry_after if isinstance(error, EhrUnreachable) else None
            await self._again(stored, stored.job, number, max(asked or 0.0, FIRST_SECONDS))
            raise

    async def _heard(self, permit: Permit, stored: StoredJob, number: int, heard: Heard) -> FhirAnswer:
        job, status = replace(stored.job, tag=permit.grant.tag), heard.export_status
        wait = next_wait(heard.headers, job.polls)
        match status:
            case 200:
                try:
                    manifest, done = await self._listed(permit, stored, number, heard)
                except Exception:  # the next one to ask need not wait until the turn of this one would have ended
                    await self._again(stored, replace(job, polls=job.polls + 1), number, wait)
                    raise
                return await self._complete(stored, done, number, manifest)
            case 202:
                going_on = replace(job, polls=job.polls + 1, progress=clean_progress(heard.told("x-progress")))
                await self._again(stored, going_on, number, wait)
                return self.answers.going_on(going_on, wait)
            case 404 | 410 if number == 0:
                await forget(self.jobs, self.files, job)
                raise no_such_export(f"the EHR has forgotten export {job.id}")
        is_error = 400 <= status < 600
        if is_error and status not in {403, 429} and job.state == "running" and not _may_pass(heard):
            return await self._failed(stored, job, number, heard)
        await self._again(stored, replace(job, polls=job.polls + 1), number, wait)
        if status in {403, 429} and job.state == "running":  # it says nothing of the export
            return heard.passed_on(**{"retry-after": retry_after(wait)})
        if is_error:
            raise EhrUnreachable(f"the EHR answered {status} to a status", retry_after=wait)
        raise EhrMisbehaved(f"the EHR answered {status} to a status")

    async def _again(self, stored: StoredJob, job: Job, number: int, wait: float) -> None:
        await self.jobs.write(stored, job, next_at=self.clock() + wait, number=number)

    async def _failed(self, stored: StoredJob, job: Job, number: int, heard: Heard) -> FhirAnswer:
        """Keep why it failed: an app that asks again is told the same, and the EHR is not asked (BD-07)."""
        outcome = heard.body if heard.is_outcome else b""
        failed = replace(job, state="failed", failure=(heard.export_status, outcome.decode("utf-8", "replace")))
        await self._again(stored, failed, number, FRESH_SECONDS)
        return self.answers.failed(failed)

    async def _listed(self, permit: Permit, stored: StoredJob, number: int, heard: Heard) -> tuple[Manifest, Job]:
        """Keep what a manifest lists, and return the job that will say so. Raises `EhrMisbehaved` and others."""
        job, url = replace(stored.job, tag=permit.grant.tag), stored.job.listings[number].url
        manifest = await asyncio.to_thread(parse_manifest, heard.body, url)
        self._require_sound(permit, job, number, manifest)
        before = job.listings[number]
        version = before.version if before.shape == manifest.shape else before.version + 1
        listing = Listing(
            url, version, manifest.shape, len(manifest.files), manifest.head, _expires(heard.told("expires"))
        )
        done = replace(job, state="complete", polls=0).with_listing(number, listing, manifest.next_url)
        if len(done.dump()) > JOB_BYTES:
            raise EhrMisbehaved(f"the manifests of an export say more than {JOB_BYTES} bytes beside their files")
        await self.files.keep(job, number, version, manifest.files)
        return manifest, done

    async def _complete(self, stored: StoredJob, done: Job, number: int, manifest: Manifest) -> FhirAnswer:
        """Write that it is complete, and tell its manifest."""
        await self._again(stored, done, number, FRESH_SECONDS)
        before = stored.job.listings[number]
        if before.version != done.listings[number].version:
            await self.files.forget(done, number, before)
        return await self.answers.complete(done, number, list(manifest.files))

    def _require_sound(self, permit: Permit, job: Job, number: int, manifest: Manifest) -> None:
        others = job.listed - job.listings[number].files
        if others + len(manifest.files) > MOST_FILES:
            raise EhrMisbehaved(f"the manifests of an export list more than {MOST_FILES} files")
        if manifest.next_url and number + 1 >= MOST_MANIFESTS:
            raise EhrMisbehaved(f"an export has more than {MOST_MANIFESTS} manifests")
        if manifest.next_url:
            self.ask.require_askable(permit.grant, manifest.next_url)


def _may_pass(heard: Heard) -> bool:
    """Whether an error may be of the moment, and the export goes on (BD-07)."""
    return heard.export_status >= 500 and is_transient(heard.body)


def _expires(said: str | None) -> str | None:
    return said if said and said.isascii() and said.isprintable() and len(said) <= 64 else None
