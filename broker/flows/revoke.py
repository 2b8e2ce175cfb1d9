"""End what was handed out: a handle, an app's whole authorization, or a grant with everything that hangs on it."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from broker.apps import App, Directory
from broker.audit import AuditRecord, AuditTrail
from broker.credentials import REFRESH_HANDLE
from broker.ehr.discovery import Discovery
from broker.ehr.token_endpoint import TokenEndpoint
from broker.errors import BrokerError, EhrMisbehaved, InvalidGrant
from broker.grants import Grant, Grants
from broker.handles import Handle, Handles, RefreshHandle
from broker.keys.signing import SigningKeys

AtEhr = Literal["revoked", "local_only", "failed"]
_TRIES = 2


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
    """Ends a grant here first, at once, and then at the EHR as far as it offers that (IN-06…IN-08)."""

    directory: Directory
    grants: Grants
    discovery: Discovery
    token_endpoint: TokenEndpoint
    signing_keys: SigningKeys
    audit: AuditTrail

    async def __call__(self, tag: str, *, cause: str) -> AtEhr:
        """Revoke the grant and every handle of it. Raises `NotFound`; trouble at the EHR is in the answer."""
        grant = await self._end(tag, cause)
        at_ehr = await self._at_ehr(grant)
        self._record(grant, at_ehr, cause)
        return at_ehr

    async def _end(self, tag: str, cause: str) -> Grant:
        """End it here, and return it as it was at that moment: a refresh in between would leave us older tokens."""
        while True:
            grant = await self.grants.read(tag)
            self._record(grant, "revoking", cause)
            if await self.grants.end(tag, "revoked", cause, generation=grant.generation) != "stale":
                return grant

    async def _at_ehr(self, grant: Grant) -> AtEhr:
        for _ in range(_TRIES):  # RFC 7009: revoking twice is the same as once
            with suppress(BrokerError):
                return await self._ask(grant)
        return "failed"

    async def _ask(self, grant: Grant) -> AtEhr:
        url = (await self.discovery.endpoints(grant.terms.fhir_base)).revocation_endpoint
        if url is None or grant.sealed_tokens is None:
            return "local_only"
        tokens = await self.grants.open_tokens(grant)
        token, hint = tokens.most_lasting()
        authenticate = await self.signing_keys.authenticate(self.directory.registration(grant.terms.registration))
        timeout = self.directory.ehr(grant.terms.ehr).token_timeout
        status = await self.token_endpoint.revoke(url, authenticate, token=token, hint=hint, timeout=timeout)
        if status != 200:
            raise EhrMisbehaved(f"the revocation endpoint answered with status {status} (RFC 7009 §2.2)")
        return "revoked"

    def _record(self, grant: Grant, step: str, cause: str) -> None:
        self.audit.record(
            AuditRecord(
                event="grant.revoke",
                outcome="failed" if step == "failed" else "allowed",
                app=grant.terms.app,
                ehr=grant.terms.ehr,
                registration=grant.terms.registration,
                grant=grant.tag,
                reason=f"{step}: {cause}",
            )
        )
