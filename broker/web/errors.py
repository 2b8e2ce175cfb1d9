"""The one translator per dialect. The public text leaves; the private detail goes to the log.

`/oauth`: RFC 6749 §5.2 JSON. `/fhir`: OperationOutcome with an RFC 6750 challenge. Pages for people: HTML without
anything from outside. Everything else: RFC 9457 problem JSON.
"""

import html
import json
import math
from collections.abc import Collection
from typing import Final, Literal

import structlog
from starlette.responses import Response

from broker.dpop import ALGORITHMS
from broker.errors import (
    BrokerError,
    EhrUnreachable,
    InvalidClient,
    InvalidHandle,
    TooManyExports,
    TooManyRequests,
    UseDpopNonce,
)

log = structlog.get_logger()

BEARER: Final = "Bearer"
DPOP: Final = "DPoP"
"""The schemes that a handle is shown by."""
_CHALLENGES: Final = frozenset({"invalid_token", "insufficient_scope", "invalid_dpop_proof", "use_dpop_nonce"})
NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body{{font:16px/1.5 system-ui,sans-serif;color:#1b2733;background:#f4f6f8;margin:0;
display:grid;min-height:100vh;place-items:center}}
main{{background:#fff;border:1px solid #d9e0e6;border-radius:10px;max-width:34rem;padding:2rem 2.25rem;margin:1rem}}
h1{{font-size:1.2rem;margin:0 0 .75rem}}p{{margin:.5rem 0}}
code{{background:#eef2f5;border-radius:4px;padding:.1rem .35rem}}
small{{color:#5b6b79}}</style></head>
<body><main><h1>{title}</h1><p>{text}</p>
<p><small>Code <code>{code}</code> · request <code>{request_id}</code></small></p>
</main></body></html>
"""


class UnexpectedError(BrokerError):
    """Something nobody foresaw; the log names its type and place, the answer names nothing."""


def oauth_error(error: BrokerError, *, request_id: str) -> Response:
    """Translate for `/oauth`: JSON with `error` and `error_description`."""
    log_error(error, request_id)
    headers = {**NO_STORE, "X-Request-Id": request_id}
    if isinstance(error, InvalidClient):
        headers["WWW-Authenticate"] = 'Basic realm="token broker"'
    headers |= _nonce(error) | _pause(error)
    body = json.dumps({"error": error.oauth, "error_description": error.public})
    # RFC 6749 §5.2 answers 400 to all that the client got wrong, except 401 to a client that did not prove itself.
    kept = isinstance(error, InvalidClient) or error.status in {404, 413, 429} or error.status >= 500
    status = error.status if kept else 400
    return Response(body, status, headers, "application/json")


def fhir_error(
    error: BrokerError, *, request_id: str, presented: bool = True, scheme: Literal["Bearer", "DPoP"] = "Bearer"
) -> Response:
    """Translate for `/fhir`: an OperationOutcome; `presented` is False when no credentials came (RFC 6750 §3.1).

    `scheme` is that of the credentials.
    """
    log_error(error, request_id)
    headers = {"Cache-Control": "no-store", "X-Request-Id": request_id}
    if error.status in {401, 403}:
        code = error.oauth if error.oauth in _CHALLENGES else "invalid_token"
        if error.status == 401 or error.code == "insufficient_scope":
            challenge = f', error="{code}"' if presented else ""
            asks = DPOP if isinstance(error, InvalidHandle) and error.needs_proof else scheme
            algorithms = f', algs="{" ".join(ALGORITHMS)}"' if asks == DPOP else ""
            headers["WWW-Authenticate"] = f'{asks} realm="token broker"{challenge}{algorithms}'
    headers |= _nonce(error) | _pause(error)
    return Response(operation_outcome(error), error.status, headers, "application/fhir+json")


def _nonce(error: BrokerError) -> dict[str, str]:
    """RFC 9449 §8: a refusal for want of a nonce brings it."""
    return {"DPoP-Nonce": error.nonce} if isinstance(error, UseDpopNonce) else {}


def _pause(error: BrokerError) -> dict[str, str]:
    """What comes again may be tried again: after the seconds that are known, the EHR's or ours, else after one."""
    if error.status not in {429, 503}:
        return {}
    asked = error.retry_after if isinstance(error, EhrUnreachable | TooManyExports | TooManyRequests) else None
    return {"Retry-After": str(max(1, math.ceil(asked or 0)))}


def operation_outcome(error: BrokerError) -> bytes:
    """Return the OperationOutcome of an error."""
    issue = {
        "severity": "error",
        "code": error.issue,
        "details": {"coding": [{"system": "urn:smart-token-broker:error", "code": error.code}], "text": error.public},
        "diagnostics": error.public,
    }
    return json.dumps({"resourceType": "OperationOutcome", "issue": [issue]}).encode()


def problem(error: BrokerError, *, request_id: str) -> Response:
    """Translate for operators: RFC 9457."""
    log_error(error, request_id)
    body = {
        "type": f"urn:smart-token-broker:error:{error.code}",
        "title": error.public,
        "status": error.status,
        "code": error.code,
        "request_id": request_id,
    }
    headers = {**NO_STORE, "X-Request-Id": request_id}
    return Response(json.dumps(body), error.status, headers, "application/problem+json")


def page(error: BrokerError, *, request_id: str, frame_ancestors: Collection[str] = ()) -> Response:
    """Translate for a person in a browser: nothing of the request is repeated (CB-05).

    `frame_ancestors` are the origins whose pages may show it in a frame; nobody's unless said (CB-11).
    """
    log_error(error, request_id)
    title = "This launch did not work" if error.status < 500 else "The launch cannot be completed now"
    text = _PAGE.format(
        title=html.escape(title),
        text=html.escape(error.public),
        code=html.escape(error.code),
        request_id=html.escape(request_id),
    )
    headers = {
        **NO_STORE,
        "X-Request-Id": request_id,
        "Content-Security-Policy": f"default-src 'none'; style-src 'unsafe-inline'; {frame_policy(frame_ancestors)}",
    }
    return Response(text, error.status, headers, "text/html")


def frame_policy(frame_ancestors: Collection[str]) -> str:
    """Return the CSP directive that lets these origins hold an answer in a frame, or nobody (CB-11)."""
    return "frame-ancestors " + (" ".join(frame_ancestors) or "'none'")


def unexpected(error: Exception) -> BrokerError:
    """Turn what nobody foresaw into an answer. Its message may hold anything, so only type and place are logged."""
    trace, place = error.__traceback__, "?"
    while trace is not None:
        place = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return UnexpectedError(f"unexpected {type(error).__name__} at {place}")


def log_error(error: BrokerError, request_id: str) -> None:
    """Log a refusal at info, trouble at warning, the unforeseen at error; the text is the private detail."""
    level = "error" if error.code == "server_error" else "warning" if error.status >= 500 else "info"
    kind = "refused" if not isinstance(error, InvalidHandle) else "handle_refused"
    getattr(log, level)(kind, code=error.code, detail=error.detail, request_id=request_id)
