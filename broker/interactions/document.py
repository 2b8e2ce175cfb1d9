"""JSON that is forwarded as it was received, so it must have one reading only.

UTF-8, one object, no member twice (not even in another case), no NaN.
"""

import json
from collections.abc import Iterable
from typing import Any, Final, NoReturn

from broker.interactions.syntax import refuse

JSON: Final = ("application/fhir+json", "application/json")


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object, numbers as they are written. Raises `UninterpretableInteraction`."""
    try:
        found = json.loads(
            body.decode(),
            object_pairs_hook=_unambiguous,
            parse_int=str,
            parse_float=str,
            parse_constant=_no_constant,
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
            yield from (text for name, text in node.items() if name.lower() == "reference" and isinstance(text, str))
            waiting.extend(node.values())


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name.casefold() for name, _ in pairs}) != len(pairs):
        raise ValueError("a member is there twice")
    return dict(pairs)


def _no_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")
