"""Whether a handle may do something with an export: the same steps as for any FHIR request, and the job's own.

    the handle's form, and its proof  →  redeem  →  parse, or find the job  →  whose it is  →  decide  →  take a use

Each request is decided anew, also that for the last of twenty thousand files: a handle that covered the kick-off may be
narrower now, its app's policy another one, its grant gone (BD-14).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from broker.apps import Directory
from broker.audit import AuditTrail, Event
from broker.bulk import Jobs, StoredJob
from broker.bulk.job import no_such_export
from broker.errors import (
    InsufficientScope,
    InvalidRequest,
    ReauthorizationRequired,
    Refusal,
    TooLarge,
    TooManyRequests,
)
from broker.fair_use import FairUse
from broker.flows.binding import require_bound
from broker.flows.check_dpop import CheckDpop
from broker.flows.fhir_request import FhirRequest
from broker.flows.redeem import redeem
from broker.flows.use_record import record_of_refusal
from broker.grants import Grant
from broker.handles import Handle, Handles
from broker.interactions import Export, Interaction, parse_export
from broker.limits import beyond
from broker.policy import Permit, decide, effective_limits, effective_scopes

KICK_OFF_BYTES: Final = 256 << 10
"""Most that a Parameters resource may be."""
_WIDE: Final = ("user", "system")
Understood = TypeVar("Understood")


@dataclass(frozen=True, slots=True)
class Admitted(Generic[Understood]):
    """A permit, and what it is for."""

    permit: Permit
    what: Understood


@dataclass(frozen=True, slots=True)
class Admit:
    """Decides on requests for exports. Refusals are audited, and nothing was sent."""

    directory: Directory
    handles: Handles
    check_dpop: CheckDpop
    jobs: Jobs
    fair_use: FairUse
    audit: AuditTrail

    async def kick_off(self, request: FhirRequest) -> Admitted[Export]:
        """Raises a `Refusal`, `ReauthorizationRequired`."""

        async def understand(_handle: Handle, _grant: Grant) -> tuple[Interaction, Export]:
            body = await _whole(request)
            export = parse_export(request.method, request.raw_path, request.raw_query, request.headers, body)
            return export.interaction, export

        return await self._admit(request, "bulk.accept", understand)

    async def job(self, request: FhirRequest, event: Event, job_id: str, *, method: str) -> Admitted[StoredJob]:
        """`method` is the one that this is asked for by.

        Raises `NotFound` also for another app's (BD-14), any other `Refusal`, `ReauthorizationRequired`.
        """

        async def understand(handle: Handle, grant: Grant) -> tuple[Interaction, StoredJob]:
            if request.method != method:
                raise InvalidRequest("another method", public=f"This is asked for by {method}.")
            stored = await self.jobs.read(request.ehr, job_id)
            job = stored.job
            # A backend grant is asked for anew each day, and for each set of scopes; the client at the EHR stays.
            same = grant.tag == job.tag or (
                grant.terms.flow == job.flow == "backend" and grant.terms.registration == job.registration
            )
            if handle.app != job.app or not same:
                raise no_such_export(f"export {job.id} is of another app, or of another grant")
            return job.interaction, stored

        return await self._admit(request, event, understand)

    async def _admit(
        self,
        request: FhirRequest,
        event: Event,
        understand: Callable[[Handle, Grant], Awaitable[tuple[Interaction, Understood]]],
    ) -> Admitted[Understood]:
        handle = grant = None
        try:
            handle, grant = await redeem(request, self.directory, self.handles, self.check_dpop)
            await self.fair_use.count(handle)
            require_bound(handle, self.directory.app)
            interaction, what = await understand(handle, grant)
            permit = decide(handle, grant, self.directory.app, interaction, request.find_arrival, searchable=())
            self._require_whole(permit, interaction)
            if event == "bulk.cancel":
                self._require_more_than_reading(permit)
            await self.handles.take_use(handle)
        except TooManyRequests:
            raise  # recorded by `fair_use`, which counts where it would be a flood
        except (Refusal, ReauthorizationRequired) as error:
            self.audit.record(record_of_refusal(event, error, handle, grant, request.request_id))
            raise
        return Admitted(permit, what)

    def _require_whole(self, permit: Permit, asked: Interaction) -> None:
        """Raise unless the export is covered as it is, by scopes that are of no patient: it is bound to none (BD-14).

        Files are not looked into, and nothing is added to what is asked, so what would take that is refused.
        """
        if permit.checks is not None or permit.relies_on_search or permit.interaction != asked:
            raise InsufficientScope("what a bulk export holds is not checked, and it is not covered as a whole")
        scopes = effective_scopes(permit.handle, permit.grant, self.directory.app)
        for need in permit.interaction.needs:
            if not scopes.covers(need.type, need.letter, levels=_WIDE):
                raise InsufficientScope(f"no system/ or user/ scope covers {need.type}.{need.letter} in an export")

    def _require_more_than_reading(self, permit: Permit) -> None:
        """Raise where the handle is limited to reading: an export is the app's, also for handles that have more."""
        limits = effective_limits(permit.handle, permit.grant, self.directory.app)
        if limits is not None and limits.read_only:
            raise beyond("read_only", "ending an export is no reading")


async def _whole(request: FhirRequest) -> bytes | None:
    if request.body is None:
        return None
    whole = bytearray()
    async for chunk in request.body:
        whole += chunk
        if len(whole) > KICK_OFF_BYTES:
            raise TooLarge(f"the parameters of an export are more than {KICK_OFF_BYTES} bytes")
    return bytes(whole)
