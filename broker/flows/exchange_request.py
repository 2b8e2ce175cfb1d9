"""What an app asks for in a token exchange (RFC 8693 §2.1), read and found sound in itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from broker.errors import InvalidRequest
from broker.interactions.syntax import is_id
from broker.limits import Limits, read_limits, read_moment, read_parameter, read_true

ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a kind of token
LARGEST_NUMBER: Final = 1_000_000
"""Of seconds or uses."""
_DIGITS: Final = len(str(LARGEST_NUMBER))


@dataclass(frozen=True, slots=True)
class Exchange:
    """What an app asks for, as it wrote it, and sound in itself."""

    subject_token: str = field(repr=False)
    scope: str | None
    patient: str | None = field(repr=False)
    expires_in: int | None
    uses: int | None
    not_after: float | None
    """Seconds since 1970."""
    limits: Limits | None
    certificate_bound: bool

    @classmethod
    def read(cls, form: Mapping[str, str]) -> "Exchange":
        """Raises `InvalidRequest` (RFC 8693 §2.1)."""
        if not form.get("subject_token"):
            raise _malformed("subject_token is missing", "subject_token is required.")
        if form.get("subject_token_type") != ACCESS_TOKEN:
            raise _malformed("subject_token_type is not access_token", f"subject_token_type must be {ACCESS_TOKEN}.")
        if form.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:
            raise _malformed(
                "requested_token_type is not access_token", f"requested_token_type can only be {ACCESS_TOKEN}."
            )
        if "actor_token" in form or "actor_token_type" in form:
            raise _malformed("an actor_token", "actor_token is not taken: the actor is the client that authenticates.")
        patient = form.get("patient")
        if patient is not None and not is_id(patient):
            raise _malformed("patient is not a FHIR id", "patient must be the id of a Patient resource.")
        return cls(
            subject_token=form["subject_token"],
            scope=form.get("scope"),
            patient=patient,
            expires_in=_positive(form, "expires_in"),
            uses=_positive(form, "uses"),
            not_after=read_parameter(form, "not_after", read_moment),
            limits=None if (limits := read_limits(form)) == Limits() else limits,
            certificate_bound=read_parameter(form, "certificate_bound", read_true) or False,
        )


def _positive(form: Mapping[str, str], name: str) -> int | None:
    text = form.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS and 0 < int(text) <= LARGEST_NUMBER):
        raise _malformed(
            f"{name} is not a positive number", f"{name} must be a whole number from 1 to {LARGEST_NUMBER}."
        )
    return int(text)


def _malformed(detail: str, public: str) -> InvalidRequest:
    return InvalidRequest(detail, public=public)
