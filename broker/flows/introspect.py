"""`/oauth/introspect` (RFC 7662): an app asks about a handle of its own; anybody else's is just inactive (HB-06).

So is one that every request would be refused with, such as after its app's policy was taken away: what is told is what
the handle can do now, and not what it could when it was issued.

A public app proves nothing by its name: of a handle that is bound to a key it is told nothing without a proof of that
key, and of one that is limited to a network nothing elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from broker.apps import App, Directory
from broker.audit import AuditRecord, AuditTrail
from broker.errors import (
    BrokerError,
    InsufficientScope,
    InvalidDpopProof,
    InvalidHandle,
    ReauthorizationRequired,
    Refusal,
)
from broker.flows.arriving import require_arrived
from broker.flows.binding import require_bound
from broker.flows.check_dpop import CheckDpop
from broker.flows.issue_handle import context_members, token_type
from broker.flows.tell_identity import TellIdentity
from broker.grants import Grant
from broker.handles import Handle, Handles
from broker.limits import Arrival, Limits
from broker.policy import effective_limits, effective_scopes, require_certificate
from broker.scopes import Scopes


@dataclass(frozen=True, slots=True)
class Introspect:
    """Tells what a handle may do."""

    directory: Directory
    handles: Handles
    tell_identity: TellIdentity
    check_dpop: CheckDpop
    audit: AuditTrail

    async def __call__(
        self, app: App, token: str, arrival: Arrival, *, request_id: str, proofs: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return the introspection response; `proofs` are the DPoP headers.

        Raises `InvalidDpopProof` for a bad one of a public app's, `StoreUnavailable`.
        """
        found = await self.handles.find(token)
        scopes: Scopes | None = None
        refused: BrokerError | None = None
        try:
            jkt = await self.check_dpop.at_introspection(app, proofs)
            scopes = self._usable(app, *found, jkt, arrival) if found else None
        except (Refusal, ReauthorizationRequired) as error:
            refused = error
        self.audit.record(
            AuditRecord(
                event="handle.introspect",
                outcome="allowed" if scopes else "denied",
                app=app.id,
                handle=found[0].id if found else None,
                grant=found[0].tag if found else None,
                actors=" ".join(found[0].actors) or None if found else None,
                reason=f"{refused.code}: {refused.detail}" if refused else None,
                request_id=request_id,
            )
        )
        if isinstance(refused, InvalidDpopProof):
            raise refused
        return self._told(*found, scopes) if found and scopes else {"active": False}

    def _usable(self, app: App, handle: Handle, grant: Grant, jkt: str | None, arrival: Arrival) -> Scopes:
        """Return what a handle of the app can do as things stand. Raises what would refuse it at `/fhir`.

        The scopes that open no resource are those that came with it: no later request is decided by them.
        """
        if handle.app != app.id:
            raise InvalidHandle(f"handle {handle.id} is of app {handle.app}")
        self.directory.ehr(handle.ehr)
        require_bound(handle, self.directory.app)
        is_public = app.settings.authentication == "none"
        if is_public and handle.jkt not in {None, jkt}:
            raise InvalidHandle(f"handle {handle.id} is bound to a key, and the proof is missing or of another one")
        if is_public:
            require_certificate(handle, arrival)
        grant.require_usable()
        require_arrived(app, effective_limits(handle, grant, self.directory.app), arrival)
        resources = effective_scopes(handle, grant, self.directory.app).resources
        if not resources:
            raise InsufficientScope(f"nothing is left of the scope of handle {handle.id}")
        return Scopes(resources, handle.scopes.others)

    def _told(self, handle: Handle, grant: Grant, scopes: Scopes) -> dict[str, Any]:
        return {
            **context_members(grant.terms.context),
            **_narrowing(handle),
            **_limits(effective_limits(handle, grant, self.directory.app)),
            **self.tell_identity.claims(handle.app, grant, scopes),
            "active": True,
            "client_id": handle.app,
            "token_type": token_type(handle.jkt),
            **_confirmation(handle),
            "scope": str(scopes),
            "exp": int(handle.expires_at),
            "aud": self.directory.fhir_base(handle.ehr),
        }


def _confirmation(handle: Handle) -> dict[str, Any]:
    """Return what a handle is bound to (RFC 7800; RFC 9449 §6.2, RFC 8705 §3.2)."""
    names = {"jkt": "jkt", "x5t": "x5t#S256"}
    bound_to = {names[name]: value for name, value in handle.confirmation.fields().items()}
    return {"cnf": bound_to} if bound_to else {}


def _limits(limits: Limits | None) -> dict[str, Any]:
    """Return what beside the scope a handle is held to; its beginning by the name of RFC 7662 §2.2."""
    members = {} if limits is None else limits.members()
    return {"nbf" if name == "not_before" else name: member for name, member in members.items()}


def _narrowing(handle: Handle) -> dict[str, Any]:
    """Return what token exchange made of a handle: its patient, and who acts for whom (RFC 8693 §4.1)."""
    narrowing: dict[str, Any] = {} if handle.patient is None else {"patient": handle.patient}
    for app in handle.actors:
        narrowing["act"] = {"sub": app} | ({"act": narrowing["act"]} if "act" in narrowing else {})
    return narrowing
