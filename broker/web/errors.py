"""The one translator per dialect. The public text leaves; the private detail goes to the log.

`/oauth`: RFC 6749 §5.2 JSON. `/fhir`: OperationOutcome with an RFC 6750 challenge. Pages for people: HTML without
anything from outside. Everything else: RFC 9457 problem JSON.
"""

import html
import json
from typing import Final

import structlog
from starlette.responses import Response

from broker.errors import BrokerError, InvalidClient, InvalidHandle, Unavailable

log = structlog.get_logger()

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
    if isinstance(error, Unavailable):
        headers["Retry-After"] = "1"
    body = json.dumps({"error": error.oauth, "error_description": error.public})
    # RFC 6749 §5.2 answers 400 to all that the client got wrong, except 401 to a client that did not prove itself.
    kept = isinstance(error, InvalidClient) or error.status in {404, 413} or error.status >= 500
    status = error.status if kept else 400
    return Response(body, status, headers, "application/json")


def fhir_error(error: BrokerError, *, request_id: str, presented: bool = True) -> Response:
    """Translate for `/fhir`: an OperationOutcome; `presented` is False when no credentials came (RFC 6750 §3.1)."""
    log_error(error, request_id)
    headers = {"Cache-Control": "no-store", "X-Request-Id": request_id}
    if error.status in {401, 403}:
        code = error.oauth if error.oauth in {"invalid_token", "insufficient_scope"} else "invalid_token"
        if error.status == 401 or error.code == "insufficient_scope":
            challenge = f', error="{code}"' if presented else ""
            headers["WWW-Authenticate"] = f'Bearer realm="token broker"{challenge}'
    if error.status == 503:
        headers["Retry-After"] = "1"
    return Response(operation_outcome(error), error.status, headers, "application/fhir+json")


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


def page(error: BrokerError, *, request_id: str) -> Response:
    """Translate for a person in a browser: nothing of the request is repeated (CB-05)."""
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
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    }
    return Response(text, error.status, headers, "text/html")


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
