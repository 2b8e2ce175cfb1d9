"""One FHIR request, from handle to streamed answer. Read this first.

    redeem the handle  →  parse the interaction  →  decide  →  record  →  current token  →  send  →  relay

Each step takes the last one's result. No token can be asked for without the permit that `decide` gives, and nothing is
sent before the audit record is with the kernel.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from broker.apps import Directory
from broker.audit import AuditRecord, AuditTrail, Event, Outcome
from broker.egress import StreamedAnswer
from broker.ehr.fhir_server import FhirServer, request_headers
from broker.errors import BrokerError, EhrUnreachable, InvalidRequest, ReauthorizationRequired, Refusal, TooLarge
from broker.flows.relay import FhirAnswer, accept_for, relay
from broker.handles import Handles
from broker.interactions import Interaction, parse_interaction, wants_body
from broker.paging import PageLinks
from broker.policy import Permit, decide
from broker.refresh.current_token import CurrentToken, Refresher

DECIDED_BODY_BYTES: Final = 4 << 20
"""Most that a body may be which has to be read before deciding."""


@dataclass(frozen=True, slots=True)
class FhirRequest:
    """What arrived at `/fhir/{ehr}/{path}`."""

    ehr: str
    handle: str = field(repr=False)
    method: str
    raw_path: bytes = field(repr=False)
    """Relative to the FHIR base, as received, still percent-encoded."""
    raw_query: bytes = field(repr=False)
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    body: AsyncIterator[bytes] | None = field(repr=False)
    """What follows the head. It is read once the handle is known to be good: whole where it has to be decided on (a
    search form, a batch), else on its way through."""
    request_id: str


@dataclass(frozen=True, slots=True)
class Forward:
    """The FHIR proxy."""

    directory: Directory
    handles: Handles
    refresher: Refresher
    fhir_server: FhirServer
    page_links: PageLinks
    audit: AuditTrail

    @asynccontextmanager
    async def __call__(self, request: FhirRequest) -> AsyncIterator[FhirAnswer]:
        """Give the answer while the EHR is still sending it. Raises a `BrokerError`; a `Refusal` sent nothing."""
        permit = await self._permit(request)
        self._record(permit, request, "handle.use", "allowed")
        try:
            async with AsyncExitStack() as open_answers:
                answer = await self._send(permit, request, open_answers)
                self._record(permit, request, "handle.answer", "allowed", status=answer.status)
                yield answer
        except BrokerError as error:
            self._record(permit, request, "handle.answer", "failed", reason=f"{error.code}: {error.detail}")
            raise

    async def _permit(self, request: FhirRequest) -> Permit:
        handle = grant = interaction = None
        try:
            self.directory.ehr(request.ehr)
            handle, grant = await self.handles.redeem(request.handle, request.ehr)
            query, link = self.page_links.take(request.raw_query)
            body = await _read_whole(request.body) if wants_body(request.method, request.raw_path) else None
            interaction = parse_interaction(request.method, request.raw_path, query, request.headers, body)
            interaction = self.page_links.restore(interaction, link, handle.family)
            if any(name.lower() == "access_token" for name, _ in interaction.parameters):
                raise InvalidRequest("a token among the parameters", public="The token belongs in the header alone.")
            accept_for(interaction, request.headers)
            return decide(handle, grant, self.directory.app(handle.app), interaction)
        except (Refusal, ReauthorizationRequired) as error:
            self.audit.record(
                AuditRecord(
                    event="handle.use",
                    outcome="denied",
                    app=handle.app if handle else None,
                    ehr=handle.ehr if handle else None,
                    grant=handle.tag if handle else None,
                    handle=handle.id if handle else None,
                    interaction=interaction.label if interaction else None,
                    reason=f"{error.code}: {error.detail}",
                    request_id=request.request_id,
                )
            )
            raise

    async def _send(self, permit: Permit, request: FhirRequest, open_answers: AsyncExitStack) -> FhirAnswer:
        token = await self.refresher.current_token(permit)
        received = await open_answers.enter_async_context(self._to_ehr(permit, request, token))
        if received.status == 401:
            await open_answers.aclose()
            token = await self.refresher.replace_refused(permit, token)
            if not permit.interaction.safe:
                raise EhrUnreachable("401 to a write", public="The EHR's token was renewed. Send the request again.")
            received = await open_answers.enter_async_context(self._to_ehr(permit, request, token))
            if received.status == 401:
                raise ReauthorizationRequired(f"the EHR refuses the fresh token of grant {permit.grant.tag} (PX-08)")
        return relay(
            received,
            permit.interaction,
            ehr_base=permit.grant.terms.fhir_base,
            broker_base=self.directory.fhir_base(request.ehr),
            token=token.access_token,
            extend_page=partial(self.page_links.extend, permit),
        )

    @asynccontextmanager
    async def _to_ehr(self, permit: Permit, request: FhirRequest, token: CurrentToken) -> AsyncIterator[StreamedAnswer]:
        interaction, terms = permit.interaction, permit.grant.terms
        accept = accept_for(interaction, request.headers)
        async with self.fhir_server.send(
            fhir_base=terms.fhir_base,
            token=token.access_token,
            method=interaction.method,
            path=interaction.path,
            query=interaction.query,
            headers=request_headers(request.headers, accept=accept, preferences=preferences(permit))
            | _announced_length(request, interaction),
            content=interaction.body if interaction.body is not None else request.body,
            timeout=self.directory.ehr(terms.ehr).fhir_timeout,
        ) as answer:
            yield answer

    def _record(
        self,
        permit: Permit,
        request: FhirRequest,
        event: Event,
        outcome: Outcome,
        *,
        status: int | None = None,
        reason: str | None = None,
    ) -> None:
        self.audit.record(
            AuditRecord(
                event=event,
                outcome=outcome,
                app=permit.handle.app,
                ehr=permit.handle.ehr,
                registration=permit.grant.terms.registration,
                grant=permit.handle.tag,
                handle=permit.handle.id,
                interaction=permit.interaction.label,
                status=status,
                reason=reason,
                request_id=request.request_id,
            )
        )


def _announced_length(request: FhirRequest, interaction: Interaction) -> dict[str, str]:
    """Keep the length of a body that passes through: without it, it would go on in chunks, which some EHRs refuse."""
    lengths = [value.decode("latin-1") for name, value in request.headers if name.lower() == b"content-length"]
    whole = request.body is not None and interaction.body is None and len(lengths) == 1 and lengths[0].isdigit()
    return {"content-length": lengths[0]} if whole else {}


def preferences(permit: Permit) -> list[str]:
    """Return what the EHR is asked by `Prefer`: to honour what was relied on, to show nothing that may not be read."""
    strict = ["handling=strict"] if permit.relies_on_search else []
    interaction = permit.interaction
    blind = interaction.kind.endswith("patch") and not any(need.letter == "r" for need in interaction.needs)
    return [*strict, "return=minimal"] if blind else strict


async def _read_whole(body: AsyncIterator[bytes] | None) -> bytes:
    whole = bytearray()
    if body is None:
        return b""
    async for chunk in body:
        whole += chunk
        if len(whole) > DECIDED_BODY_BYTES:
            raise TooLarge(f"a body to be decided on of more than {DECIDED_BODY_BYTES} bytes")
    return bytes(whole)
