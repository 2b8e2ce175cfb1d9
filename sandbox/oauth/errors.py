"""How the OAuth endpoints say no (RFC 6749 §5.2)."""

from http import HTTPStatus

from starlette.responses import JSONResponse

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
"""The headers of every answer of the token endpoint (TR-03)."""


class OAuthError(Exception):
    """A refusal with its OAuth code and a sentence for the developer at the other end."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.status = status

    def response(self) -> JSONResponse:
        """Return the JSON answer; 401 carries the challenge RFC 6749 §5.2 asks for (OA-03)."""
        headers = dict(NO_STORE)
        if self.status == HTTPStatus.UNAUTHORIZED:
            bearer = self.error == "invalid_token"
            headers["WWW-Authenticate"] = f'Bearer error="{self.error}"' if bearer else 'Basic realm="sandbox"'
        return JSONResponse({"error": self.error, "error_description": self.description}, self.status, headers)


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
