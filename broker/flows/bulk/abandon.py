"""End exports that nobody asks for any more, at the EHR too: it keeps files for them, and takes no others (BD-15).

One replica ends one at a time: what is taken from the list comes up again later, should its taker die. No handle stands
behind it, and none is needed: it gives nobody anything. A token is opened for the EHR alone, as when it is revoked.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from broker.apps import Directory
from broker.bulk import Due, FileLists, Job, Jobs
from broker.bulk.jobs import AGAIN_SECONDS
from broker.clock import Clock
from broker.ehr.bulk_server import BulkServer, Credentials
from broker.ehr.fhir_server import FHIR_JSON
from broker.errors import BrokerError, EhrAnswerLost, EhrUnreachable, NotFound, SealBroken, Unavailable
from broker.flows.bulk.cancel import forget, require_ended
from broker.flows.bulk.trail import BulkTrail
from broker.grants import Grant, Grants
from broker.refresh.current_token import Refresher

log = structlog.get_logger()

MOST_AT_ONCE: Final = 20


@dataclass(frozen=True, slots=True)
class EndAbandoned:
    """Ends them."""

    directory: Directory
    jobs: Jobs
    files: FileLists
    grants: Grants
    refresher: Refresher
    server: BulkServer
    trail: BulkTrail
    clock: Clock

    async def run(self, every: float, is_draining: Callable[[], bool] = lambda: False) -> None:
        """Look every so many seconds, until cancelled or draining."""
        while not is_draining():
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001  # whatever it is, the next look may succeed
                log.warning("abandoned_exports_wait", cause=_cause(error))
            await asyncio.sleep(every)

    async def look(self) -> int:
        """End what was abandoned by now, each by itself, and say how many there were. Raises `StoreUnavailable`."""
        abandoned = await self.jobs.take_abandoned(again=self.clock() + AGAIN_SECONDS, most=MOST_AT_ONCE)
        waiting = Counter[str]()
        for due in abandoned:
            try:
                await self._take(due)
            except Exception as error:  # noqa: BLE001  # whatever it is, it keeps no other; this one comes up again
                waiting[_cause(error)] += 1
        for cause, exports in waiting.items():
            log.warning("abandoned_exports_wait", cause=cause, exports=exports)
        return len(abandoned)

    async def _take(self, due: Due) -> None:
        """End one of them. What does not open in its place never will: it must not hold a place until it expires."""
        try:
            stored = await self.jobs.read(due.ehr, due.id)
        except NotFound:  # it expired, or never came about
            await self.jobs.forget(due)
        except SealBroken as error:
            self.trail.unreadable(due, f"{error.code}: {error.detail}")
            await self.jobs.forget(due)
        else:
            await self._end(stored.job)

    async def _end(self, job: Job) -> None:
        self.trail.abandoned(job, "allowed")
        try:
            if job.status_url is not None:
                await self._at_ehr(job, job.status_url)
        except BrokerError as error:
            self.trail.abandoned(job, "failed", f"{error.code}: {error.detail}")
            if _can_wait(error):
                return  # it comes up again
        await forget(self.jobs, self.files, job)

    async def _at_ehr(self, job: Job, url: str) -> None:
        ehr, grant = self.directory.ehr(job.ehr), await self._usable(job.tag)
        origins = self.directory.token_origins(job.ehr, grant.terms.fhir_base)
        tokens = await self.grants.open_tokens(grant)
        credentials = Credentials(tokens.access_token, tokens.proof_key, origins)
        headers = {"accept": FHIR_JSON}
        async with self.server.send(
            "DELETE", url, credentials=credentials, headers=headers, timeout=ehr.fhir_timeout
        ) as answer:
            require_ended(answer.status)

    async def _usable(self, tag: str) -> Grant:
        """Return the grant with a token that lives. Raises `ReauthorizationRequired`, `NotFound`, `EhrError`."""
        grant = await self.grants.read(tag)
        grant.require_usable()
        return await self.refresher.renew(grant, "background") if self.clock() >= grant.renew_at else grant


def _can_wait(error: BrokerError) -> bool:
    """Whether the EHR can be told later. Else never: its grant has ended, say, or it is not configured any more."""
    return isinstance(error, (EhrUnreachable, EhrAnswerLost, Unavailable)) and not isinstance(error, SealBroken)


def _cause(error: Exception) -> str:
    return error.detail if isinstance(error, BrokerError) else type(error).__name__
