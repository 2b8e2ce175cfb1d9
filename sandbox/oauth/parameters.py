"""Reading OAuth parameters as RFC 6749 §3.1 and §3.2 demand (OA-01)."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeAlias
from urllib.parse import parse_qsl

from starlette.requests import Request

from sandbox.oauth.errors import invalid_request

Parameters: TypeAlias = Mapping[str, str]

FORM = "application/x-www-form-urlencoded"


def single_valued(pairs: Iterable[tuple[str, str]]) -> Parameters:
    """Return the parameters; an empty one counts as absent, a repeated one raises `OAuthError` (invalid_request)."""
    given = [(name, value) for name, value in pairs if value]
    repeated = [name for name, count in Counter(name for name, _ in given).items() if count > 1]
    if repeated:
        raise invalid_request(f"parameter given more than once: {', '.join(sorted(repeated))}")
    return dict(given)


def from_query(request: Request) -> Parameters:
    """Return the parameters of the query string."""
    return single_valued(request.query_params.multi_items())


async def from_form(request: Request) -> Parameters:
    """Return the parameters of a form body; anything but a form raises `OAuthError` (TK-01)."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != FORM:
        raise invalid_request(f"the body must be {FORM}")
    try:
        text = (await request.body()).decode()
        return single_valued(parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=100))
    except ValueError:
        raise invalid_request("the body is not a UTF-8 form of at most 100 fields") from None


def required(parameters: Parameters, name: str) -> str:
    """Return one parameter, or raise `OAuthError` (invalid_request) that names it."""
    try:
        return parameters[name]
    except KeyError:
        raise invalid_request(f"{name} is missing") from None
