"""One row of the table of faults."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FOREVER = -1
"""The number of times of a fault that stays armed until it is deleted or everything is reset."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that can go wrong: where it strikes, what it does, its parameters and their defaults."""

    name: str
    point: str
    effect: str
    says: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    times: int = 1
