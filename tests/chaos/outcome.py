"""What a proof has counted, and what of it must not have happened."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Outcome:
    """Numbers by name, and a sentence for each rule that did not hold."""

    results: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def count(self, name: str, by: float = 1) -> None:
        """Add to a number."""
        self.results[name] = self.results.get(name, 0) + by

    def must(self, holds: bool, otherwise: str | Callable[[], str]) -> None:  # noqa: FBT001  # as `assert` reads
        """Note a rule that does not hold."""
        if not holds:
            self.broken.append(otherwise if isinstance(otherwise, str) else otherwise())
