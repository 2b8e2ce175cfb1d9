"""`grant_type=authorization_code`: an app trades its code for a handle (RFC 6749 §4.1.3, RFC 7636 §4.6)."""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from authlib.oauth2.rfc7636 import create_s256_code_challenge

from broker.apps import App
from broker.codes import Codes
from broker.errors import InvalidGrant, InvalidRequest, NotFound
from broker.flows.issue_handle import IssueHandle
from broker.grants import Grants

_VERIFIER: Final = re.compile(r"[A-Za-z0-9\-._~]{43,128}")


@dataclass(frozen=True, slots=True)
class ExchangeCode:
    """Uses the code up, then checks what it is bound to: a code that was shown in the wrong place is spent."""

    codes: Codes
    grants: Grants
    issue_handle: IssueHandle

    async def __call__(self, app: App, form: Mapping[str, str], *, request_id: str) -> dict[str, Any]:
        """Return the token response. Raises `InvalidRequest`, `InvalidGrant`."""
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
        try:
            grant = await self.grants.read(code.tag)
        except NotFound:
            raise InvalidGrant("the grant is gone") from None
        return await self.issue_handle(app, grant, code.scopes, family=code.family, request_id=request_id)
