"""Faults that change a good FHIR answer: its links, its manifest, where its content lies."""

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.faults import Armed
from sandbox.storage import Storage


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer, all of it."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = b""

    @property
    def document(self) -> Any:
        """The body, if it is JSON and a success, else None."""
        return json.loads(self.body) if self.status == 200 and "json" in self.headers.get("content-type", "") else None

    def with_document(self, document: Any) -> "Heard":
        """Return the answer with another body."""
        return replace(self, body=json.dumps(document, separators=(",", ":")).encode())


@dataclass(slots=True)
class _Listener:
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message["headers"]
            self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
        else:
            self.body += message.get("body", b"")


def distorted(app: ASGIApp, struck: Sequence[Armed], origin: str, storage: Storage) -> ASGIApp:
    """Return an application that answers as `app` does, after each fault that struck has changed the answer.

    `origin` is the one its links begin with.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        listener = _Listener()
        await app(scope, receive, listener)
        heard = Heard(listener.status, listener.headers, listener.body)
        for fault in struck:
            heard = _DISTORTIONS[fault.fault.effect](heard, fault.parameters, origin, storage)
        headers = {name: value for name, value in heard.headers.items() if name != "content-length"}
        await Response(heard.body, heard.status, headers)(scope, receive, send)

    return answer


def _links(heard: Heard, origin: str, other: str) -> Heard:
    document = heard.document
    if not isinstance(document, dict):
        return heard
    links = [
        link | {"url": link["url"].replace(origin, other, 1)} if link["relation"] != "self" else link
        for link in document.get("link", ())
    ]
    return heard.with_document(document | {"link": links}) if links else heard


def _port(heard: Heard, parameters: Mapping[str, Any], origin: str, _storage: Storage) -> Heard:
    url = urlsplit(origin)
    return _links(heard, origin, f"{url.scheme}://{url.hostname}:{parameters['port']}")


def _move(heard: Heard, parameters: Mapping[str, Any], origin: str, _storage: Storage) -> Heard:
    return _links(heard, origin, parameters["origin"])


def _store(heard: Heard, _parameters: Mapping[str, Any], _origin: str, storage: Storage) -> Heard:
    if heard.status != 200:
        return heard
    location = storage.put(heard.body, heard.headers.get("content-type", "application/octet-stream"))
    return Heard(307, {"location": location, "cache-control": "no-store"})


def _strings(heard: Heard, _parameters: Mapping[str, Any], _origin: str, _storage: Storage) -> Heard:
    manifest = heard.document
    if not isinstance(manifest, dict):
        return heard
    return heard.with_document(manifest | {"requiresAccessToken": str(manifest["requiresAccessToken"]).lower()})


def _separate(heard: Heard, _parameters: Mapping[str, Any], _origin: str, _storage: Storage) -> Heard:
    return replace(heard, status=200, headers={**heard.headers, "x-export-status": str(heard.status)})


def _located(heard: Heard, parameters: Mapping[str, Any], _origin: str, _storage: Storage) -> Heard:
    return replace(heard, headers={**heard.headers, "content-location": parameters["url"]})


def _elsewhere(heard: Heard, _parameters: Mapping[str, Any], origin: str, storage: Storage) -> Heard:
    manifest = heard.document
    if not isinstance(manifest, dict):
        return heard
    moved = [file | {"url": file["url"].replace(origin, storage.origin(), 1)} for file in manifest["output"]]
    return heard.with_document(manifest | {"output": moved})


def _gzip(heard: Heard, _parameters: Mapping[str, Any], _origin: str, _storage: Storage) -> Heard:
    packed = gzip.compress(heard.body, mtime=0)
    return replace(heard, body=packed, headers={**heard.headers, "content-encoding": "gzip"})


_DISTORTIONS: Mapping[str, Callable[[Heard, Mapping[str, Any], str, Storage], Heard]] = {
    "port": _port,
    "move": _move,
    "storage": _store,
    "strings": _strings,
    "separate": _separate,
    "located": _located,
    "elsewhere": _elsewhere,
    "gzip": _gzip,
}
