"""Token exchange (RFC 8693): a handle is traded for a narrower one, for the same app or for one that acts for it.

The new handle has no more scope, time, uses or patients than the one it is exchanged for, and ends with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from broker.apps import App, Directory
from broker.audit import AuditRecord, AuditTrail
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
from broker.flows.check_dpop import keep_binding, require_bound
from broker.flows.issue_handle import REFRESHABLE, context_members, token_type
from broker.flows.scope_text import for_audit, read_narrowed
from broker.flows.tell_identity import TellIdentity, promised
from broker.grants import Grant
from broker.handles import ExchangedHandles, Handle, Handles, actors
from broker.interactions.syntax import is_id
from broker.policy import allowed_to, may_exchange
from broker.scopes import Scopes

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
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
        )


@dataclass(frozen=True, slots=True)
class ExchangeHandle:
    """Finds the handle, takes away from it, records, stores, and builds the token response."""

    directory: Directory
    handles: Handles
    exchanged_handles: ExchangedHandles
    tell_identity: TellIdentity
    audit: AuditTrail
    clock: Clock

    async def __call__(
        self, app: App, form: Mapping[str, str], *, request_id: str, jkt: str | None = None
    ) -> dict[str, Any]:
        """Return the token response (RFC 8693 §2.2.1).

        Raises `InvalidRequest` for a malformed one or a subject that the app may not exchange,
        `InvalidTarget`, `InvalidScope` for more than the subject has, `UnauthorizedClient` where a policy forbids it.
        """
        asked = Exchange.read(form)
        subject, grant = await self._subject(app, asked.subject_token)
        keep_binding(app, subject.jkt, jkt)
        self._require_target(form, subject)
        grant.require_usable()
        patient = _narrowed_patient(asked.patient, subject, grant)
        scopes = self._narrowed_scopes(asked.scope, subject, grant, app)
        lifetime = min(app.settings.handle_lifetime, asked.expires_in or app.settings.handle_lifetime)
        issued = await self.exchanged_handles.issue(
            subject,
            app=app.id,
            scopes=scopes,
            lifetime=min(lifetime, self._seconds_left(subject)),
            patient=patient,
            uses=asked.uses,
            announce=lambda handle_id: self._record(app, grant, subject, scopes, handle_id, request_id),
            jkt=jkt,
        )
        response = {
            **context_members(grant.terms.context),
            "patient": patient or grant.terms.context.patient,
            "fhirUser": self.tell_identity.fhir_user(grant, scopes),
            "access_token": issued.handle.reveal(),
            "issued_token_type": ACCESS_TOKEN,
            "token_type": token_type(jkt),
            "expires_in": issued.expires_in,
            "scope": str(scopes),
        }
        return {name: value for name, value in response.items() if value is not None}

    async def _subject(self, app: App, text: str) -> tuple[Handle, Grant]:
        found = await self.handles.find(text)
        if found is None:
            raise _no_subject("subject_token is unknown, expired or revoked")
        handle, grant = found
        if not may_exchange(app, handle.app):
            raise _no_subject(f"app {app.id} may not exchange handles of app {handle.app}")
        try:
            self.directory.ehr(handle.ehr)
            require_bound(handle, self.directory.app)
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

    def _seconds_left(self, subject: Handle) -> int:
        left = int(subject.expires_at - self.clock())
        if left < 1:
            raise _no_subject(f"handle {subject.id} is about to expire")
        return left

    def _record(self, app: App, grant: Grant, subject: Handle, scopes: Scopes, handle_id: str, request_id: str) -> None:
        self.audit.record(
            AuditRecord(
                event="handle.mint",
                outcome="allowed",
                app=app.id,
                ehr=grant.terms.ehr,
                registration=grant.terms.registration,
                grant=grant.tag,
                handle=handle_id,
                actors=" ".join(actors((*subject.apps, app.id))) or None,
                scope=for_audit(scopes),
                reason=f"exchanged for handle {subject.id}",
                request_id=request_id,
            )
        )


def _narrowed_patient(asked: str | None, subject: Handle, grant: Grant) -> str | None:
    """Return the one patient that the new handle is for, if it is for one; the context's is there in any case."""
    known = subject.patient or grant.terms.context.patient
    if asked is not None and known not in {None, asked}:
        raise InvalidScope(
            f"another patient than that of handle {subject.id} or of its grant",
            public="patient must be the token's own.",
        )
    return asked or subject.patient


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


def _no_subject(detail: str) -> InvalidRequest:
    """RFC 8693 §2.2.2: a bad subject token is an invalid request."""
    return InvalidRequest(
        detail, public="subject_token is not valid: unknown, expired, revoked, or not for this client to exchange."
    )
