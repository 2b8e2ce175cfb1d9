"""What the answers of an EHR's token and revocation endpoints mean (TR-*, RF-*, BS-*, OA-03, OA-04). Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any, Final

from broker.egress import Answer
from broker.ehr.endpoints import parse_json_object
from broker.ehr.error_uri import ehr_error_code
from broker.errors import EhrAnswerUnreadable, EhrError, EhrMisbehaved, EhrRefused, EhrUnreachable
from broker.secret import Secret

LONGEST_PAUSE_SECONDS: Final = 86_400.0
"""Of what `Retry-After` says, no more is obeyed."""
_LONGEST_LIFETIME_SECONDS: Final = 7 * 86_400.0
_LONGEST_AUTHORIZATION_SECONDS: Final = 100 * 365 * 86_400.0
PROPAGATION_HINT: Final = "; a new or changed registration may take an EHR up to 12 h to know (EP-03)"
_LONGEST_TOKEN: Final = 64 * 1024
_OAUTH_ERRORS: Final = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "unsupported_token_type",
        "invalid_dpop_proof",
        "use_dpop_nonce",
        "invalid_token",
        "invalid_client_metadata",
        "invalid_redirect_uri",
        "invalid_software_statement",
        "unapproved_software_statement",
    }
)
_SECRET: Final = ("access_token", "refresh_token", "id_token")
_OF_ONE_SERVER: Final = ("scope", "patient", "encounter", "fhirContext")


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """A token response, checked."""

    access_token: Secret
    refresh_token: Secret | None
    id_token: Secret | None
    lifetime: float | None
    """Seconds; None when the EHR said nothing that is a lifetime (Q8)."""
    scope: str | None
    """None when the EHR left it out: then it is what was asked for (Q4)."""
    members: Mapping[str, Any] = field(repr=False)
    """Everything but the tokens: launch context and vendor extensions (TR-06)."""
    refresh_lifetime: float | None = None
    """Seconds that the refresh token lives, where the EHR says so (RF-13)."""
    note: str | None = None
    """What was left out of account, for the audit trail."""
    bound: bool = False
    """Whether the access token works with proofs of the request's key alone (`token_type` DPoP, OA-23)."""


def parse_answer(answer: Answer, *, bound: bool = False) -> TokenAnswer:
    """Read a token response by content, not by its label (OA-04).

    `bound` says that the request carried a DPoP proof: only then may `token_type` be DPoP. Whether another is taken
    then is for the caller to say.

    Raises `EhrRefused` for an OAuth error, `EhrUnreachable` for "later" (429, 5xx), `EhrAnswerUnreadable` for a success
    that cannot be used, and `EhrMisbehaved` for the rest. A page with status 200 is of the rest: it is what gateways
    and captive portals answer instead of the token endpoint, so nothing was processed.
    """
    document = parse_json_object(answer.body)
    if (failure := failure_of(answer, document, "token")) is not None:
        raise failure
    if 200 <= answer.status < 300 and not answer.body.lstrip().startswith(b"<"):
        return _parse_success(document or {}, bound=bound)
    raise EhrMisbehaved(f"the token endpoint answered status {answer.status} without a JSON object (OA-04)")


def check_revocation(answer: Answer) -> None:
    """Read a revocation response; any success is one, also for a token that the EHR does not know (RFC 7009 §2.2).

    Raises `EhrRefused`, `EhrUnreachable` for "later" (IN-06), `EhrMisbehaved` for the rest.
    """
    if 200 <= answer.status < 300:
        return
    failure = failure_of(answer, parse_json_object(answer.body), "revocation")
    raise failure or EhrMisbehaved(f"the revocation endpoint answered with status {answer.status} (RFC 7009 §2.2)")


def at_server(answer: TokenAnswer, fhir_base: str) -> TokenAnswer:
    """Return what the answer says for one FHIR base, if it says it by `authorization_details` (TR-10).

    The entry for this base stands in place of the top level, whose patient may be another server's; entries for other
    places are not used. Details that are malformed are left out of account, and noted.
    """
    details = answer.members.get("authorization_details")
    if details is None:
        return answer
    if not isinstance(details, list) or not all(map(_is_sound, details)):
        return replace(answer, note="authorization_details is malformed and was ignored (TR-10)")
    entry = next((entry for entry in details if _is_for(entry, fhir_base)), None)
    if entry is None:
        return answer
    members = {name: value for name, value in answer.members.items() if name not in _OF_ONE_SERVER}
    members |= {name: entry[name] for name in _OF_ONE_SERVER if name in entry}
    return replace(answer, scope=_text(entry.get("scope", answer.scope)), members=members)


