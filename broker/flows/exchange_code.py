"""`grant_type=authorization_code`: an app trades its code for a handle (RFC 6749 §4.1.3, RFC 7636 §4.6)."""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from authlib.oauth2.rfc7636 import create_s256_code_challenge

from broker.apps import App, Directory
from broker.codes import Code, Codes
from broker.errors import InvalidGrant, InvalidRequest, NotFound
from broker.flows.authorization_details import granted_details
from broker.flows.issue_handle import IssueHandle
from broker.flows.mint_trail import MintTrail
from broker.flows.tell_identity import TellIdentity
from broker.grants import Grant, Grants
from broker.handles import UNBOUND, Confirmation
from broker.scopes import Scopes

_VERIFIER: Final = re.compile(r"[A-Za-z0-9\-._~]{43,128}")


@dataclass(frozen=True, slots=True)
class ExchangeCode:
    """Uses the code up, then checks what it is bound to: a code that was shown in the wrong place is spent."""

    directory: Directory
    codes: Codes
    grants: Grants
    issue_handle: IssueHandle
    tell_identity: TellIdentity

    async def __call__(
        self, app: App, form: Mapping[str, str], trail: MintTrail, *, proven: Confirmation = UNBOUND
    ) -> dict[str, Any]:
        """Return the token response. Raises `InvalidRequest`, `InvalidGrant`."""
        code = await self._take(app, form)
        if code.dpop_jkt is not None and code.dpop_jkt != proven.jkt:
            raise InvalidGrant("the code is bound to a key, and the DPoP proof is missing or of another one")
        try:
            grant = await self.grants.read(code.tag)
        except NotFound:
            raise InvalidGrant("the grant is gone") from None
        response = await self.issue_handle(app, grant, code.scopes, family=code.family, trail=trail, proven=proven)
        return {**response, **await self._told_once(code, grant, response["scope"])}

    async def _take(self, app: App, form: Mapping[str, str]) -> Code:
        verifier = form.get("code_verifier", "")
        if not _VERIFIER.fullmatch(verifier):
            raise InvalidRequest(
                "code_verifier is missing or malformed",
                public="code_verifier is required: 43 to 128 characters (PKCE).",
            )
        if not form.get("code"):
            raise InvalidRequest("code is missing", public="code is required.")
        code = await self.codes.take(form["code"])
        if code.app != app.id:
            raise InvalidGrant("the code was issued to another app")
        if form.get("redirect_uri") != code.redirect_uri:
            raise InvalidGrant("redirect_uri is not the one of the authorization request")
        if not hmac.compare_digest(create_s256_code_challenge(verifier), code.code_challenge):
            raise InvalidGrant("code_verifier does not match the code_challenge")
        return code

    async def _told_once(self, code: Code, grant: Grant, scope: str) -> dict[str, Any]:
        """Return the members that come with a code and not with a refresh: they answer the authorization request."""
        members: dict[str, Any] = {}
        id_token = await self.tell_identity.id_token(code.app, grant, Scopes.parse(scope), code.nonce)
        if id_token is not None:
            members["id_token"] = id_token
        if code.detailed:
            base = self.directory.fhir_base(grant.terms.ehr)
            members["authorization_details"] = granted_details(base, scope, grant.terms.context)
        return members
