"""What an EHR says about a token when it is asked (RFC 7662, IN-01…IN-05). A diagnostic, never a gate. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.egress import Answer
from broker.ehr.client_auth import Authenticate, Authentication, always
from broker.ehr.endpoints import parse_json_object
from broker.ehr.token_answer import failure_of
from broker.errors import EhrMisbehaved
from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class Introspection:
    """An introspection response."""

    active: bool
    scope: str | None = None
    client_id: str | None = None
    expires_at: float | None = None
    """Seconds since 1970."""
    members: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """All of it: launch context, issuer and subject (IN-02)."""


def bearer(token: Secret) -> Authenticate:
    """Authorize an introspection by an access token, as some EHRs want it (IN-03, EP-20)."""
    return always(Authentication({"Authorization": f"Bearer {token.reveal()}"}), client_id="")


def parse_introspection(answer: Answer) -> Introspection:
    """Read an introspection response; of an inactive token nothing else is taken (IN-04).

    Raises `EhrRefused`, `EhrUnreachable` for "later", `EhrMisbehaved` for what is no introspection response.
    """
    document = parse_json_object(answer.body)
    if (failure := failure_of(answer, document, "introspection")) is not None:
        raise failure
    if answer.status != 200 or document is None or not isinstance(document.get("active"), bool):
        raise EhrMisbehaved(f"the introspection endpoint answered status {answer.status} without `active` (RFC 7662)")
    if not document["active"]:
        return Introspection(active=False)
    end = document.get("exp")
    return Introspection(
        active=True,
        scope=_text(document.get("scope")),
        client_id=_text(document.get("client_id")),
        expires_at=float(end) if isinstance(end, int | float) and not isinstance(end, bool) else None,
        members=document,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
