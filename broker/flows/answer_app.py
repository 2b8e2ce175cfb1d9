"""Answer an app's authorization request: send the browser back to its redirect URI with a code or an error.

Every answer names the broker as its issuer, so that an app of several servers sees who answers (RFC 9207 §2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from broker.clock import Entropy
from broker.codes import Code, Codes
from broker.errors import BrokerError
from broker.grants import Grant
from broker.launches import AppRequest
from broker.scopes import Scopes

_FAMILY_BYTES = 12


@dataclass(frozen=True, slots=True)
class AnswerApp:
    """Builds the redirects. The redirect URI was checked when the request came, and has been kept sealed since."""

    codes: Codes
    entropy: Entropy
    issuer: str
    """The broker's own: its public URL."""

    async def with_code(self, request: AppRequest, app: str, grant: Grant) -> str:
        """Issue a code and return the redirect (RFC 6749 §4.1.2)."""
        code = await self.codes.issue(
            Code(
                tag=grant.tag,
                app=app,
                ehr=grant.terms.ehr,
                redirect_uri=request.redirect_uri,
                code_challenge=request.code_challenge,
                scopes=Scopes.parse(request.scope),
                family=self.entropy(_FAMILY_BYTES).hex(),
                nonce=request.nonce,
                detailed=request.detailed,
                dpop_jkt=request.dpop_jkt,
            )
        )
        return self._answer(request, {"code": code.reveal()})

    def with_error(self, request: AppRequest, error: BrokerError) -> str:
        """Return the redirect with the OAuth code and public text (RFC 6749 §4.1.2.1); the detail stays here."""
        return self._answer(request, {"error": error.oauth, "error_description": error.public})

    def _answer(self, request: AppRequest, parameters: Mapping[str, str]) -> str:
        state = {"state": request.state} if request.state else {}
        return with_query(request.redirect_uri, {**parameters, **state, "iss": self.issuer})


def with_query(uri: str, parameters: Mapping[str, str]) -> str:
    """Add parameters to a registered URI, which may have a query of its own."""
    return f"{uri}{'&' if '?' in uri else '?'}{urlencode(parameters)}"
