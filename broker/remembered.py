"""What was worked out a moment ago, by what it was worked out from."""

from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Remembered(Generic[Key, Value]):
    """Keeps a bounded number of results; the one that was kept first goes first.

    Its keys are all that a result depends on, so none is ever out of date. Nothing secret is kept here.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[Key, Value] = {}

    def get(self, key: Key) -> Value | None:
        """Return the result, if it is still there."""
        return self._kept.get(key)

    def keep(self, key: Key, value: Value) -> Value:
        """Keep a result, and return it."""
        if len(self._kept) >= self._most:
            self._kept.pop(next(iter(self._kept)))
        self._kept[key] = value
        return value
