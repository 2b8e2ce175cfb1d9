"""What a token answer means for a grant, new or renewed. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final, Literal

from broker.clock import Entropy
from broker.ehr.id_token import Identity
from broker.ehr.token_answer import TokenAnswer
from broker.errors import EhrMisbehaved, InvalidScope
from broker.grants import LaunchContext, Terms, TokenSet, read_context
from broker.grants.launch_context import complete
from broker.scopes import Scopes
from broker.secret import Secret

_EARLIEST_SHARE: Final = 0.6
_LATEST_SHARE: Final = 0.9


def share_of_life(entropy: Entropy) -> float:
    """Draw the share of its life after which a token is renewed: from 0.6 to 0.9, so that grants spread (RF-06)."""
    drawn = int.from_bytes(entropy(4), "big") / 0xFFFF_FFFF
    return _EARLIEST_SHARE + (_LATEST_SHARE - _EARLIEST_SHARE) * drawn


def token_set(
    answer: TokenAnswer,
    *,
    now: float,
    share: float,
    default_lifetime: float,
    previous: TokenSet | None = None,
    proof_key: Secret | None = None,
) -> TokenSet:
    """Build the token set to keep. What a refresh does not say stays: refresh token (RF-03), lifetime (RF-09)."""
    kept = previous or TokenSet(answer.access_token, None, now, now)
    lifetime = answer.lifetime or kept.lifetime or default_lifetime
    end = None if answer.refresh_lifetime is None else now + answer.refresh_lifetime
    return TokenSet(
        access_token=answer.access_token,
        refresh_token=answer.refresh_token or kept.refresh_token,
        renew_at=now + lifetime * share,
        expires_at=now + lifetime,
        lifetime=lifetime,
        expected_end=end or kept.expected_end,
        proof_key=proof_key or kept.proof_key,
        dynamic_client=kept.dynamic_client,
    )


def granted_scopes(
    answer: TokenAnswer, requested: Scopes, *, missing: Literal["as_requested", "refuse"] = "as_requested"
) -> Scopes:
    """Return what the EHR granted: what it says, or what was asked if it says nothing (Q4, TR-04).

    Raises `EhrMisbehaved` when it says nothing and its profile does not take that for an answer.
    """
    if answer.scope is not None:
        return Scopes.parse(answer.scope, lenient=True)
    if missing == "refuse":
        raise EhrMisbehaved("the token response has no scope, and the profile wants one (Q4)")
    return requested


def granted_context(
    answer: TokenAnswer, identity: Identity | None, *, fhir_base: str, extensions: Collection[str]
) -> LaunchContext:
    """Return the launch context, and who signed in if an id_token says so."""
    user = identity.fhir_user if identity else None
    context = read_context(answer.members, fhir_user=user, fhir_base=fhir_base, extensions=extensions)
    return replace(context, issuer=identity.issuer, subject=identity.subject) if identity else context


def names_another_patient(terms: Terms, answer: TokenAnswer) -> bool:
    """Whether a refresh speaks of another patient than the grant: a security event, never an update (CX-11)."""
    patient, known = answer.members.get("patient"), terms.context.patient
    if patient in (None, "") or known is None:
        return False
    return str(patient) not in {known, f"Patient/{known}", f"{terms.fhir_base}/Patient/{known}"}


def names_another_user(terms: Terms, claims: Mapping[str, Any] | None, audiences: Collection[str]) -> bool:
    """Whether the id_token of a refresh changes issuer, subject or audience (ID-08, OIDC Core §12.2).

    Its signature need not have been verified: what it says can end the grant, and nothing else.
    """
    known = terms.context
    if claims is None or known.subject is None:
        return False
    said = claims.get("aud")
    named = said if isinstance(said, list) else [said]
    return (claims.get("iss"), claims.get("sub")) != (known.issuer, known.subject) or not any(
        audience in named for audience in audiences
    )


def offers_more(terms: Terms, answer: TokenAnswer) -> bool:
    """Whether a refresh speaks of scopes beyond the grant's: recorded, not applied (RF-11)."""
    return not granted_scopes(answer, terms.scopes).narrows(terms.scopes)


def refreshed_terms(
    terms: Terms, answer: TokenAnswer, identity: Identity | None = None, *, extensions: Collection[str] = ()
) -> Terms:
    """Return the terms after a refresh: scopes can shrink, never grow (RF-11); absent context is filled in (CX-11).

    It raises nothing: nobody else has the answer any more. Scopes that cannot be compared stay as they were, and so do
    all when the answer has none or a blank: that would end a grant which the EHR has just renewed.
    """
    later = granted_context(answer, identity, fhir_base=terms.fhir_base, extensions=extensions)
    filled = replace(terms, context=complete(terms.context, later))
    if not (answer.scope or "").strip():
        return filled
    try:
        scopes = terms.scopes.intersection(granted_scopes(answer, terms.scopes))
    except InvalidScope:
        return filled
    return replace(filled, scopes=scopes, scope_assumed=False)
