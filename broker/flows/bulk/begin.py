"""Begin an export at the EHR once it is its turn (BD-01 to BD-03, OR-08).

    its turn?  →  leave the line  →  write down that it is asked for  →  record  →  ask  →  write down where it is

An EHR that was asked may have begun an export though its answer got lost. Nobody knows where, so it is not asked again:
that export is given up, and its app is told.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urljoin

from broker.apps import Directory
from broker.bulk import Job, Jobs, StoredJob
from broker.bulk.jobs import AGAIN_SECONDS, turn_seconds
from broker.bulk.turns import Line
from broker.bulk.waits import is_transient, next_wait
from broker.clock import Clock
from broker.ehr.fhir_server import FHIR_JSON
from broker.errors import BrokerError, EhrAnswerLost, EhrMisbehaved, EhrUnreachable, NotFound
from broker.flows.bulk.ask import AskEhrBulk
from broker.flows.bulk.cancel import EndAtEhr
from broker.flows.bulk.trail import BulkTrail
from broker.flows.relay import FhirAnswer
from broker.policy import Permit

LINE_SECONDS: Final = 15.0
"""How long who is in line is told to wait."""
_KICK_OFF: Final = {"accept": FHIR_JSON, "prefer": "respond-async"}


@dataclass(frozen=True, slots=True)
class Begun:
    """What came of it: the job as it is now, and when to ask for it; or the EHR's refusal, and the job is gone."""

    stored: StoredJob
    wait: float = LINE_SECONDS
    """Seconds."""
    refusal: FhirAnswer | None = None


@dataclass(frozen=True, slots=True)
class BeginAtEhr:
    """Begins exports."""

    directory: Directory
    jobs: Jobs
    ask: AskEhrBulk
    end_at_ehr: EndAtEhr
    trail: BulkTrail
    clock: Clock

    async def __call__(self, permit: Permit, stored: StoredJob, request_id: str) -> Begun:
        """Begin an export, or leave it in line. Who calls has claimed its next look.

        Raises `EhrAnswerLost` and other `BrokerError`s, after which the job is gone; `EhrUnreachable` after which it is
        in line again.
        """
        job = stored.job
        if job.state == "starting":
            await self.jobs.end(job)
            raise EhrAnswerLost(f"whether the EHR began export {job.id} is not known", public=_LOST)
        line, limit = await self.jobs.line(job), self.directory.ehr(job.ehr).bulk_jobs
        if not line.is_next(job.member, limit, self.clock()) or not await self.jobs.take_turn(job, limit):
            return await self._wait(stored, self._until_turn(line))
        lasts = turn_seconds(self.directory.ehr(job.ehr).fhir_timeout)
        stored = await self.jobs.write(stored, job.asked_for(), next_at=self.clock() + lasts)
        try:
            return await self._begin(permit, stored, request_id)
        except EhrUnreachable as error:
            self.trail.failed("bulk.answer", permit, job, request_id, error)
            await self._wait(stored, max(error.retry_after or 0.0, LINE_SECONDS))
            raise
        except BrokerError as error:
            if not isinstance(error, NotFound):  # it was cancelled meanwhile
                await self.jobs.end(job)
            self.trail.failed("bulk.answer", permit, job, request_id, error)
            raise

    async def _begin(self, permit: Permit, stored: StoredJob, request_id: str) -> Begun:
        job = stored.job
        url = f"{permit.grant.terms.fhir_base}/{job.path}"
        target = f"{url}?{job.query}" if job.method == "GET" and job.query else url
        content = job.parameters.encode() if job.method == "POST" else None
        headers = {**_KICK_OFF, "x-request-id": request_id} | ({"content-type": FHIR_JSON} if content else {})
        self.trail.allowed("bulk.begin", permit, job, request_id)
        heard = await self.ask.hear(permit, job.method, target, headers=headers, content=content)
        self.trail.allowed("bulk.answer", permit, job, request_id, status=heard.status)
        if heard.status == 202:
            return await self._accepted(permit, stored, target, heard.headers, request_id)
        wait = next_wait(heard.headers, 0)
        if heard.status == 429:
            await self.jobs.hold(job, self.clock() + wait)
            return await self._wait(stored, wait)
        if heard.status in {502, 503, 504} and is_transient(heard.body):
            raise EhrUnreachable(f"the EHR answered {heard.status} to a kick-off", retry_after=wait)
        refusal = heard.passed_on()
        await self.jobs.end(job)
        return Begun(stored, wait, refusal)

    async def _accepted(
        self, permit: Permit, stored: StoredJob, asked: str, headers: Mapping[str, str], request_id: str
    ) -> Begun:
        status_url, wait = _status_url(headers, asked), next_wait(headers, 0)
        self.ask.require_askable(permit.grant, status_url)
        accepted = replace(stored.job, tag=permit.grant.tag).accepted(status_url)
        try:
            return Begun(await self.jobs.write(stored, accepted, next_at=self.clock() + wait), wait)
        except NotFound:  # its app has cancelled it meanwhile: it must not go on at the EHR
            await self._end(permit, accepted, request_id)
            raise

    async def _end(self, permit: Permit, job: Job, request_id: str) -> None:
        """End at the EHR what has ended here. If it cannot be told now, that comes up again, as for abandoned ones."""
        try:
            self.trail.allowed("bulk.cancel", permit, job, request_id)
            await self.end_at_ehr(permit, job, request_id)
        except BrokerError as error:
            await self.jobs.keep_again(job, abandoned_at=self.clock() + AGAIN_SECONDS)
            self.trail.failed("bulk.answer", permit, job, request_id, error)

    async def _wait(self, stored: StoredJob, seconds: float) -> Begun:
        waiting = replace(stored.job, state="waiting")
        return Begun(await self.jobs.write(stored, waiting, next_at=self.clock() + seconds), seconds)

    def _until_turn(self, line: Line) -> float:
        return max(LINE_SECONDS, line.held_until - self.clock())


_LOST: Final = "It is not known whether the EHR began the export. Ask for a new one."


def _status_url(headers: Mapping[str, str], base: str) -> str:
    """Return where the EHR tells how the export stands (BD-03). Raises `EhrMisbehaved`."""
    said = headers.get("content-location", "").strip()
    if not said:
        raise EhrMisbehaved("the EHR accepted an export without saying where it is (BD-03)")
    try:
        return urljoin(base, said)
    except ValueError:
        raise EhrMisbehaved("the EHR accepted an export at a URL that cannot be read") from None
