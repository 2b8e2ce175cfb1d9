"""Ask an EHR what it thinks of a grant's token, and say where that differs from the grant (IN-01…IN-05).

A diagnostic for operators: no request of an app waits for it, and a grant is asked about once a minute at most.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from broker.audit import AuditRecord, AuditTrail, Outcome
from broker.ehr.introspection import Introspection
from broker.errors import BrokerError, InvalidRequest, NotFound
from broker.flows.scope_text import for_audit
from broker.grants import Grant, Grants, read_context
from broker.refresh.ehr_side import EhrSide
from broker.scopes import Scopes
from broker.store import keys
from broker.store.connection import store_errors

EVERY_SECONDS: Final = 60
_LEEWAY_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class IntrospectGrant:
    """Compares a grant with what its EHR says."""

    redis: Redis
    grants: Grants
    ehr_side: EhrSide
    audit: AuditTrail

    async def __call__(self, tag: str) -> list[str]:
        """Return the differences, in words that name nobody.

        Raises `NotFound` without the grant or an introspection endpoint, `ReauthorizationRequired` without tokens,
        `InvalidRequest` less than a minute after the last time, `EhrError`.
        """
        grant = await self.grants.read(tag)
        tokens, door = await self.grants.open_tokens(grant), await self.ehr_side.door(grant.terms)
        if door.endpoints.introspection_endpoint is None:
            raise NotFound("the EHR has no introspection_endpoint", public="This EHR offers no introspection.")
        with store_errors():
            first = await self.redis.set(keys.introspected(tag), "1", nx=True, ex=EVERY_SECONDS)
        if not first:
            raise InvalidRequest("introspected a moment ago", public=f"Only once in {EVERY_SECONDS} seconds.")
        self._record(grant, "allowed", "asked")
        try:
            url = door.endpoints.introspection_endpoint
            said = await self.ehr_side.introspect(door, url, tokens, tokens.access_token, "access_token")
        except BrokerError as error:
            self._record(grant, "failed", error.detail)
            raise
        client = tokens.dynamic_client or self.ehr_side.directory.registration(grant.terms.registration)
        found = list(differences(grant, said, client_id=client.client_id))
        self._record(grant, "allowed", f"{len(found)} differences")
        return found

    def _record(self, grant: Grant, outcome: Outcome, reason: str) -> None:
        self.audit.record(
            AuditRecord(
                event="grant.introspect",
                outcome=outcome,
                app=grant.terms.app,
                ehr=grant.terms.ehr,
                registration=grant.terms.registration,
                grant=grant.tag,
                reason=reason,
            )
        )


def differences(grant: Grant, said: Introspection, *, client_id: str) -> Iterator[str]:
    """Say in which the EHR's answer differs from the grant (IN-02); what it leaves out is no difference. Pure."""
    if not said.active:
        yield "the EHR says that the token is not active"
        return
    theirs = Scopes.parse(said.scope, lenient=True) if said.scope is not None else grant.terms.scopes
    if theirs.resources != grant.terms.scopes.resources:
        ours = for_audit(Scopes(grant.terms.scopes.resources))
        yield f"scope: the EHR says {for_audit(Scopes(theirs.resources))}; the grant has {ours}"
    if said.expires_at is not None and abs(said.expires_at - grant.expires_at) > _LEEWAY_SECONDS:
        yield f"exp: the EHR says {said.expires_at - grant.expires_at:+.0f} s"
    if said.client_id not in {None, client_id}:
        yield "client_id is another"
    known = grant.terms.context
    context = read_context(said.members, fhir_user=None, fhir_base=grant.terms.fhir_base)
    for name in ("patient", "encounter"):
        if getattr(context, name) not in {None, getattr(known, name)}:
            yield f"{name} is another"
    if known.subject is not None and said.members.get("sub", known.subject) != known.subject:
        yield "sub is another"
