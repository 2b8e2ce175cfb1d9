"""CORS: which page in a browser may read an answer (Fetch standard; SMART App Launch "CORS support"; CO-01, CO-02).

    discovery, metadata, JWK Set     any origin
    token, introspect, revoke, FHIR  the origins of the app that authenticated, or whose handle came
                                     a refusal that knows no app: the origins of any app, so that a page can read a 401
    everything else                  none

Credentials in the sense of CORS, which are cookies, are never allowed. A handle that comes from another app's page is
not refused for that: who has stolen one need not send an Origin. But that page cannot read the answer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from starlette.types import Scope

from broker.apps import App

Headers = list[tuple[bytes, bytes]]

_READER: Final = "broker.reader"
_PUBLIC: Final = frozenset(
    {"/oauth/jwks", "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"}
)
_PUBLIC_OF_EHR: Final = frozenset({".well-known/smart-configuration", "metadata"})
_FOR_APPS: Final = frozenset({"/oauth/token", "/oauth/introspect", "/oauth/revoke"})
_READING: Final = b"GET, HEAD, OPTIONS"
_POSTING: Final = b"POST, OPTIONS"
_FHIR: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_REQUEST_HEADERS: Final = (
    b"Accept, Accept-Language, Authorization, Cache-Control, Content-Type, DPoP, If-Match, If-Modified-Since, "
    b"If-None-Exist, If-None-Match, Prefer, X-Request-Id"
)
_EXPOSED: Final = (
    b"access-control-expose-headers",
    (
        b"Content-Location, DPoP-Nonce, ETag, Expires, Last-Modified, Location, Preference-Applied, Retry-After, "
        b"WWW-Authenticate, X-Export-Status, X-Progress, X-Request-Id"
    ),
)
_MAX_AGE: Final = (b"access-control-max-age", b"600")
_VARY: Final = (b"vary", b"Origin")
_ANY: Final = (b"access-control-allow-origin", b"*")


@dataclass(slots=True)
class Reader:
    """The app that an answer is for. The room that finds out says so; until then nobody knows."""

    app: str | None = None

    def is_app(self, app: str) -> None:
        """Take note of the app's id."""
        self.app = app


def reader_of(scope: Scope) -> Reader:
    """Return the request's reader."""
    reader: Reader = scope.setdefault(_READER, Reader())
    return reader


class Cors:
    """Knows each app's origins."""

    def __init__(self, apps: Iterable[App]) -> None:
        self._of_app = {app.id: frozenset(origin.encode() for origin in app.settings.browser_origins) for app in apps}
        self._of_any = frozenset[bytes]().union(*self._of_app.values())

    def preflight(self, scope: Scope) -> Headers | None:
        """Return the headers of the answer to a pre-flight request; None when it is none, or nothing is allowed here.

        It is answered without authentication, because browsers send it without (Fetch §4.8).
        """
        if scope["method"] != "OPTIONS":
            return None
        methods = _methods(scope["path"])
        if methods is None or all(name != b"access-control-request-method" for name, _ in scope["headers"]):
            return None
        allowed = self.headers(scope, 400)
        if not any(name == b"access-control-allow-origin" for name, _ in allowed):
            return allowed
        return [
            *(header for header in allowed if header != _EXPOSED),
            (b"access-control-allow-methods", methods),
            (b"access-control-allow-headers", _REQUEST_HEADERS),
            _MAX_AGE,
        ]

    def headers(self, scope: Scope, status: int) -> Headers:
        """Return the headers that go with an answer of this status."""
        methods = _methods(scope["path"])
        if methods is None:
            return []
        if methods is _READING:
            return [_ANY, _EXPOSED]
        origin = next((value for name, value in scope["headers"] if name == b"origin"), None)
        if origin is None or origin not in self._readers(reader_of(scope).app, status):
            return [_VARY]
        return [(b"access-control-allow-origin", origin), _EXPOSED, _VARY]

    def _readers(self, app: str | None, status: int) -> frozenset[bytes]:
        if app is not None:
            return self._of_app.get(app, frozenset())
        return self._of_any if status >= 400 else frozenset()


def _methods(path: str) -> bytes | None:
    """Return what may be asked across origins at this path; None where nothing may."""
    if path in _FOR_APPS:
        return _POSTING
    if path in _PUBLIC:
        return _READING
    if path.startswith("/fhir/"):
        return _READING if path.removeprefix("/fhir/").partition("/")[2] in _PUBLIC_OF_EHR else _FHIR
    return None
