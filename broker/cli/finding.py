"""What `broker check` finds."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    part: Literal["environment", "broker.toml", "certificate", "key", "store", "ehr", "secret", "webhook"]
    level: Level
    text: str
