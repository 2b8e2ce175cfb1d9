"""A person opened the link by which a grant is authorized again, and goes on to the EHR."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from broker.apps import Directory
from broker.audit import AuditRecord, AuditTrail, Outcome
from broker.errors import EhrError, InvalidRequest, Refusal
from broker.flows.ask_ehr import AskEhr, Redirect
from broker.flows.reauthorizable import AskedAgain, ask_again
from broker.grants import Grant, Grants
from broker.launches import Reauthorizes
from broker.reauthorizations import Link, Reauthorizations

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person is asked to authorize, in words that name nobody."""

    app: str
    ehr: str


@dataclass(frozen=True, slots=True)
class BeginReauthorization:
    """Says what a link is for; and, when the person goes on, begins a standalone launch for the grant.

    The link is not used up by it: a person may turn back at the EHR and try again.
    """

    directory: Directory
    grants: Grants
    reauthorizations: Reauthorizations
    ask_ehr: AskEhr
    audit: AuditTrail

    async def look(self, text: str, *, request_id: str) -> Asked:
        """Return what the link is for. Nothing begins: programs open links in mails, too. Raises `Refusal`."""
        _, _, asked = await self._audited(self._find(text), request_id)
        return Asked(asked.app.settings.name or asked.app.id, asked.ehr.name or asked.ehr.id)

    async def __call__(self, text: str, *, request_id: str) -> Redirect:
        """Return the redirect to the EHR. Raises `Refusal`, `EhrError`."""
        return await self._audited(self._begin(text, request_id), request_id)

    async def _begin(self, text: str, request_id: str) -> Redirect:
        link, grant, asked = await self._find(text)
        if not await self.reauthorizations.may_begin(link):
            raise InvalidRequest("too many launches by one link", public="Too many tries. Wait some minutes.")
        self._record("allowed", "the person goes to the EHR", request_id, grant)
        return await self.ask_ehr(
            asked.app,
            asked.allowance,
            asked.ehr,
            asked.scopes,
            request_id=request_id,
            reauthorizes=Reauthorizes(grant.tag, link.digest),
        )

    async def _find(self, text: str) -> tuple[Link, Grant, AskedAgain]:
        link = await self.reauthorizations.find(text)
        grant = await self.grants.read(link.tag)
        if grant.authorized_at != link.authorized_at:
            raise InvalidRequest(
                f"grant {grant.tag} was authorized again since the link was made",
                public="This link is unknown, used or expired. Ask for a new one.",
            )
        return link, grant, ask_again(grant, self.directory)

    async def _audited(self, work: Awaitable[Result], request_id: str) -> Result:
        try:
            return await work
        except (Refusal, EhrError) as error:
            self._record("denied" if isinstance(error, Refusal) else "failed", error.detail, request_id)
            raise

    def _record(self, outcome: Outcome, reason: str, request_id: str, grant: Grant | None = None) -> None:
        self.audit.record(
            AuditRecord(
                event="grant.reauthorize",
                outcome=outcome,
                app=grant.terms.app if grant else None,
                ehr=grant.terms.ehr if grant else None,
                registration=grant.terms.registration if grant else None,
                grant=grant.tag if grant else None,
                reason=reason,
                request_id=request_id,
            )
        )
