"""One FHIR request, from handle to streamed answer. Read this first.

    check the handle's form, and the proof where one comes along  →  redeem  →  count  →  parse the interaction
         →  decide  →  admit  →  take a use, where uses are counted  →  record  →  current token  →  send  →  relay

Each step takes the last one's result. No token can be asked for without the permit that `decide` gives, and nothing is
sent before the audit record is with the kernel.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

from broker.apps import Directory
from broker.audit import AuditTrail, Event, Outcome
from broker.deciding import SearchableWanted
from broker.egress import StreamedAnswer
from broker.ehr.fhir_server import FhirServer
from broker.errors import (
    AnswerWithheld,
    AuditUnavailable,
    BrokerError,
    EhrAnswerLost,
    EhrUnreachable,
    ReauthorizationRequired,
    Refusal,
    TooManyRequests,
)
from broker.fair_use import FairUse
from broker.flows.aside import aside
from broker.flows.at_ehr import at_ehr
from broker.flows.binding import require_bound
from broker.flows.check_dpop import CheckDpop
from broker.flows.fhir_request import FhirRequest, require_no_token
from broker.flows.follow_merge import REDIRECTS, merged_into, name_record
from broker.flows.redeem import redeem
from broker.flows.relay import FhirAnswer, begun, relay
from broker.flows.searchable import SearchableParameters
from broker.flows.use_record import record_of, record_of_refusal
from broker.grants import Grant
from broker.handles import Handle, Handles
from broker.interactions import Interaction, parse_interaction, parse_page
from broker.paging import PageLinks
from broker.policy import EffectiveScopes, FindArrival, Permit, decide
from broker.refresh.current_token import CurrentToken, Refresher


@dataclass(frozen=True, slots=True)
class Permitted:
    """A request that goes on: what arrived, what permits it, and the headers that go with it."""

    request: FhirRequest
    permit: Permit
    headers: Mapping[str, str]

    @classmethod
    def of(cls, request: FhirRequest, permit: Permit) -> Self:
        """Work out the headers. Raises `InvalidRequest`, `NotAcceptable` for what cannot go on as it is."""
        return cls(request, permit, request.headers_for_ehr(permit))


@dataclass(frozen=True, slots=True)
class Forward:
    """The FHIR proxy."""

    directory: Directory
    handles: Handles
    refresher: Refresher
    fhir_server: FhirServer
    page_links: PageLinks
    check_dpop: CheckDpop
    searchable: SearchableParameters
    effective: EffectiveScopes
    fair_use: FairUse
    audit: AuditTrail

    @asynccontextmanager
    async def __call__(self, request: FhirRequest) -> AsyncIterator[FhirAnswer]:
        """Give the answer while the EHR is still sending it. Raises a `BrokerError`.

        A `Refusal` sent nothing; but `AnswerWithheld` did, and keeps what came back.
        """
        permitted = await self._permit(at_ehr(request, self.directory))
        self._record(permitted, "handle.use", "allowed", reason=permitted.permit.rule)
        received: StreamedAnswer | None = None
        try:
            answered, received, token = await self._ask(permitted)
            answer = self._relayed(answered, received, token)
            if answered is not permitted:
                answer = name_record(answer, answered.permit, self.directory)
            if answered.permit.checks is not None:
                answer = await begun(answer)
            self._record_answer(permitted, answer.status)
            yield answer
        except BrokerError as error:
            outcome: Outcome = "denied" if isinstance(error, AnswerWithheld) else "failed"
            with suppress(AuditUnavailable):  # which says that nothing was lost: of this error that may not be true
                self._record(permitted, "handle.answer", outcome, reason=f"{error.code}: {error.detail}")
            raise
        finally:
            if received is not None:
                received.close()

    async def _permit(self, request: FhirRequest) -> Permitted:
        """Return the request with its permit. Every refusal is recorded."""
        handle = grant = interaction = None
        try:
            handle, grant = await redeem(request, self.directory, self.handles, self.check_dpop)
            await self.fair_use.count(handle)
            require_bound(handle, self.directory.app)
            query, link = self.page_links.take(request.raw_query)
            body = await request.decided_body()
            if link is None:
                asked = request.method, request.raw_path, query, request.headers, body
                interaction = await aside(len(body or b""), parse_interaction, *asked)
            else:
                page = parse_page(request.method, request.raw_path, query, request.headers)
                interaction = self.page_links.follow(page, link, handle.family)
            require_no_token(interaction)
            permit = await self._decide(handle, grant, interaction, request.find_arrival)
            permitted = Permitted.of(request, permit)  # what cannot go on is refused before a use is taken
            await self.fair_use.admit(handle)
            await self.handles.take_use(handle)
        except TooManyRequests:
            raise  # recorded by `fair_use`, which counts where it would be a flood
        except (Refusal, ReauthorizationRequired) as error:
            self.audit.record(record_of_refusal("handle.use", error, handle, grant, request.request_id, interaction))
            raise
        return permitted

    async def _decide(
        self, handle: Handle, grant: Grant, interaction: Interaction, find_arrival: FindArrival | None
    ) -> Permit:
        """Decide; ask what the EHR can search by only where a search has to be made to say more (SC-05)."""
        decided = partial(
            decide, handle, grant, self.directory.app, interaction, find_arrival, effective=self.effective
        )
        try:
            return decided()
        except SearchableWanted:
            searchable = await self.searchable(grant.terms.ehr)
        return decided(searchable=searchable)

    async def _ask(self, permitted: Permitted) -> tuple[Permitted, StreamedAnswer, CurrentToken]:
        """Return the EHR's answer, what it answers, and the token that it was given for.

        It answers what was permitted, unless a patient was merged into another record that the handle may read (PX-15).
        """
        token, received = await self._send(permitted)
        if received.status not in REDIRECTS:
            return permitted, received, token
        request = permitted.request
        try:
            other = merged_into(received, permitted.permit, self.directory, request.find_arrival)
        except BrokerError:
            received.close()
            raise
        if other is None:
            return permitted, received, token
        received.close()
        merged = Permitted.of(request, other)
        self._record(merged, "handle.use", "allowed", reason="merged into another record (PX-15)")
        return merged, await self._once_more(merged, token), token

    async def _send(self, permitted: Permitted) -> tuple[CurrentToken, StreamedAnswer]:
        token = await self.refresher.current_token(permitted.permit)
        received = await self._to_ehr(permitted, token)
        if received.status == 401:
            received.close()
            token = await self.refresher.replace_refused(permitted.permit, token)
            received = await self._once_more(permitted, token)
        return token, received

    async def _once_more(self, permitted: Permitted, token: CurrentToken) -> StreamedAnswer:
        """Send once more what may be sent again: with a fresh token, or after a redirect (PX-08)."""
        permit = permitted.permit
        if not permit.interaction.safe:
            raise EhrUnreachable("401 to a write", public="The EHR's token was renewed. Send the request again.")
        received = await self._to_ehr(permitted, token)
        if received.status == 401:
            received.close()
            raise ReauthorizationRequired(f"the EHR refuses the fresh token of grant {permit.grant.tag} (PX-08)")
        return received

    async def _to_ehr(self, permitted: Permitted, token: CurrentToken) -> StreamedAnswer:
        permit = permitted.permit
        interaction, terms = permit.interaction, permit.grant.terms
        send = partial(
            self.fhir_server.send,
            fhir_base=terms.fhir_base,
            token=token.access_token,
            method=interaction.method,
            path=interaction.path,
            query=interaction.query,
            headers=permitted.headers,
            content=interaction.body if interaction.body is not None else permitted.request.body,
            timeout=self.directory.ehr(terms.ehr).fhir_timeout,
            proof_key=token.proof_key,
        )
        return await self.fair_use.send(send, permit.handle, "interactive" if terms.flow == "launch" else "background")

    def _relayed(self, permitted: Permitted, received: StreamedAnswer, token: CurrentToken) -> FhirAnswer:
        permit, proofs = permitted.permit, permitted.request.proofs
        answer = relay(
            received,
            permit.interaction,
            urls=self.directory.urls(permit.grant.terms.ehr, permit.grant.terms.fhir_base),
            token=token.access_token,
            extend_page=partial(self.page_links.extend, permit),
            checks=permit.checks,
        )
        if proofs is None:
            return answer
        return replace(answer, headers={**answer.headers, **self.check_dpop.headers(proofs)})

    def _record_answer(self, permitted: Permitted, status: int) -> None:
        """Record that the EHR answered. Raises `AuditUnavailable`, of a write `EhrAnswerLost`: it may be done."""
        try:
            self._record(permitted, "handle.answer", "allowed", status=status)
        except AuditUnavailable as error:
            if permitted.permit.interaction.safe:
                raise
            cause = f"the EHR answered {status}, which cannot be recorded: {error.detail}"
            raise EhrAnswerLost(cause, public="The request may have been carried out; its answer is lost.") from None

    def _record(
        self,
        permitted: Permitted,
        event: Event,
        outcome: Outcome,
        *,
        status: int | None = None,
        reason: str | None = None,
    ) -> None:
        rid = permitted.request.request_id
        self.audit.record(record_of(event, outcome, permitted.permit, rid, status=status, reason=reason))
