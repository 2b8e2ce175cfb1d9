"""A request as the EHR has to get it: what the app wrote below the broker's base is relative there (PX-06)."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Final

from broker.apps import Directory
from broker.ehr.fhir_server import is_json
from broker.ehr.relative import RelativeReferences, RelativeUrls
from broker.errors import NotFound
from broker.flows.aside import aside
from broker.flows.fhir_request import FhirRequest
from broker.interactions import wants_body

_FORM: Final = "application/x-www-form-urlencoded"


def at_ehr(request: FhirRequest, directory: Directory) -> FhirRequest:
    """Return the request with relative URLs, which is what is decided on and sent; an ordinary read as it is."""
    if request.body is None and b"://" not in request.raw_query and b"%3" not in request.raw_query:
        return request
    try:
        urls = directory.relative_urls(request.ehr)
    except NotFound:
        return request  # which is refused, but not here
    if request.body is None:
        return replace(request, raw_query=urls.query(request.raw_query))
    headers = tuple((name, _criteria(name.lower(), value, urls)) for name, value in request.headers)
    return replace(request, raw_query=urls.query(request.raw_query), headers=headers, body=_body(request, urls))


def _criteria(name: bytes, value: bytes, urls: RelativeUrls) -> bytes:
    return urls.query(value) if name == b"if-none-exist" else value


def _body(request: FhirRequest, urls: RelativeUrls) -> AsyncIterator[bytes] | None:
    """Return the body that goes on. What is neither JSON nor a search form has no references that could be told."""
    types = [value.decode("latin-1") for name, value in request.headers if name.lower() == b"content-type"]
    if len(types) != 1 or request.body is None:
        return request.body
    is_read_whole = wants_body(request.method, request.raw_path)
    if is_read_whole and types[0].partition(";")[0].strip().lower() == _FORM:
        return _whole(request, urls.query)
    if not is_json({"content-type": types[0]}):
        return request.body
    if is_read_whole and not request.raw_path:
        return _whole(request, urls.bundle)
    return _passing(request.body, RelativeReferences(urls, is_patch=request.method == "PATCH"))


async def _whole(request: FhirRequest, turned: Callable[[bytes], bytes]) -> AsyncIterator[bytes]:
    """Give the body in one piece. Raises `TooLarge`."""
    body = await request.decided_body() or b""
    yield await aside(len(body), turned, body)


async def _passing(chunks: AsyncIterator[bytes], references: RelativeReferences) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        if out := references.feed(chunk):
            yield out
    yield references.finish()
