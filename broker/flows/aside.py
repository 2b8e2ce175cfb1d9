"""Work that goes with the length of a body, done beside what the event loop does: others get a turn meanwhile."""

import asyncio
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

ASIDE_BYTES: Final = 64 << 10
"""From here on the work takes longer than to hand it to a thread."""
Given = ParamSpec("Given")
Result = TypeVar("Result")


async def aside(length: int, work: Callable[Given, Result], *given: Given.args, **named: Given.kwargs) -> Result:
    """Return what some work on a body of so many bytes returns. Raises what that raises."""
    if length < ASIDE_BYTES:
        return work(*given, **named)
    return await asyncio.to_thread(work, *given, **named)
