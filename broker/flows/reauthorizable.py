"""Whether a person may authorize a grant again, and what is asked of the EHR then. Pure."""

from dataclasses import dataclass

from broker.apps import Allowance, App, Directory
from broker.errors import InvalidRequest
from broker.flows.authorize_app import ehr_scopes
from broker.grants import Grant, Terms
from broker.grants.same_person import is_about_somebody
from broker.scopes import Scopes
from broker.settings import EhrSettings

_PUBLIC = "This access cannot be authorized again. Start again from the app."


@dataclass(frozen=True, slots=True)
class AskedAgain:
    """What a launch for a grant takes."""

    app: App
    allowance: Allowance
    ehr: EhrSettings
    scopes: Scopes


def ask_again(grant: Grant, directory: Directory) -> AskedAgain:
    """Return what to ask of the EHR for a grant, by today's settings.

    Raises `InvalidRequest`, `NotFound`, `UnauthorizedClient` where a new authorization could not be the same one.
    """
    terms = grant.terms
    app = directory.app(terms.app or "")
    if grant.state == "revoked":
        raise InvalidRequest(f"grant {grant.tag} is revoked: it was ended here", public=_PUBLIC)
    if terms.flow != "launch" or app is None:
        raise InvalidRequest(f"grant {grant.tag} is no person's, or its app is no longer configured", public=_PUBLIC)
    if not is_about_somebody(terms):
        raise InvalidRequest(
            f"nothing tells whom grant {grant.tag} is about, so somebody else could take it over", public=_PUBLIC
        )
    ehr, allowance = directory.ehr(terms.ehr), app.allowance(terms.ehr, "launch")
    if allowance.registration.id != terms.registration or ehr.fhir_base != terms.fhir_base:
        raise InvalidRequest(
            f"grant {grant.tag} is of a registration or FHIR base that the settings no longer have", public=_PUBLIC
        )
    return AskedAgain(app, allowance, ehr, _asked(terms, allowance))


def _asked(terms: Terms, allowance: Allowance) -> Scopes:
    """Return the grant's scopes, as far as app and registration still go; the EHR is to say again who the patient is.

    Raises `InvalidRequest` when that leaves nothing.
    """
    scopes = terms.scopes.intersection(allowance.scopes)
    if not scopes.resources:
        raise InvalidRequest("the app may have nothing any more of what was granted", public=_PUBLIC)
    of_patient = {word for word in allowance.scopes.others if word.partition("?")[0] == "launch/patient"}
    contexts = frozenset(of_patient if terms.context.patient is not None else ())
    return ehr_scopes(Scopes(scopes.resources, scopes.others | contexts), allowance)
