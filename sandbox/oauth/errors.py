"""How the OAuth endpoints say no (RFC 6749 §5.2)."""

from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import JSONResponse, PlainTextResponse, Response

from sandbox.settings import ErrorRule

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
"""The headers of every answer of the token endpoint (TR-03)."""
ERROR_URI = "https://authorization.invalid/errors/urn%3Asandbox%3Aerror%3Aoauth2%3A"
"""What an `error_uri` begins with: a URN, percent-encoded, as Oracle sends it (OR-03)."""


class OAuthError(Exception):
    """A refusal with its OAuth code and a sentence for the developer at the other end; Epic often sends null there."""

    def __init__(
        self, error: str, description: str | None, status: int = 400, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.status = status
        self.headers = headers or {}

    def response(self, rule: ErrorRule = "full") -> Response:
        """Return the answer; 401 carries the challenge RFC 6749 §5.2 asks for (OA-03)."""
        headers = {**NO_STORE, **self.headers}
        if self.status == HTTPStatus.UNAUTHORIZED:
            bearer = self.error == "invalid_token"
            headers["WWW-Authenticate"] = f'Bearer error="{self.error}"' if bearer else 'Basic realm="sandbox"'
        if rule == "text":
            return PlainTextResponse(f"Request refused: {self.error}", self.status, headers)
        more: Mapping[ErrorRule, Mapping[str, str | None]] = {
            "full": {"error_description": self.description},
            "null": {"error_description": None},
            "uri": {"error_uri": f"{ERROR_URI}{self.error}"},
        }
        return JSONResponse({"error": self.error, **more.get(rule, {})}, self.status, headers)


def invalid_request(description: str) -> OAuthError:
    """Return the refusal of a malformed request."""
    return OAuthError("invalid_request", description)


def invalid_client(description: str) -> OAuthError:
    """Return the refusal of a client that did not prove who it is."""
    return OAuthError("invalid_client", description, 401)


def invalid_grant(description: str) -> OAuthError:
    """Return the refusal of a code or refresh token."""
    return OAuthError("invalid_grant", description)


def invalid_scope(description: str) -> OAuthError:
    """Return the refusal of a scope."""
    return OAuthError("invalid_scope", description)
