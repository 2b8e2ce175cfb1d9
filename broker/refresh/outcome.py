"""What a token answer means for a grant that exists. Pure."""

from dataclasses import replace
from typing import Final

from broker.ehr.token_endpoint import TokenAnswer
from broker.errors import InvalidScope
from broker.grants import Terms, TokenSet
from broker.scopes import Scopes

_LONGEST_MARGIN_SECONDS: Final = 30.0


def renew_at(now: float, lifetime: float) -> float:
    """Return when to replace a token of `lifetime` seconds: a tenth of its life, at most 30 s, before its end."""
    return now + lifetime - min(_LONGEST_MARGIN_SECONDS, lifetime / 10)


def token_set(answer: TokenAnswer, *, now: float, previous: TokenSet | None = None) -> TokenSet:
    """Build the token set to keep; a refresh token that was not replaced stays (RF-03)."""
    kept = previous.refresh_token if previous else None
    return TokenSet(
        access_token=answer.access_token,
        refresh_token=answer.refresh_token or kept,
        renew_at=renew_at(now, answer.lifetime),
        expires_at=now + answer.lifetime,
    )


def granted_scopes(answer: TokenAnswer, requested: Scopes) -> Scopes:
    """Return what the EHR granted: what it says, or what was asked if it says nothing (Q4, TR-04)."""
    return requested if answer.scope is None else Scopes.parse(answer.scope, lenient=True)


def names_another_patient(terms: Terms, answer: TokenAnswer) -> bool:
    """Whether a refresh speaks of another patient than the grant: a security event, never an update (CX-11)."""
    patient, known = answer.members.get("patient"), terms.context.patient
    if patient in (None, "") or known is None:
        return False
    return str(patient) not in {known, f"Patient/{known}", f"{terms.fhir_base}/Patient/{known}"}


def offers_more(terms: Terms, answer: TokenAnswer) -> bool:
    """Whether a refresh speaks of scopes beyond the grant's: recorded, not applied (RF-11)."""
    return not granted_scopes(answer, terms.scopes).narrows(terms.scopes)


def refreshed_terms(terms: Terms, answer: TokenAnswer) -> Terms:
    """Return the terms after a refresh: scopes can shrink, never grow (RF-11).

    It raises nothing: nobody else has the answer any more. Scopes that cannot be compared stay as they were.
    """
    try:
        return replace(terms, scopes=terms.scopes.intersection(granted_scopes(answer, terms.scopes)))
    except InvalidScope:
        return terms
