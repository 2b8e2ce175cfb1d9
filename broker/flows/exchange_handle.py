"""Token exchange (RFC 8693): a handle is traded for a narrower one, for the same app or for one that acts for it.

The new handle has no more scope, time, uses or patients than the one it is exchanged for, and ends with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from broker.apps import App, Directory
from broker.clock import Clock
from broker.errors import (
    InsufficientScope,
    InvalidHandle,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    NotFound,
    UnauthorizedClient,
)
from broker.flows.arriving import require_arrived
from broker.flows.binding import keep_binding, new_binding, require_bound
from broker.flows.exchange_request import ACCESS_TOKEN, Exchange
from broker.flows.issue_handle import REFRESHABLE, context_members, token_type
from broker.flows.mint_trail import MintTrail
from broker.flows.scope_text import read_narrowed
from broker.flows.tell_identity import TellIdentity, promised
from broker.grants import Grant
from broker.handles import UNBOUND, Confirmation, ExchangedHandles, Handle, Handles, actors
from broker.limits import Arrival, Limits, meet
from broker.policy import allowed_to, effective_limits, may_exchange
from broker.scopes import Scopes

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"


@dataclass(frozen=True, slots=True)
class ExchangeHandle:
    """Finds the handle, takes away from it, records, stores, and builds the token response."""

    directory: Directory
    handles: Handles
    exchanged_handles: ExchangedHandles
    tell_identity: TellIdentity
    clock: Clock

    async def __call__(
        self, app: App, form: Mapping[str, str], arrival: Arrival, trail: MintTrail, *, proven: Confirmation = UNBOUND
    ) -> dict[str, Any]:
        """Return the token response (RFC 8693 §2.2.1).

        Raises `InvalidRequest` for a malformed one or a subject that the app may not exchange,
        `InvalidTarget`, `InvalidScope` for more than the subject has, `UnauthorizedClient` where a policy forbids it.
        """
        asked = Exchange.read(form)
        subject, grant = await self._subject(app, asked.subject_token, arrival, trail)
        keep_binding(app, subject.confirmation, proven)
        self._require_target(form, subject)
        grant.require_usable()
        patient = _narrowed_patient(asked.patient, subject, grant)
        scopes = self._narrowed_scopes(asked.scope, subject, grant, app)
        bound_to = new_binding(app, proven, wanted=asked.certificate_bound or subject.x5t is not None)
        lifetime = self._lifetime(asked, subject, app)
        limits = _narrowed_limits(asked, subject, ends_at=self.clock() + lifetime)
        issued = await self.exchanged_handles.issue(
            subject,
            app=app.id,
            scopes=scopes,
            lifetime=lifetime,
            patient=patient,
            uses=asked.uses,
            limits=limits,
            announce=lambda handle_id: trail.announced(
                handle_id,
                grant,
                scopes,
                actors=" ".join(actors((*subject.apps, app.id))) or None,
                limits=limits,
                reason=f"exchanged for handle {subject.id}",
            ),
            bound_to=bound_to,
        )
        response = {
            **context_members(grant.terms.context),
            "patient": patient or grant.terms.context.patient,
            "fhirUser": self.tell_identity.fhir_user(grant, scopes),
            "access_token": issued.handle.reveal(),
            "issued_token_type": ACCESS_TOKEN,
            "token_type": token_type(bound_to.jkt),
            "expires_in": issued.expires_in,
            "scope": str(scopes),
            **(limits.members() if limits else {}),
        }
        return {name: value for name, value in response.items() if value is not None}

    async def _subject(self, app: App, text: str, arrival: Arrival, trail: MintTrail) -> tuple[Handle, Grant]:
        found = await self.handles.find(text)
        if found is None:
            raise _no_subject("subject_token is unknown, expired or revoked")
        handle, grant = found
        trail.shown(handle, grant)
        if not may_exchange(app, handle.app):
            raise _no_subject(f"app {app.id} may not exchange handles of app {handle.app}")
        try:
            self.directory.ehr(handle.ehr)
            require_bound(handle, self.directory.app)
            require_arrived(app, effective_limits(handle, grant, self.directory.app), arrival)
        except InsufficientScope as error:
            raise UnauthorizedClient(error.detail) from None
        except (NotFound, InvalidHandle) as error:
            raise _no_subject(error.detail) from None
        return handle, grant

    def _require_target(self, form: Mapping[str, str], subject: Handle) -> None:
        """A handle is for one FHIR base, and so is what is exchanged for it (RFC 8707 §2)."""
        for name in form.keys() & {"resource", "audience"}:
            if self.directory.ehr_by_audience(form[name]).id != subject.ehr:
                raise InvalidTarget(f"{name} is not EHR {subject.ehr}, which handle {subject.id} is for")

    def _narrowed_scopes(self, asked: str | None, subject: Handle, grant: Grant, app: App) -> Scopes:
        wanted = read_narrowed(asked, subject.scopes)
        try:
            left = allowed_to((*subject.apps, app.id), grant, self.directory.app, held=wanted)
        except InsufficientScope as error:
            raise UnauthorizedClient(error.detail) from None
        if not left.resources:
            raise InvalidScope(f"nothing of the scope is left for app {app.id}")
        return Scopes(left.resources, promised(left.others, grant.terms.context) - REFRESHABLE)

    def _lifetime(self, asked: Exchange, subject: Handle, app: App) -> int:
        """Return the seconds that the new handle lives: as many as everybody allows. Raises `InvalidRequest`."""
        now = self.clock()
        left = int(subject.expires_at - now)
        if left < 1:
            raise _no_subject(f"handle {subject.id} is about to expire")
        if asked.not_after is not None:
            left = min(left, int(asked.not_after - now))
        if left < 1:
            raise InvalidRequest("not_after has passed", public="not_after must be later than now.")
        return min(left, app.settings.handle_lifetime, asked.expires_in or left)


def _narrowed_patient(asked: str | None, subject: Handle, grant: Grant) -> str | None:
    """Return the one patient that the new handle is for, if it is for one; the context's is there in any case."""
    known = subject.patient or grant.terms.context.patient
    if asked is not None and known not in {None, asked}:
        raise InvalidScope(
            f"another patient than that of handle {subject.id} or of its grant",
            public="patient must be the token's own.",
        )
    return asked or subject.patient


def _narrowed_limits(asked: Exchange, subject: Handle, *, ends_at: float) -> Limits | None:
    """Return what the new handle is held to. Raises `InvalidScope` where that leaves it nothing to do, or no time."""
    limits = meet((subject.limits, asked.limits))
    if limits is None:
        return None
    if limits.not_before is not None and ends_at <= limits.not_before:
        raise InvalidScope("not_before is after the end", public="not_before must be before the token ends.")
    if (empty := limits.empty) is not None:
        raise InvalidScope(
            f"nothing is left of {empty} of handle {subject.id}",
            public=f"{empty} has nothing in common with what the token is limited to.",
        )
    return limits


def _no_subject(detail: str) -> InvalidRequest:
    """RFC 8693 §2.2.2: a bad subject token is an invalid request."""
    return InvalidRequest(
        detail, public="subject_token is not valid: unknown, expired, revoked, or not for this client to exchange."
    )
