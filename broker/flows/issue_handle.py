"""Give an app a handle, and say so: the last step of every grant type at `/oauth/token`."""

from dataclasses import dataclass
from typing import Any, Final

from broker.apps import App, Directory
from broker.audit import AuditRecord, AuditTrail
from broker.errors import InvalidScope
from broker.flows.scope_text import for_audit
from broker.grants import Grant, LaunchContext
from broker.handles import Handles, RefreshHandle
from broker.scopes import Scopes

_REFRESHABLE: Final = frozenset({"offline_access", "online_access"})


@dataclass(frozen=True, slots=True)
class IssueHandle:
    """Narrows, records, stores, and builds the token response."""

    directory: Directory
    handles: Handles
    audit: AuditTrail

    async def __call__(
        self,
        app: App,
        grant: Grant,
        requested: Scopes,
        *,
        family: str,
        request_id: str,
        spends: RefreshHandle | None = None,
    ) -> dict[str, Any]:
        """Return the token response (RFC 6749 §5.1) with the launch context.

        The handle gets what was requested, as far as the grant and the app's policy go. Raises `InvalidScope` when
        nothing is left, `InvalidGrant` when a refresh handle is spent twice.
        """
        grant.require_usable()
        allowance = app.allowance(grant.terms.ehr, grant.terms.flow)
        resources = requested.intersection(grant.terms.scopes).intersection(allowance.scopes).resources
        if not resources:
            raise InvalidScope("the EHR granted nothing of what the app asked")
        scopes = Scopes(resources, requested.others & allowance.scopes.others)
        kept = (spends.scopes if spends else scopes).others
        refreshable = kept & allowance.scopes.others & _REFRESHABLE
        issued = await self.handles.issue(
            tag=grant.tag,
            app=app.id,
            ehr=grant.terms.ehr,
            scopes=scopes,
            family=family,
            lifetime=app.settings.handle_lifetime,
            refresh_lifetime=app.settings.refresh_lifetime if refreshable else 0,
            announce=lambda handle_id: self._record(app, grant, scopes, handle_id, request_id),
            spends=spends,
        )
        response: dict[str, Any] = {
            "access_token": issued.handle.reveal(),
            "token_type": "Bearer",
            "expires_in": issued.expires_in,
            "scope": str(scopes),
            **context_members(grant.terms.context),
        }
        if issued.refresh_handle is not None:
            response["refresh_token"] = issued.refresh_handle.reveal()
        return response

    def _record(self, app: App, grant: Grant, scopes: Scopes, handle_id: str, request_id: str) -> None:
        self.audit.record(
            AuditRecord(
                event="handle.mint",
                outcome="allowed",
                app=app.id,
                ehr=grant.terms.ehr,
                registration=grant.terms.registration,
                grant=grant.tag,
                handle=handle_id,
                scope=for_audit(scopes),
                request_id=request_id,
            )
        )


def context_members(context: LaunchContext) -> dict[str, Any]:
    """Return the launch context as token-response members (SMART "launch context"), absent ones left out."""
    members = {
        "patient": context.patient,
        "encounter": context.encounter,
        "fhirUser": context.fhir_user,
        "need_patient_banner": context.need_patient_banner,
        "smart_style_url": context.smart_style_url,
        "tenant": context.tenant,
        "intent": context.intent,
        "fhirContext": list(context.fhir_context) or None,
    }
    return {name: value for name, value in members.items() if value is not None}
