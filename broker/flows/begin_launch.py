"""EHR launch, first half: the EHR opened `/launch/{registration}` (AL-01, AL-02)."""

from dataclasses import dataclass

from broker.apps import App, Directory
from broker.audit import AuditRecord, AuditTrail
from broker.errors import InvalidRequest, NotFound
from broker.flows.ask_ehr import AskEhr, Redirect
from broker.scopes import Scopes

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
        registration = self.directory.registration(registration_id)
        ehr = self.directory.ehr(registration.ehr)
        app = self._launched_app(registration.app)
        if iss.rstrip("/") != ehr.fhir_base:
            self.audit.record(
                AuditRecord(
                    event="launch.begin",
                    outcome="denied",
                    registration=registration.id,
                    ehr=ehr.id,
                    app=app.id,
                    reason="iss is not this registration's FHIR base (AL-02)",
                    request_id=request_id,
                )
            )
            raise InvalidRequest("iss is not on file", public="iss is not an EHR that this registration is for.")
        if not launch or len(launch) > _LONGEST_LAUNCH:
            raise InvalidRequest("launch is missing or too long", public="launch is missing or too long.")
        allowance = app.allowance(ehr.id, "launch")
        scopes = Scopes(allowance.scopes.resources, Scopes.parse(registration.scopes).others - STANDALONE_ONLY)
        self.audit.record(
            AuditRecord(
                event="launch.begin",
                outcome="allowed",
                registration=registration.id,
                ehr=ehr.id,
                app=app.id,
                scope=str(scopes),
                reason="EHR launch",
                request_id=request_id,
            )
        )
        asked = scopes.union(Scopes.parse("launch"))
        return await self.ask_ehr(app, allowance, asked, ehr_launch=launch, app_request=None)

    def _launched_app(self, app_id: str | None) -> App:
        app = self.directory.app(app_id) if app_id else None
        if app is None:
            raise NotFound("no app", public="This registration launches no app.")
        return app


STANDALONE_ONLY = frozenset({"launch/patient", "launch/encounter"})
"""Context that an EHR launch already has; asking again would make the EHR ask the person."""
