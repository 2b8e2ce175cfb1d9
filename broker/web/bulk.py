"""Bulk Data exports below `/fhir/{ehr}`: the same way in and out as other FHIR requests, to other journeys."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter
from starlette.routing import Route
from starlette.types import ASGIApp

from broker.flows.bulk.cancel import CancelExport
from broker.flows.bulk.file import ExportFile
from broker.flows.bulk.kick_off import KickOff
from broker.flows.bulk.status import Status
from broker.flows.fhir_request import FhirRequest
from broker.flows.relay import FhirAnswer
from broker.web.fhir import Journey

KICK_OFFS: Final = ("/fhir/{ehr}/$export", "/fhir/{ehr}/Patient/$export", "/fhir/{ehr}/Group/{id}/$export")
JOB: Final = "/fhir/{ehr}/_bulk/{job}"
PART: Final = "/fhir/{ehr}/_bulk/{job}/{part}"
_MANIFEST: Final = "manifest-"


@dataclass(frozen=True, slots=True)
class ExportParts:
    """What lies below an export: files, and further manifests."""

    status: Status
    file: ExportFile

    def __call__(self, request: FhirRequest) -> AbstractAsyncContextManager[FhirAnswer]:
        """Go to where it is asked for; a name that is neither is a file that there is not."""
        job, part = _below(request)
        number = part.removeprefix(_MANIFEST)
        if number != part and number.isascii() and number.isdigit() and len(number) < len(_MANIFEST):
            return self.status(request, job, int(number))
        return self.file(request, job, part)


def bulk_routes(
    kick_off: KickOff, status: Status, file: ExportFile, cancel: CancelExport, serve: Callable[[Journey], ASGIApp]
) -> APIRouter:
    """Build the routes; `serve` makes of a journey what answers requests."""
    of_job = {
        "GET": serve(lambda request: status(request, _below(request)[0])),
        "DELETE": serve(lambda request: cancel(request, _below(request)[0])),
    }
    return APIRouter(
        routes=[
            *(Route(path, serve(kick_off), methods=["GET", "POST"]) for path in KICK_OFFS),
            *(Route(JOB, application, methods=[method]) for method, application in of_job.items()),
            Route(PART, serve(ExportParts(status, file)), methods=["GET"]),
        ]
    )


def _below(request: FhirRequest) -> tuple[str, str]:
    """Return the names of the job and of its part, as they were written: what is encoded is none of ours."""
    _, _, rest = request.raw_path.decode("latin-1").partition("/")
    job, _, part = rest.partition("/")
    return job, part
