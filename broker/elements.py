"""What stands at a path of a FHIR resource."""

from collections.abc import Iterable, Iterator
from typing import Any


def elements(node: Any, path: str) -> list[Any]:
    """Return what stands at a dotted path such as `participant.actor`, lists unrolled.

    FHIR has no list directly in another one. It is given as it is, wherever on the path it stands: so whoever has to
    know all that stands there sees that it cannot be read.
    """
    found = [node]
    for name in path.split("."):
        found = list(_below(found, name))
    return found


def _below(nodes: Iterable[Any], name: str) -> Iterator[Any]:
    for node in nodes:
        if isinstance(node, list):
            yield node
        elif isinstance(node, dict) and name in node:
            value = node[name]
            yield from value if isinstance(value, list) else (value,)
