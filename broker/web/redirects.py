"""Send a browser on, with the cookie that ties a launch to it (CB-02, CB-09, CB-10, AL-22)."""

from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from broker.flows.ask_ehr import Redirect
from broker.launches import LAUNCH_SECONDS
from broker.web.errors import NO_STORE

_HOST_PREFIX: Final = "__Host-"
"""Browsers accept such a cookie only over https, from this very host: a neighbour cannot plant one."""


def redirect_response(redirect: Redirect, *, secure: bool) -> Response:
    """Answer 303 to the next place. On https the cookie also survives being embedded in the EHR's frame (AL-22)."""
    response = Response(status_code=303, headers={**NO_STORE, "Location": redirect.url})
    prefix, attributes = ("", "SameSite=Lax") if not secure else (_HOST_PREFIX, "Secure; SameSite=None; Partitioned")
    common = f"Path=/; HttpOnly; {attributes}"
    if redirect.browser is not None:
        value = redirect.browser.value.reveal()
        response.headers.append(
            "Set-Cookie", f"{prefix}{redirect.browser.cookie}={value}; Max-Age={LAUNCH_SECONDS}; {common}"
        )
    if redirect.forget_cookie is not None:
        response.headers.append("Set-Cookie", f"{prefix}{redirect.forget_cookie}=; Max-Age=0; {common}")
    return response


def launch_cookies(request: Request, *, secure: bool) -> Mapping[str, str]:
    """Return the launch cookies under their plain names; on https only those that carry the `__Host-` prefix count."""
    prefix = _HOST_PREFIX if secure else ""
    return {name.removeprefix(prefix): value for name, value in request.cookies.items() if name.startswith(prefix)}
