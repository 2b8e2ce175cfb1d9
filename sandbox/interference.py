"""Faults that replace, delay or swallow whole answers."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.faults import Armed, Faults

PAGE = "<!doctype html><title>Maintenance</title><h1>We will be right back</h1>"
_ISSUES = {401: "login", 403: "forbidden", 404: "not-found", 410: "not-found", 429: "throttled", 503: "transient"}
_CHALLENGES = {401: 'Bearer error="invalid_token"', 403: 'Bearer error="insufficient_scope"'}


async def interfere(
    faults: Faults, point: str, client_id: str | None, answer: Callable[[], Awaitable[ASGIApp]]
) -> ASGIApp:
    """Return what is sent instead of `answer()`, or just that: at most one delay and one other fault strike."""
    if delay := faults.next(f"{point}.delay", client_id):
        await asyncio.sleep(delay.parameters["seconds"])
    struck = faults.next(point, client_id)
    if struck is None:
        return await answer()
    if struck.fault.effect in _INSTEAD:
        return _INSTEAD[struck.fault.effect](struck.parameters)
    response = await answer()
    if struck.fault.effect == "hold":
        await asyncio.sleep(struck.parameters["seconds"])
        return response
    return _AFTERWARDS[struck.fault.effect](response, struck)


def _oauth_error(parameters: Mapping[str, Any]) -> Response:
    members = {name: parameters[name] for name in ("error", "error_description") if parameters[name]}
    return JSONResponse(members, parameters["status"], _retry_after(parameters) | {"Cache-Control": "no-store"})


def _outcome(parameters: Mapping[str, Any]) -> Response:
    status = parameters["status"]
    issue = {"severity": "error", "code": _ISSUES.get(status, "exception"), "diagnostics": "a fault was armed"}
    headers = _retry_after(parameters)
    if status in _CHALLENGES:
        headers["WWW-Authenticate"] = parameters.get("challenge", _CHALLENGES[status])
    document = {"resourceType": "OperationOutcome", "issue": [issue]}
    return JSONResponse(document, status, headers, media_type="application/fhir+json")


def _json(parameters: Mapping[str, Any]) -> Response:
    return JSONResponse(parameters["document"], parameters["status"])


def _running(parameters: Mapping[str, Any]) -> Response:
    return Response(None, 202, {"X-Progress": "in progress", **_retry_after(parameters)})


def _unshared(parameters: Mapping[str, Any]) -> ASGIApp:
    """Return an outcome that no web page may read."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["cors"].clear()
        await _outcome(parameters)(scope, receive, send)

    return app


def _html(parameters: Mapping[str, Any]) -> Response:
    return HTMLResponse(PAGE, parameters["status"])


def _text(parameters: Mapping[str, Any]) -> Response:
    return PlainTextResponse(parameters["text"], parameters["status"])


def _redirect(parameters: Mapping[str, Any]) -> Response:
    return Response(None, parameters["status"], {"Location": parameters["location"]})


def _retry_after(parameters: Mapping[str, Any]) -> dict[str, str]:
    return {"Retry-After": str(parameters["retry_after"])} if "retry_after" in parameters else {}


def _silence(seconds: float) -> ASGIApp:
    """Return an answer that does not come: nothing for some seconds, then a closed connection."""

    async def app(scope: Scope, receive: Receive, _send: Send) -> None:
        try:
            async with asyncio.timeout(seconds):
                await _until_gone(receive)
        except TimeoutError:
            close_connection(scope)
            await _until_gone(receive)

    return app


def _truncated(response: ASGIApp) -> ASGIApp:
    """Return an answer that stops half-way through its first piece of body."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        stopped = False

        async def send_half(message: Message) -> None:
            nonlocal stopped
            if stopped:
                return
            if message["type"] == "http.response.body":
                stopped = True
                body = message.get("body", b"")
                await send({"type": message["type"], "body": body[: len(body) // 2], "more_body": True})
                close_connection(scope)
            else:
                await send(message)

        await response(scope, receive, send_half)

    return app


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def close_connection(scope: Scope) -> None:
    """Close the client's connection; without a server that lets us (in-process tests) raise `ConnectionResetError`."""
    close = scope.get("state", {}).get("close_connection")
    if close is None:
        raise ConnectionResetError("the sandbox closed the connection")
    close()


_INSTEAD: Mapping[str, Callable[[Mapping[str, Any]], ASGIApp]] = {
    "oauth_error": _oauth_error,
    "outcome": _outcome,
    "html": _html,
    "text": _text,
    "json": _json,
    "running": _running,
    "unshared": _unshared,
    "redirect": _redirect,
    "drop_before": lambda _: _silence(0),
}
_AFTERWARDS: Mapping[str, Callable[[ASGIApp, Armed], ASGIApp]] = {
    "drop": lambda _response, _struck: _silence(0),
    "silence": lambda _response, struck: _silence(struck.parameters["seconds"]),
    "truncate": lambda response, _struck: _truncated(response),
}
