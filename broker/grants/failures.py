"""What a failed refresh says about whose trouble it is, and the one thing an operator can do about it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from broker.errors import (
    BrokerError,
    EhrAnswerLost,
    EhrAnswerUnreadable,
    EhrMisbehaved,
    EhrRefused,
    EhrUnreachable,
    KeyUnavailable,
    NotFound,
    SealBroken,
    Unavailable,
)

Kind = Literal["transient", "ehr_outage", "client", "grant", "key", "quirk", "lost", "broker"]

ACTIONS: Final[Mapping[Kind, str]] = {
    "transient": "nothing: the EHR asked to wait, and is asked again by itself",
    "ehr_outage": "nothing here: ask the EHR's operator if it lasts; the EHR is asked again by itself",
    "client": "compare the registration with what the EHR has on file: broker registrations show, broker check",
    "grant": "have the person authorize again",
    "key": "look at the key-encryption key and the store: broker check; then the audit trail for seal.broken",
    "quirk": "compare the EHR's answer with its profile; the audit trail names the member that is wrong",
    "lost": "broker grants refresh GRANT --even-uncertain tries once more; else have the person authorize again",
    "broker": "look at the store and the audit file: broker check",
}
"""One for each kind, to be shown as it is."""

_REFUSALS: Final[Mapping[str, Kind]] = {
    "invalid_grant": "grant",
    "invalid_client": "client",
    "unauthorized_client": "client",
    "invalid_scope": "client",
    "unsupported_grant_type": "client",
    "invalid_request": "quirk",
    "temporarily_unavailable": "transient",
    "server_error": "ehr_outage",
}
"""By the OAuth error code (RFC 6749 §5.2); the last two belong to §4.1.2.1, and some EHRs answer them here."""

_KINDS: Final[tuple[tuple[type[BrokerError], Kind], ...]] = (
    (EhrAnswerUnreadable, "quirk"),
    (EhrAnswerLost, "lost"),
    (EhrUnreachable, "ehr_outage"),
    (EhrMisbehaved, "quirk"),
    (KeyUnavailable, "key"),
    (SealBroken, "key"),
    (NotFound, "client"),
    (Unavailable, "broker"),
)
"""The first that fits."""


def kind_of(code: str) -> Kind:
    """Say whose trouble it was, by the code that is kept of it. A pause that was asked for counts as an outage."""
    ours: dict[str, Kind] = {known.code: kind for known, kind in reversed(_KINDS)}
    return {**ours, **_REFUSALS}.get(code, "quirk")


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt."""

    kind: Kind
    code: str
    """The EHR's own error code where it gave one, else ours."""

    @property
    def action(self) -> str:
        """What an operator can do."""
        return ACTIONS[self.kind]


def classify(error: BrokerError) -> Failure:
    """Say whose trouble an error is (RF-08)."""
    if isinstance(error, EhrRefused):
        return Failure(_REFUSALS.get(error.error, "quirk"), error.error)
    if isinstance(error, EhrUnreachable) and error.retry_after:
        return Failure("transient", error.code)
    kind: Kind = next((kind for known, kind in _KINDS if isinstance(error, known)), "quirk")
    return Failure(kind, error.code)
