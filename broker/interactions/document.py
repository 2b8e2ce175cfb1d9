"""JSON that is forwarded as it was received, so it must have one reading only.

UTF-8, one object, no member twice (not even in another case), no NaN, and not too many values.
"""

import json
from collections.abc import Iterable
from typing import Any, Final, NoReturn

from broker.interactions.syntax import refuse
from broker.json_values import MOST_VALUES, has_too_many_values

JSON: Final = ("application/fhir+json", "application/json")


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object, numbers as they are written. Raises `UninterpretableInteraction`."""
    text = _decoded(body)
    if has_too_many_values(text):
        refuse(f"a body of more than {MOST_VALUES} values")
    try:
        found = json.loads(
            text, object_pairs_hook=_unambiguous, parse_int=str, parse_float=str, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):  # left behind here: its text or `doc` would hold the body
        found = None
    return found if isinstance(found, dict) else refuse("not one unambiguous JSON object in UTF-8")


def references(value: Any) -> Iterable[str]:
    """Yield every `Reference.reference`, however deep it lies."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, dict):
            for name, member in node.items():
                if not isinstance(member, str):
                    waiting.append(member)
                elif name.lower() == "reference":
                    yield member


def _decoded(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:  # left behind here: it would hold the body
        return ""


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name.casefold() for name, _ in pairs}) != len(pairs):
        raise ValueError("a member is there twice")
    return dict(pairs)


def _no_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")
