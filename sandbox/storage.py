"""Presigned storage: files behind URLs that are themselves the key, on another host name (OR-08, BD-10).

It refuses whoever sends an Authorization header along, as S3 does, and the journal counts how often that happened.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sandbox.journal import Journal
from sandbox.marks import Entropy, digest, mint

PATH = "/storage"
PARAMETER = "X-Signature"
TWO_MECHANISMS = b"<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>"
NO_KEY = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@dataclass(slots=True)
class Storage:
    """What was put there, by the SHA-256 of its signature."""

    origin: Callable[[], str]
    entropy: Entropy
    journal: Journal
    _files: dict[str, tuple[bytes, str]] = field(default_factory=dict)

    def put(self, content: bytes, media_type: str) -> str:
        """Return the URL under which the content can be fetched, by anybody who has it."""
        signature = mint("storage", self.entropy)
        self._files[digest(signature)] = content, media_type
        self.journal.issued("storage", digest(signature), None, None)
        return f"{self.origin()}{PATH}/file?{PARAMETER}={signature}"

    def clear(self) -> None:
        """Forget everything."""
        self._files.clear()

    def fetch(self, request: Request) -> Response:
        """Answer a GET."""
        if "authorization" in request.headers:
            self.journal.count("storage.authorization")
            return Response(TWO_MECHANISMS, 400, media_type="application/xml")
        found = self._files.get(digest(request.query_params.get(PARAMETER, "")))
        if found is None:
            return Response(NO_KEY, 403, media_type="application/xml")
        return Response(found[0], headers={"Content-Type": found[1]})


def storage_route(storage: Storage) -> BaseRoute:
    """Return the route."""

    async def fetch(request: Request) -> Response:
        return storage.fetch(request)

    return Route(f"{PATH}/{{file}}", fetch)
