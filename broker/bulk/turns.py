"""Whose export comes next, where an EHR takes only so many at a time (OR-08). Pure.

Among apps it goes round: the one whose last turn is longest ago comes first. Within an app, first come, first served.
Who waits without asking does not hold the others up: an export begins when its app asks for its status, because only
then there is a live handle to begin it with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

UNSEEN_SECONDS: Final = 60.0
"""How long after the time that an app was told it may be late, before others go ahead."""


@dataclass(frozen=True, slots=True)
class Line:
    """The exports of one registration at an EHR, as the store has them."""

    running: int
    waiting: Sequence[tuple[str, float]]
    """Their names (`app:id`), by when they came."""
    present_until: Mapping[str, float] = field(default_factory=dict)
    """Until when each is taken to be waited for, in seconds."""
    turns: Mapping[str, float] = field(default_factory=dict)
    """When each app's last export began, in seconds."""
    held_until: float = 0.0
    """The EHR refused one more, and is not asked before; 0 where it did not of late."""

    def is_next(self, member: str, limit: int, now: float) -> bool:
        """Whether this one may begin now.

        `limit` is how many may run at a time; 0 where nobody said so: then all, or one after the other where the EHR
        has refused one of late.
        """
        if now < self.held_until:
            return False
        free = limit - self.running if limit else 1 if self.held_until else len(self.waiting)
        return member in self.order(member, now)[: max(0, free)]

    def order(self, asking: str, now: float) -> list[str]:
        """Return who is in line, the next one first; whoever asks is there."""
        here = [(name, at) for name, at in self.waiting if name == asking or self.present_until.get(name, 0.0) > now]
        rounds: dict[str, int] = {}
        keyed = []
        for name, at in sorted(here, key=lambda waiting: waiting[1]):
            app = name.partition(":")[0]
            rounds[app] = rounds.get(app, -1) + 1
            keyed.append((rounds[app], self.turns.get(app, 0.0), at, name))
        return [name for *_, name in sorted(keyed)]
