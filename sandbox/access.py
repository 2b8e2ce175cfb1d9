"""The one word the authorization server and the FHIR server share: what a presented access token may do."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Access:
    """What a presented access token may do."""

    client_id: str
    scopes: frozenset[str]
    """As granted, in SMART v1 (`.read`) or v2 (`.rs`) spelling."""
    patient: str | None
    """The launch patient's id, if the token has one."""
