"""Read what a request says, strictly: no parameter twice, empty ones absent, bounded sizes (OA-01)."""

import asyncio
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.types import Scope

from broker.errors import InvalidClient, InvalidRequest, Refusal, TooLarge

Report = Callable[[str, str], None]
"""Writes an audit record: the cause, and the request's id."""
FORM_BYTES: Final = 64 * 1024
FORM_SECONDS: Final = 10.0
"""How long a form may take to arrive, in all."""
QUERY_BYTES: Final = 64 * 1024
_MOST_PARAMETERS: Final = 100
_REQUEST_ID: Final = re.compile(r"[0-9a-fA-F]{8}[0-9a-fA-F\-]{8,56}")


def parse_parameters(text: bytes) -> dict[str, str]:
    """Parse a query or form. Raises `InvalidRequest` for a repeated parameter or text that is not UTF-8."""
    try:
        pairs = parse_qsl(
            text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS
        )
    except ValueError:
        raise InvalidRequest("the parameters cannot be read", public="The parameters cannot be read.") from None
    if len({name for name, _ in pairs}) != len(pairs):
        raise InvalidRequest("a parameter is repeated", public="No parameter may be given twice.")
    return {name: value for name, value in pairs if value}


class Parameters:
    """Reads them, and has it written down when that cannot be done: every refusal has its cause in the audit trail."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def query(self, request: Request, rid: str) -> dict[str, str]:
        """Raises `InvalidRequest`, `TooLarge`."""
        try:
            return query_parameters(request)
        except Refusal as error:
            raise self.refused(error, rid) from None

    async def form(self, request: Request, rid: str) -> dict[str, str]:
        """Raises `InvalidRequest`, `TooLarge`."""
        try:
            return await form_parameters(request)
        except Refusal as error:
            raise self.refused(error, rid) from None

    def authorization(self, request: Request, rid: str) -> str | None:
        """Return the Authorization header. Raises `InvalidClient` when there are two."""
        values = request.headers.getlist("authorization")
        if len(values) > 1:
            raise self.refused(InvalidClient("two Authorization headers"), rid)
        return values[0] if values else None

    def required(self, form: Mapping[str, str], name: str, rid: str) -> str:
        """Return a parameter that has to be there. Raises `InvalidRequest`."""
        if name not in form:
            raise self.refused(InvalidRequest(f"{name} is missing", public=f"{name} is required."), rid)
        return form[name]

    def refused(self, error: Refusal, rid: str) -> Refusal:
        """Write down a refusal that no journey sees, and return it to be raised."""
        self._report(error.detail, rid)
        return error


def query_parameters(request: Request) -> dict[str, str]:
    """Raises `InvalidRequest`, `TooLarge`."""
    query: bytes = request.scope["query_string"]
    if len(query) > QUERY_BYTES:
        raise TooLarge("the query is too long")
    return parse_parameters(query)


async def form_parameters(request: Request) -> dict[str, str]:
    """Read a form body of at most 64 KiB within 10 s. Raises `InvalidRequest`, `TooLarge`."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise InvalidRequest("not a form", public="The body must be application/x-www-form-urlencoded.")
    try:
        async with asyncio.timeout(FORM_SECONDS):
            return parse_parameters(await _form_body(request))
    except TimeoutError:
        raise InvalidRequest("the form stalled", public="The body came too slowly.") from None
    except ClientDisconnect:
        raise InvalidRequest("the app went away while sending") from None


async def _form_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES:
            raise TooLarge("the form is too long")
    return bytes(body)


def request_id(headers: Mapping[str, str]) -> str:
    """Return the caller's `X-Request-Id` if it is hexadecimal, as UUIDs are, else a new one: it is logged."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


def request_id_of(scope: Scope) -> str:
    """Return the same of an ASGI request."""
    given = (value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id")
    return request_id({"x-request-id": next(given, "")})
