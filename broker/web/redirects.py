"""Send a browser on, with the proof that ties a launch to it (CB-02, CB-09, CB-10, AL-22)."""

from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from broker.errors import InvalidRequest
from broker.flows.ask_ehr import Redirect
from broker.flows.finish_launch import Reauthorized
from broker.flows.presented import TAB_KEY, AskTab, Presented
from broker.launches import LAUNCH_SECONDS
from broker.origins import origin
from broker.web.errors import NO_STORE, frame_policy
from broker.web.pages import authorized_page, go_on_page, look_in_tab_page

_HOST_PREFIX: Final = "__Host-"
"""Browsers accept such a cookie only over https, from this very host: a neighbour cannot plant one."""


def redirect_response(redirect: Redirect | Reauthorized | AskTab, *, public_url: str) -> Response:
    """Answer 303 to the next place, or a page that goes there where a form has to be posted or a tab has to be used.

    Where there is no next place, the page says that it is done.

    On https the cookie also survives being embedded in the EHR's frame (AL-22).
    """
    if isinstance(redirect, AskTab):
        framed_by = redirect.frame_ancestors
        return look_in_tab_page(redirect.name, redirect.parameters, url=public_url, frame_ancestors=framed_by)
    response = _way(redirect) if isinstance(redirect, Redirect) else authorized_page(public_url)
    secure = public_url.startswith("https://")
    prefix, attributes = ("", "SameSite=Lax") if not secure else (_HOST_PREFIX, "Secure; SameSite=None; Partitioned")
    common = f"Path=/; HttpOnly; {attributes}"
    if isinstance(redirect, Redirect) and redirect.browser is not None:
        value = redirect.browser.value.reveal()
        response.headers.append(
            "Set-Cookie", f"{prefix}{redirect.browser.cookie}={value}; Max-Age={LAUNCH_SECONDS}; {common}"
        )
    if redirect.forget_cookie is not None:
        response.headers.append("Set-Cookie", f"{prefix}{redirect.forget_cookie}=; Max-Age=0; {common}")
    return response


def _way(redirect: Redirect) -> Response:
    keep = None
    if redirect.browser is not None and redirect.frame_ancestors:
        keep = (redirect.browser.cookie, redirect.browser.value.reveal())
    if keep is not None or redirect.form is not None:
        return go_on_page(redirect.url, redirect.form, keep=keep, frame_ancestors=redirect.frame_ancestors)
    policy = f"default-src 'none'; {frame_policy(redirect.frame_ancestors)}"
    headers = {**NO_STORE, "Location": redirect.url, "Content-Security-Policy": policy}
    return Response(status_code=303, headers=headers)


def presented_by(request: Request, form: Mapping[str, str] | None, *, public_url: str) -> Presented:
    """Return what the browser shows for itself. `form` is what was posted; a query shows nothing of a tab.

    Raises `InvalidRequest` when another site's page posts a proof: it would be that site's own launch (CB-02).
    """
    tab_key = form.get(TAB_KEY) if form is not None else None
    if tab_key is not None and request.headers.get("origin") != origin(public_url):
        raise InvalidRequest("a proof was posted from a page that is not the broker's (CB-02)")
    return Presented(launch_cookies(request, secure=public_url.startswith("https://")), tab_key)


def launch_cookies(request: Request, *, secure: bool) -> Mapping[str, str]:
    """Return the launch cookies under their plain names; on https only those that carry the `__Host-` prefix count."""
    prefix = _HOST_PREFIX if secure else ""
    return {name.removeprefix(prefix): value for name, value in request.cookies.items() if name.startswith(prefix)}
