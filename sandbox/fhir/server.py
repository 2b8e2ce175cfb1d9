"""What every room of the FHIR server needs, and what all their answers share."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from sandbox.fhir.exports import Exports
from sandbox.fhir.paging import Paging
from sandbox.fhir.repository import Repository
from sandbox.population.elements import Resource


@dataclass(frozen=True, slots=True)
class Server:
    """The state and the arguments of one FHIR server."""

    repository: Repository
    paging: Paging
    exports: Exports
    base_url: Callable[[], str]
    """The absolute FHIR base, without a slash at its end."""
    new_id: Callable[[], str]
    """An unused, unpredictable resource id."""


def version_headers(resource: Resource) -> dict[str, str]:
    """`ETag` and `Last-Modified` of a stored resource."""
    updated = datetime.fromisoformat(resource["meta"]["lastUpdated"])
    return {
        "ETag": f'W/"{resource["meta"]["versionId"]}"',
        "Last-Modified": format_datetime(updated, usegmt=True),
    }
