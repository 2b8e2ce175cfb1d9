"""What stands at a path of a FHIR resource."""

from collections.abc import Iterable
from typing import Any


def elements(node: Any, path: str) -> list[Any]:
    """Return what stands at a dotted path such as `participant.actor`, lists unrolled."""
    found = _unrolled([node])
    for name in path.split("."):
        found = _unrolled(item[name] for item in found if isinstance(item, dict) and name in item)
    return found


def _unrolled(nodes: Iterable[Any]) -> list[Any]:
    found = []
    for node in nodes:
        if isinstance(node, list):
            found += _unrolled(node)
        else:
            found.append(node)
    return found
