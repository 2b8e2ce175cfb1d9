"""How fast requests may come, and what a replica takes ahead of use so that none has to wait for the store. Pure.

A token bucket lies in the store, one for all replicas. Each takes tokens from it in lots, a small part of what the
bucket holds, and uses them up by itself. A token is taken before it is used and never given back, so all replicas
together use no more than the bucket gave: `burst`, and one each `gap` seconds.
"""

from dataclasses import dataclass, field
from math import inf
from typing import Final, Literal, Self

LOT_PART: Final = 16
"""A lot is no more than this part of the bucket: so much at most does a replica hold that others could use."""
FRESH_SECONDS: Final = 1.0
"""A lot that is older is filled up at its next use, which also brings news of a pause."""
_MINUTE: Final = 60.0
_BURST_PART: Final = 4


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit; without one, `gap` is 0."""

    gap: float = 0.0
    """Seconds from one request to the next, in the long run."""
    burst: int = 0
    """Requests that may come at once after a pause."""
    lot: float = inf
    """Requests that a replica takes ahead of use; 0 of a bucket so small that others would lack them."""

    @classmethod
    def of(cls, per_minute: int | None, burst: int | None) -> Self:
        """Return the limit of so many requests a minute; `burst` is a quarter of them where it is not said."""
        if per_minute is None:
            return cls()
        burst = burst or max(1, per_minute // _BURST_PART)
        return cls(_MINUTE / per_minute, burst, min(burst // LOT_PART, max(1, per_minute // int(_MINUTE))))


@dataclass(slots=True)
class Lot:
    """What one replica may let through.

    Times are in seconds, of one clock; what was said before that was set back counts no more.
    """

    rate: Rate
    left: float = field(init=False)
    filled_at: float = -inf
    empty_until: float = -inf
    """When it was filled the store had none: nobody need ask again before."""
    held_at: float = -inf
    held_until: float = -inf
    """Whoever is asked wanted at `held_at` to be left alone until then, however many are left."""

    def __post_init__(self) -> None:
        self.left = inf if self.rate.gap == 0 else 0.0

    def take(self, now: float) -> bool:
        """Take one; False where there is none, or nobody may."""
        if self.left < 1 or self.held_at <= now < self.held_until:
            return False
        self.left -= 1
        return True

    def is_low(self, now: float) -> bool:
        """Whether to fill it up, before somebody has to wait for that."""
        is_fresh = self.filled_at <= now < self.filled_at + FRESH_SECONDS
        return self.rate.lot > 0 and (not is_fresh or self.left * 2 < self.rate.lot)

    def wanted(self, waiting: int) -> int:
        """Return how many to ask the store for: what `waiting` requests take, and a full lot after them."""
        return 0 if self.rate.gap == 0 else max(0, int(waiting + self.rate.lot - self.left))

    def fill(self, now: float, *, given: int, empty_for: float, held_for: float) -> None:
        """Add what the store gave, and what it said: seconds until it has one again, and that nobody may ask."""
        self.left += given
        self.filled_at = now
        self.empty_until = now + empty_for
        if held_for > 0:
            self.hold(now, held_for)

    def hold(self, now: float, seconds: float) -> None:
        """Let nobody through for so long, or until a longer pause is over."""
        is_held = self.held_at <= now < self.held_until
        self.held_until = max(self.held_until, now + seconds) if is_held else now + seconds
        self.held_at = now

    def closed(self, now: float) -> tuple[Literal["held", "empty"], float] | None:
        """Say why nobody gets through, and for how many seconds; None where the store is to be asked."""
        if self.held_at <= now < self.held_until:
            return "held", self.held_until - now
        if self.left < 1 and self.filled_at <= now < self.empty_until:
            return "empty", self.empty_until - now
        return None
