"""A token bucket, as one would explain it."""

from dataclasses import dataclass
from math import floor

from broker.fair_use.rate import Rate


@dataclass
class ModelBucket:
    """For one limit; times in seconds."""

    rate: Rate
    longest_pause: float = 0.0
    spent: float = 0.0
    """Up to when what was taken is paid for, at one token a gap."""
    held: float = 0.0

    def take(self, now: float, wanted: int) -> tuple[int, float, float]:
        """Return tokens, seconds until there is one, seconds until nobody is held back any more."""
        if self.held > now + self.longest_pause + 60:
            self.held = now
        given, wait = 0, 0.0
        if self.rate.gap and wanted:
            full = self.rate.gap * self.rate.burst
            self.spent = max(now, min(self.spent, now + full))
            given = min(wanted, floor((now + full - self.spent) / self.rate.gap + 0.001))
            wait = 0.0 if given else self.spent + self.rate.gap - now - full
            self.spent += given * self.rate.gap
        return given, wait, max(self.held - now, 0.0)

    def hold(self, now: float, seconds: float) -> None:
        """Let nobody take for so long."""
        self.held = max(0.0 if self.held > now + self.longest_pause + 60 else self.held, now + seconds)
