"""Time that a test moves."""

import time


class MovableClock:
    """The machine's clock plus as many seconds as the test has added."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self._ahead

    @property
    def ahead(self) -> float:
        """How many seconds that is."""
        return self._ahead

    def advance(self, seconds: float) -> None:
        """Move ahead."""
        self._ahead += seconds
