"""From a template to an answer."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse

TEMPLATES = Path(__file__).parent / "templates"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""No form-action: browsers apply it to redirects as well, and approval ends in a redirect to the app. A launch in a
frame of the chart shows these pages there (AL-22); nobody else may frame them."""


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return the page a template makes of these values; everything is escaped."""
    return HTMLResponse(_environment().get_template(template).render(values), status, HEADERS)


def see_other(url: str) -> RedirectResponse:
    """Return a 303, after which a browser repeats nothing that was posted (CB-10)."""
    return RedirectResponse(url, 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
