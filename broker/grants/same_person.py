"""Whether a new authorization is about the person that a grant is about, and what of it the grant may have. Pure."""

from dataclasses import replace
from typing import Final

from broker.errors import AccessDenied, InvalidScope
from broker.grants.launch_context import complete
from broker.grants.record import Terms

_PUBLIC: Final = "This is not the person, patient or access that was authorized before. Nothing was changed."
_STATED: Final = ("patient", "issuer", "subject")
"""What the answer has to say again, where the grant knows it."""
_UNCHANGED: Final = ("fhir_user", "encounter", "tenant")
"""What the answer may leave out, and not say otherwise: EHRs tell it with some launches only."""


def is_about_somebody(terms: Terms) -> bool:
    """Whether it can be told that somebody else authorized: who signed in is known, or all access is to one patient."""
    known = terms.context
    if known.subject is not None or known.fhir_user is not None:
        return True
    return known.patient is not None and all(scope.level == "patient" for scope in terms.scopes.resources)


def same_terms(terms: Terms, answered: Terms) -> Terms:
    """Return the terms of a grant after a new authorization: nothing wider, context that was absent filled in.

    Raises `AccessDenied` when it is about somebody else or does not say whom, or grants nothing that was granted.
    """
    if (cause := _difference(terms, answered)) is not None:
        raise AccessDenied(cause, public=_PUBLIC)
    try:
        scopes = terms.scopes.intersection(answered.scopes)
    except InvalidScope:
        raise AccessDenied("the new scopes cannot be compared with the grant's", public=_PUBLIC) from None
    if not scopes.resources:
        raise AccessDenied("the EHR granted nothing that the grant had", public=_PUBLIC)
    context = complete(terms.context, answered.context)
    return replace(answered, scopes=scopes, context=context, app=terms.app)


def _difference(terms: Terms, answered: Terms) -> str | None:
    """Name what is another, by the member's name alone."""
    for name in ("ehr", "fhir_base", "registration", "flow"):
        if getattr(terms, name) != getattr(answered, name):
            return f"the new authorization is of another {name}"
    if not is_about_somebody(terms):
        return "nothing tells whom the grant is about"
    known, said = terms.context, answered.context
    stated = _STATED if known.subject is not None else (*_STATED, "fhir_user")
    for name in stated:
        if getattr(known, name) is not None and getattr(said, name) is None:
            return f"the new authorization does not say its {name}"
    for name in (*_STATED, *_UNCHANGED):
        if None not in (getattr(known, name), getattr(said, name)) and getattr(known, name) != getattr(said, name):
            return f"the new authorization is of another {name}"
    return None
