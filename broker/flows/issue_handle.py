"""Give an app a handle, and say so: the last step of every grant type at `/oauth/token`."""

from dataclasses import dataclass
from typing import Any, Final

from broker.apps import App, Directory
from broker.errors import InvalidScope
from broker.flows.binding import new_binding
from broker.flows.mint_trail import MintTrail
from broker.flows.tell_identity import TellIdentity, promised
from broker.grants import Grant, LaunchContext
from broker.handles import UNBOUND, Confirmation, Handles, Issued, RefreshHandle
from broker.scopes import Scopes

REFRESHABLE: Final = frozenset({"offline_access", "online_access"})
_OWN: Final = frozenset({"access_token", "refresh_token", "id_token", "authorization_details"})
"""Members that only the broker writes: whatever a profile allows, an EHR's never pass for context."""

_AGAIN: Final = "a spent refresh handle within its grace, if no successor was used"


@dataclass(frozen=True, slots=True)
class IssueHandle:
    """Narrows, records, stores, and builds the token response."""

    directory: Directory
    handles: Handles
    tell_identity: TellIdentity

    async def __call__(
        self,
        app: App,
        grant: Grant,
        requested: Scopes,
        *,
        family: str,
        trail: MintTrail,
        spends: RefreshHandle | None = None,
        proven: Confirmation = UNBOUND,
    ) -> dict[str, Any]:
        """Return the token response (RFC 6749 §5.1) with the launch context.

        The handle gets what was requested, as far as the grant and the app's policy go; it is bound to what the request
        proved, as far as the policy wants that. Raises `InvalidScope` when nothing is left, `InvalidGrant` when a
        refresh handle is spent twice and the app's `refresh_grace` is over.
        """
        grant.require_usable()
        allowance = app.allowance(grant.terms.ehr, grant.terms.flow)
        resources = requested.intersection(grant.terms.scopes).intersection(allowance.scopes).resources
        if not resources:
            raise InvalidScope("the EHR granted nothing of what the app asked")
        others = promised(requested.others & allowance.scopes.others, grant.terms.context)
        scopes = Scopes(resources, others)
        kept = (spends.scopes if spends else scopes).others
        refreshable = kept & allowance.scopes.others & REFRESHABLE
        again = spends is not None and spends.spent
        bound_to = new_binding(app, proven)
        issued = await self.handles.issue(
            tag=grant.tag,
            app=app.id,
            ehr=grant.terms.ehr,
            scopes=scopes,
            family=family,
            lifetime=app.settings.handle_lifetime,
            refresh_lifetime=app.settings.refresh_lifetime if refreshable else 0,
            announce=lambda handle_id: trail.announced(handle_id, grant, scopes, reason=_AGAIN if again else None),
            spends=spends,
            grace=app.settings.refresh_grace,
            bound_to=bound_to,
        )
        return self._response(issued, grant, scopes, bound_to.jkt)

    def _response(self, issued: Issued, grant: Grant, scopes: Scopes, jkt: str | None) -> dict[str, Any]:
        response = {
            **context_members(grant.terms.context),
            "fhirUser": self.tell_identity.fhir_user(grant, scopes),
            "access_token": issued.handle.reveal(),
            "token_type": token_type(jkt),
            "expires_in": issued.expires_in,
            "scope": str(scopes),
            "refresh_token": issued.refresh_handle.reveal() if issued.refresh_handle is not None else None,
        }
        return {name: value for name, value in response.items() if value is not None}


def token_type(jkt: str | None) -> str:
    """Return how a handle is to be shown: with a proof of its key, or as a bearer's (RFC 9449 §5)."""
    return "Bearer" if jkt is None else "DPoP"


def context_members(context: LaunchContext) -> dict[str, Any]:
    """Return the launch context as token-response members (SMART "launch context"), absent ones left out.

    Vendors' members are among them as far as the EHR's profile allows; none can stand for a credential (CX-09, HB-07).
    """
    members = {
        **{name: value for name, value in context.extensions.items() if name not in _OWN},
        "patient": context.patient,
        "encounter": context.encounter,
        "need_patient_banner": context.need_patient_banner,
        "smart_style_url": context.smart_style_url,
        "tenant": context.tenant,
        "intent": context.intent,
        "fhirContext": list(context.fhir_context) or None,
        "appContext": context.app_context,
    }
    return {name: value for name, value in members.items() if value is not None}
