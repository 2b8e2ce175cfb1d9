"""Answer an app's authorization request: send the browser back to its redirect URI with a code or an error."""

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
            )
        )
        return with_query(request.redirect_uri, {"code": code.reveal(), "state": request.state})

    def with_error(self, request: AppRequest, error: BrokerError) -> str:
        """Return the redirect with the OAuth code and public text (RFC 6749 §4.1.2.1); the detail stays here."""
        parameters = {"error": error.oauth, "error_description": error.public}
        return with_query(request.redirect_uri, parameters | ({"state": request.state} if request.state else {}))


def with_query(uri: str, parameters: Mapping[str, str]) -> str:
    """Add parameters to a registered URI, which may have a query of its own."""
    return f"{uri}{'&' if '?' in uri else '?'}{urlencode(parameters)}"
