"""A patient whose record was merged into another: the EHR redirects, and the broker reads the other record (PX-15).

That is the one redirect which is followed: of a read, once, to the same type below the same EHR's base. It is decided
on like a request of the app's own, since the other record may be a chart that the handle was not given for.
"""

from dataclasses import replace
from typing import Final

from broker.apps import Directory
from broker.egress import StreamedAnswer
from broker.ehr.url_map import UrlMap
from broker.errors import EhrMisbehaved, Refusal, UninterpretableInteraction
from broker.flows.relay import FhirAnswer
from broker.interactions import Interaction, parse_interaction
from broker.policy import FindArrival, Permit, decide

REDIRECTS: Final = frozenset({301, 302, 307, 308})


def merged_into(
    received: StreamedAnswer, permit: Permit, directory: Directory, find_arrival: FindArrival | None
) -> Permit | None:
    """Return the permit to read the other record; None where the answer is no such redirect.

    Raises `EhrMisbehaved` where the handle may not read it.
    """
    if received.status not in REDIRECTS or permit.interaction.kind != "read":
        return None
    urls = directory.urls(permit.grant.terms.ehr, permit.grant.terms.fhir_base)
    interaction = _other_record(received.headers.get("location", ""), permit.interaction, urls)
    if interaction is None:
        return None
    try:
        return decide(permit.handle, permit.grant, directory.app, interaction, find_arrival)
    except Refusal as error:
        raise EhrMisbehaved(
            f"merged into a record that the handle may not read: {error.detail} (PX-15)",
            public="The record was merged into another one, which this access token does not open.",
        ) from None


def name_record(answer: FhirAnswer, read: Permit, directory: Directory) -> FhirAnswer:
    """Return the answer with a header that says which record it is (RFC 9110 §8.7)."""
    if answer.status != 200:
        return answer
    location = f"{directory.fhir_base(read.grant.terms.ehr)}/{read.interaction.path}"
    return replace(answer, headers={**answer.headers, "content-location": location})


def _other_record(location: str, asked: Interaction, urls: UrlMap) -> Interaction | None:
    here = urls.location_at_broker(location, asked.path)
    if here is None:
        return None
    path = here.removeprefix(urls.ours).removeprefix("/").encode("ascii", "replace")
    try:
        other = parse_interaction(asked.method, path, asked.query.encode(), (), None)
    except UninterpretableInteraction:
        return None
    return other if (other.kind, other.type) == ("read", asked.type) and other.id != asked.id else None
