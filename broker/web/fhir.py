"""`ANY /fhir/{ehr}/{path}`: raw ASGI around `flows/forward.py`, because this is the hot path."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final, Literal

import structlog
from starlette.types import Message, Receive, Scope, Send

from broker.errors import BrokerError, InvalidRequest, TooLarge
from broker.flows.fhir_request import FhirRequest
from broker.flows.relay import FhirAnswer
from broker.policy import FindArrival
from broker.web.arrival import Arrivals
from broker.web.cors import reader_of
from broker.web.errors import BEARER, DPOP, fhir_error, unexpected
from broker.web.parameters import request_id_of

log = structlog.get_logger()

Journey = Callable[[FhirRequest], AbstractAsyncContextManager[FhirAnswer]]
"""`flows/forward.py`, or what an export goes through."""

BODY_BYTES: Final = 64 << 20
"""Most that a body may be."""
SILENCE_SECONDS: Final = 10.0
BODY_SECONDS: Final = 120.0
"""How long a body may stall, and take in all: meanwhile it holds a connection to the EHR that others wait for."""
WATCHED_BYTES: Final = 256 << 10
"""An answer longer than this is worth watching whether the app is still there."""
_BODILESS: Final = frozenset({"GET", "HEAD", "DELETE"})


class FhirProxy:
    """An ASGI application, mounted at `/fhir`."""

    def __init__(self, forward: Journey, arrivals: Arrivals) -> None:
        self._forward = forward
        self._arrivals = arrivals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        rid, started = request_id_of(scope), False
        try:
            find_arrival = partial(self._arrivals.of, scope, rid)
            request = _read_request(scope, receive, rid, find_arrival, tell_app=reader_of(scope).is_app)
            async with self._forward(request) as answer:
                await send(_start(answer, rid))
                started = True
                if answer.whole is None:
                    await _send_answer(answer, rid, receive, send, head=scope["method"] == "HEAD")
                else:
                    await send({"type": "http.response.body", "body": answer.whole})
        except Exception as error:  # noqa: BLE001  # the last place where anything can be turned into an answer
            refusal = error if isinstance(error, BrokerError) else unexpected(error)
            if started:
                # Nothing but a broken connection can still say that the body is not whole.
                log.warning("answer_broken_off", code=refusal.code, detail=refusal.detail, request_id=rid)
                return
            scheme, _ = credentials(scope)
            presented = any(name == b"authorization" for name, _ in scope["headers"])
            await fhir_error(refusal, request_id=rid, presented=presented, scheme=scheme)(scope, receive, send)


def _read_request(
    scope: Scope, receive: Receive, rid: str, find_arrival: FindArrival, tell_app: Callable[[str], None]
) -> FhirRequest:
    method, raw_query = scope["method"], scope["query_string"]
    path, (scheme, token) = scope["raw_path"].partition(b"?")[0], credentials(scope)
    ehr, _, raw_path = path.removeprefix(b"/fhir/").partition(b"/")
    return FhirRequest(
        ehr=ehr.decode("latin-1"),
        handle=token,
        method=method,
        raw_path=raw_path,
        raw_query=raw_query,
        headers=tuple(scope["headers"]),
        body=None if method in _BODILESS else _read_body(receive),
        request_id=rid,
        tell_app=tell_app,
        find_arrival=find_arrival,
        path=path.decode("latin-1"),
        proofs=_dpop_headers(scope) if scheme == DPOP else None,
    )


def credentials(scope: Scope) -> tuple[Literal["Bearer", "DPoP"], str]:
    """Return scheme and token; none unless there is exactly one such header, and it of a known scheme (OA-08)."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    written, _, token = values[0].decode("latin-1").partition(" ") if len(values) == 1 else ("", "", "")
    if written.lower() == "dpop":
        return DPOP, token.strip()
    return BEARER, token.strip() if written.lower() == "bearer" else ""


def _dpop_headers(scope: Scope) -> tuple[str, ...]:
    return tuple(value.decode("latin-1") for name, value in scope["headers"] if name == b"dpop")


async def _read_body(receive: Receive) -> AsyncIterator[bytes]:
    """Give the body as it arrives. Raises `TooLarge`, and `InvalidRequest` when it stalls or the app is gone."""
    size, more, give_up = 0, True, asyncio.get_running_loop().time() + BODY_SECONDS
    while more:
        try:
            async with asyncio.timeout_at(min(give_up, asyncio.get_running_loop().time() + SILENCE_SECONDS)):
                message = await receive()
        except TimeoutError:
            raise InvalidRequest("the body stalled", public="The body came too slowly.") from None
        if message["type"] == "http.disconnect":
            raise InvalidRequest("the app went away while sending")
        chunk = message.get("body", b"")
        size, more = size + len(chunk), message.get("more_body", False)
        if size > BODY_BYTES:
            raise TooLarge(f"a body of more than {BODY_BYTES} bytes")
        if chunk:
            yield chunk


async def _send_answer(answer: FhirAnswer, rid: str, receive: Receive, send: Send, *, head: bool) -> None:
    """Send the answer; of a long one, stop when the app is gone, so that the EHR need not send the rest."""
    watch: asyncio.Task[None] | None = None
    sent = 0
    try:
        async for chunk in answer.chunks:
            if chunk and not head:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                sent += len(chunk)
            if watch is None and sent > WATCHED_BYTES:
                watch = asyncio.create_task(_departure(receive))
            if watch is not None and watch.done():
                log.info("app_went_away", request_id=rid)
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        if watch is not None:
            watch.cancel()


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _start(answer: FhirAnswer, rid: str) -> Message:
    own = {"cache-control": "private, no-store", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
    length = {"content-length": str(len(answer.whole))} if answer.whole else {}
    headers = {"x-request-id": rid, **answer.headers, **length, **own}
    return {
        "type": "http.response.start",
        "status": answer.status,
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
    }
