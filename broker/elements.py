"""What stands at a path of a FHIR resource."""

from collections.abc import Iterator
from typing import Any


def elements(node: Any, path: str) -> Iterator[Any]:
    """Yield what stands at a dotted path such as `participant.actor`, lists unrolled."""
    return _at(node, path.split("."))


def _at(node: Any, names: list[str]) -> Iterator[Any]:
    if isinstance(node, list):
        for item in node:
            yield from _at(item, names)
    elif not names:
        yield node
    elif isinstance(node, dict) and names[0] in node:
        yield from _at(node[names[0]], names[1:])
