"""EHR launch, first half: the EHR opened `/launch/{registration}` (AL-01, AL-02)."""

from dataclasses import dataclass

from broker.apps import App, Directory
from broker.audit import AuditRecord, AuditTrail, Outcome
from broker.errors import EhrError, InvalidRequest, NotFound, Refusal
from broker.flows.ask_ehr import AskEhr, EhrLaunch, Redirect
from broker.flows.scope_text import for_audit
from broker.scopes import Scopes
from broker.settings import EhrSettings, RegistrationSettings

_LONGEST_LAUNCH = 8192


@dataclass(frozen=True, slots=True)
class BeginLaunch:
    """Answers the EHR's launch by sending the browser to the EHR's own authorization."""

    directory: Directory
    ask_ehr: AskEhr
    audit: AuditTrail

    async def __call__(self, registration_id: str, iss: str, launch: str, *, request_id: str) -> Redirect:
        """Return the redirect to the EHR.

        The registration and `iss` must be on file before anything is fetched: an unknown `iss` is refused with no
        outbound request at all (AL-02). Raises `InvalidRequest`, `NotFound`, `EhrError`.
        """
        registration = ehr = None
        try:
            registration = self.directory.registration(registration_id)
            ehr = self.directory.ehr_of_launch(registration, iss)
            return await self._begin(registration, ehr, EhrLaunch(iss, launch), request_id)
        except (Refusal, EhrError) as error:
            outcome: Outcome = "denied" if isinstance(error, Refusal) else "failed"
            self._record(registration, ehr, outcome, error.detail, request_id)
            raise

    async def _begin(
        self, registration: RegistrationSettings, ehr: EhrSettings | None, launched_by: EhrLaunch, request_id: str
    ) -> Redirect:
        app = self._launched_app(registration.app)
        if ehr is None:
            raise InvalidRequest(
                "iss is not this registration's FHIR base (AL-02)",
                public="iss is not an EHR that this registration is for.",
            )
        if not 0 < len(launched_by.launch) <= _LONGEST_LAUNCH:
            raise InvalidRequest("launch is missing or too long", public="launch is missing or too long.")
        allowance = app.allowance(ehr.id, "launch")
        others = frozenset(w for w in Scopes.parse(registration.scopes).others if not _is_of_standalone(w))
        scopes = Scopes(allowance.scopes.resources, others)
        self._record(registration, ehr, "allowed", "EHR launch", request_id, scope=for_audit(scopes))
        asked = scopes.union(Scopes.parse("launch"))
        return await self.ask_ehr(app, allowance, ehr, asked, request_id=request_id, launched_by=launched_by)

    def _launched_app(self, app_id: str | None) -> App:
        app = self.directory.app(app_id) if app_id else None
        if app is None:
            raise NotFound("the registration names no app", public="This registration launches no app.")
        return app

    def _record(
        self,
        registration: RegistrationSettings | None,
        ehr: EhrSettings | None,
        outcome: Outcome,
        reason: str,
        request_id: str,
        *,
        scope: str | None = None,
    ) -> None:
        self.audit.record(
            AuditRecord(
                event="launch.begin",
                outcome=outcome,
                registration=registration.id if registration else None,
                ehr=ehr.id if ehr else None,
                app=registration.app if registration else None,
                scope=scope,
                reason=reason,
                request_id=request_id,
            )
        )


def _is_of_standalone(word: str) -> bool:
    """Whether it asks for context that an EHR launch already has: asking again would make the EHR ask the person."""
    return word.partition("?")[0] in {"launch/patient", "launch/encounter"}
