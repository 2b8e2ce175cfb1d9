"""Time and randomness come in as arguments: no decision reads the wall clock, no test sleeps."""

import os
import time
from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], float]
"""Seconds since 1970-01-01T00:00:00Z, as a float."""

Entropy: TypeAlias = Callable[[int], bytes]
"""Given a count, that many bytes nobody can predict."""


def system_clock() -> float:
    """Return the machine's wall clock in seconds."""
    return time.time()


def system_entropy(count: int) -> bytes:
    """Return `count` bytes from the operating system's generator."""
    return os.urandom(count)
