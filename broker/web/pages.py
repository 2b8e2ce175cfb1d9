"""Pages that ask, and pages that go on by themselves: to post a form, to keep or find a proof (AL-14, AL-22).

Each has one script at most, known by its hash, and loads nothing. What a request said stands in hidden fields only,
escaped.
`form-action` names schemes and no origin: Chromium holds every redirect that follows a form against it, and where an
EHR sends people to log in is not known here.
"""

import base64
import hashlib
import html
from collections.abc import Collection, Mapping
from functools import cache
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import Response

from broker.flows.presented import TAB_KEY
from broker.web.errors import NO_STORE, frame_policy

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;color:#1b2733;background:#f4f6f8;margin:0;"
    "display:grid;min-height:100vh;place-items:center}"
    "main{background:#fff;border:1px solid #d9e0e6;border-radius:10px;padding:1.5rem 2rem;margin:1rem}"
)
_GO_ON: Final = """
const { name, key } = document.querySelector("main").dataset, next = document.getElementById("next");
try { if (key) sessionStorage.setItem(name, key); } catch { /* then a cookie has to do */ }
if (next.tagName === "FORM") HTMLFormElement.prototype.submit.call(next); else location.replace(next.href);
"""
_LOOK_IN_TAB: Final = """
const { name } = document.querySelector("main").dataset, found = document.getElementById("found");
try { found.value = sessionStorage.getItem(name) || found.value; sessionStorage.removeItem(name); } catch { /* none */ }
const next = document.getElementById("next");
history.replaceState(null, "", location.pathname);
next.setAttribute("action", location.pathname);
HTMLFormElement.prototype.submit.call(next);
"""


def go_on_page(
    url: str,
    form: Mapping[str, str] | None,
    *,
    keep: tuple[str, str] | None,
    frame_ancestors: Collection[str],
) -> Response:
    """Answer a page that goes to `url`, posting `form` if there is one; a button does it where scripts are off.

    `keep` is a name and a proof that the tab keeps under it.
    """
    kept = f' data-name="{_text(keep[0])}" data-key="{_text(keep[1])}"' if keep else ""
    if form is None:
        way = f'<a id="next" href="{_text(url)}">Continue</a>'
    else:
        way = f'<form id="next" method="post" action="{_text(url)}">{_hidden(form)}<button>Continue</button></form>'
    return _page(f"<main{kept}><p>The launch goes on.</p>{way}</main>", url, frame_ancestors, script=_GO_ON)


def look_in_tab_page(
    name: str, parameters: Mapping[str, str], *, url: str, frame_ancestors: Collection[str]
) -> Response:
    """Answer a page that posts the parameters again, to where it is, with what the tab keeps under `name`.

    `url` is one of the broker's own.
    """
    given = {field: value for field, value in parameters.items() if field != TAB_KEY}
    found = f'<input type="hidden" id="found" name="{TAB_KEY}" value="none">'
    body = (
        f'<main data-name="{_text(name)}"><p>The launch goes on.</p>'
        f'<form id="next" method="post">{_hidden(given)}{found}</form>'
        "<noscript><p>In a frame, a launch needs cookies or scripts.</p></noscript></main>"
    )
    return _page(body, url, frame_ancestors, script=_LOOK_IN_TAB)


def ask_page(*, app: str, ehr: str, url: str) -> Response:
    """Answer a page that asks whether to authorize again, and posts to where it is.

    `url` is one of the broker's own.
    """
    body = (
        f"<main><h1>Authorize access again</h1><p><b>{_text(app)}</b> needs you to authorize its access at "
        f"<b>{_text(ehr)}</b> again. Log in there as before, for the same patient.</p>"
        '<form method="post"><button>Continue</button></form></main>'
    )
    return _page(body, url, (), title="Authorize access again")


def authorized_page(url: str) -> Response:
    """Answer a page that says that access was authorized again. `url` is one of the broker's own."""
    body = "<main><h1>Done</h1><p>Access is authorized again. You can close this page.</p></main>"
    return _page(body, url, (), title="Done")


def _page(
    body: str, url: str, frame_ancestors: Collection[str], *, title: str = "One moment", script: str | None = None
) -> Response:
    scripted = f"<script>{script}</script>" if script else ""
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body>{body}{scripted}</body></html>\n"
    )
    schemes = "https:" if urlsplit(url).scheme == "https" else "http: https:"
    policy = (
        f"default-src 'none'; {f'script-src {_hash(script)}; ' if script else ''}style-src {_hash(_STYLE)}; "
        f"base-uri 'none'; form-action {schemes}; {frame_policy(frame_ancestors)}"
    )
    # A form posted under no-referrer has `Origin: null`, and could not be told from another site's (CB-02).
    headers = {**NO_STORE, "Content-Security-Policy": policy, "Referrer-Policy": "strict-origin"}
    return Response(text, 200, headers, "text/html")


@cache
def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _hidden(fields: Mapping[str, str]) -> str:
    return "".join(
        f'<input type="hidden" name="{_text(name)}" value="{_text(value)}">' for name, value in fields.items()
    )


def _text(value: str) -> str:
    return html.escape(value)