def parse_lifetime(value: object, *, longest: float = _LONGEST_LIFETIME_SECONDS) -> float | None:
    """Return seconds from `expires_in`, at most `longest`: a number, a number in a string, or None (§21 case 1)."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,20}", value.strip()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        return None
    return float(min(value, longest))


def parse_retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that `Retry-After` asks for, at most a day; 0 when it is absent or unreadable.

    A date is taken relative to the answer's own `Date`, so that two clocks need not agree (RFC 9110 §10.2.3).
    """
    said = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,20}", said, re.ASCII):
        return min(float(said), LONGEST_PAUSE_SECONDS)
    try:
        pause = parsedate_to_datetime(said) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(pause.total_seconds(), 0.0), LONGEST_PAUSE_SECONDS)


def failure_of(answer: Answer, document: Mapping[str, Any] | None, endpoint: str) -> EhrError | None:
    """Return what an answer says went wrong, by `error` first and by its status second (OA-03); None if nothing did."""
    error = document.get("error") if document is not None else None
    later = answer.status == 429 or answer.status >= 500
    if isinstance(error, str) and error and (error in _OAUTH_ERRORS or not later):
        named = error if error in _OAUTH_ERRORS else "unknown_error"
        code = ehr_error_code(_text((document or {}).get("error_uri")))
        more = f", ehr_error_code {code}" if code else ""
        hint = PROPAGATION_HINT if named == "invalid_client" else ""
        return EhrRefused(f"the {endpoint} endpoint answered {named} (status {answer.status}{more}){hint}", error=named)
    if later:
        pause = parse_retry_after(answer.headers)
        return EhrUnreachable(f"the {endpoint} endpoint answered with status {answer.status}", retry_after=pause)
    return None


def refuses_client(answer: Answer) -> bool:
    """Whether the EHR did not take the broker for its client, and so did nothing (`invalid_client`, RFC 6749 §5.2)."""
    failure = failure_of(answer, parse_json_object(answer.body), "token") if answer.status >= 400 else None
    return isinstance(failure, EhrRefused) and failure.error == "invalid_client"


def gives_something(answer: Answer) -> bool:
    """Whether it is a success with an object, such as only a client gets; an empty answer to a revocation is not."""
    return 200 <= answer.status < 300 and "error" not in (parse_json_object(answer.body) or {"error": ""})


def _parse_success(document: dict[str, Any], *, bound: bool) -> TokenAnswer:
    access_token = _token(document, "access_token")
    if access_token is None:
        raise EhrAnswerUnreadable("the token response has no access_token (TR-01)")
    kind = str(document.get("token_type", "Bearer")).lower()
    if kind not in ({"bearer", "dpop"} if bound else {"bearer"}):
        raise EhrAnswerUnreadable("the token response has a token_type other than Bearer (TR-02)")
    end = document.get("refresh_token_expires_in", document.get("refresh_expires_in"))
    return TokenAnswer(
        access_token=access_token,
        refresh_token=_token(document, "refresh_token"),
        id_token=_token(document, "id_token"),
        lifetime=parse_lifetime(document.get("expires_in")),
        scope=_text(document.get("scope")),
        members={name: value for name, value in document.items() if name not in _SECRET},
        refresh_lifetime=parse_lifetime(end, longest=_LONGEST_AUTHORIZATION_SECONDS),
        bound=kind == "dpop",
    )


def _token(document: Mapping[str, Any], name: str) -> Secret | None:
    value = document.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > _LONGEST_TOKEN or not value.isascii() or not value.isprintable():
        raise EhrAnswerUnreadable(
            f"{name} is not a token: not printable ASCII text of at most {_LONGEST_TOKEN} characters"
        )
    return Secret(value)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _is_sound(entry: object) -> bool:
    """Whether it is an object with a `type` and, where it speaks of SMART, a list of locations and a scope as text."""
    if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
        return False
    places = entry.get("locations")
    listed = isinstance(places, list) and all(isinstance(place, str) for place in places)
    return entry["type"] != "smart_on_fhir" or (listed and isinstance(entry.get("scope", ""), str))


def _is_for(entry: Mapping[str, Any], fhir_base: str) -> bool:
    return entry["type"] == "smart_on_fhir" and fhir_base in {place.rstrip("/") for place in entry["locations"]}
