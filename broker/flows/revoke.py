"""End what was handed out: a handle, an app's whole authorization, or a grant with everything that hangs on it."""

from contextlib import suppress
from dataclasses import dataclass, replace

from broker.apps import App
from broker.audit import AuditRecord, AuditTrail
from broker.credentials import REFRESH_HANDLE
from broker.errors import BrokerError, InvalidGrant, KeyUnavailable, SealBroken
from broker.grants import Grant, Grants
from broker.handles import Handle, Handles, RefreshHandle
from broker.refresh.ehr_side import AtEhr, EhrSide

_TRIES = 3


@dataclass(frozen=True, slots=True)
class RevokeHandle:
    """`/oauth/revoke` (RFC 7009): unknown, malformed or another app's are answered like one that was revoked."""

    handles: Handles
    audit: AuditTrail

    async def __call__(self, app: App, token: str, *, request_id: str) -> None:
        """Revoke a handle, or with a refresh handle everything of its family. Effective before this returns (HB-08)."""
        found = await self._find(token)
        mine = found is not None and found.app == app.id
        self.audit.record(
            AuditRecord(
                event="handle.revoke",
                outcome="allowed" if mine else "denied",
                app=app.id,
                ehr=found.ehr if found else None,
                grant=found.tag if found else None,
                handle=found.id if isinstance(found, Handle) else None,
                request_id=request_id,
            )
        )
        if mine and found is not None:
            await self.handles.revoke(found)

    async def _find(self, token: str) -> Handle | RefreshHandle | None:
        if token.startswith(REFRESH_HANDLE):
            with suppress(InvalidGrant):
                return await self.handles.find_refresh(token)
            return None
        found = await self.handles.find(token)
        return found[0] if found else None


@dataclass(frozen=True, slots=True)
class RevokeGrant:
    """Ends a grant here at once, and then at the EHR as far as it offers that (IN-06…IN-08)."""

    grants: Grants
    ehr_side: EhrSide
    audit: AuditTrail

    async def __call__(self, tag: str, *, cause: str) -> AtEhr:
        """Revoke the grant and every handle of it. Raises `NotFound`; trouble at the EHR is in the answer.

        One that cannot be opened now, or ever, is ended all the same, and the EHR is then not told.
        """
        try:
            grant = await self._end(tag, cause)
        except (KeyUnavailable, SealBroken) as sealed:
            return await self._end_unopened(tag, cause, sealed)
        try:
            at_ehr = await self._at_ehr(grant)
        except BrokerError as sealed:
            self._record(grant, f"failed, not told to the EHR ({sealed.code})", cause)
            return "failed"
        self._record(grant, at_ehr, cause)
        return at_ehr

    async def management_endpoint(self, tag: str) -> str | None:
        """Return where the person can end at the EHR what the broker cannot, if the EHR has such a place (IN-07)."""
        grant = await self.grants.read(tag)
        try:
            return (await self.ehr_side.door(grant.terms)).endpoints.management_endpoint
        except BrokerError:
            return None

    async def _end(self, tag: str, cause: str) -> Grant:
        """End it here, and return it as it was at that moment: a refresh in between would leave us older tokens."""
        while True:
            grant = await self.grants.read(tag)
            self._record(grant, "revoking", cause)
            if await self.grants.end(tag, "revoked", cause, generation=grant.generation) != "stale":
                return grant

    async def _end_unopened(self, tag: str, cause: str, sealed: BrokerError) -> AtEhr:
        begun = AuditRecord(event="grant.revoke", outcome="allowed", grant=tag, reason=f"revoking: {cause}")
        self.audit.record(begun)
        await self.grants.end(tag, "revoked", cause)
        untold = f"failed, not told to the EHR ({sealed.code}): {cause}"
        self.audit.record(replace(begun, outcome="failed", reason=untold))
        return "failed"

    async def _at_ehr(self, grant: Grant) -> AtEhr:
        if grant.sealed_tokens is None:
            return "local_only"
        tokens = await self.grants.open_tokens(grant)
        return await self.ehr_side.revoke(grant.terms, tokens, tries=_TRIES)

    def _record(self, grant: Grant, step: str, cause: str) -> None:
        self.audit.record(
            AuditRecord(
                event="grant.revoke",
                outcome="failed" if step.startswith("failed") else "allowed",
                app=grant.terms.app,
                ehr=grant.terms.ehr,
                registration=grant.terms.registration,
                grant=grant.tag,
                reason=f"{step}: {cause}",
            )
        )
