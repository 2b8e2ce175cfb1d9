"""Write what exists nowhere else."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from broker.errors import Unavailable

log = structlog.get_logger()

INSIST_SECONDS: Final = 60.0
"""How long a write that must not be lost is tried again."""
_AGAIN_SECONDS: Final = 0.05

Result = TypeVar("Result")


async def insist(work: Callable[[], Awaitable[Result]]) -> Result:
    """Try again while the store is away; by the loop's clock, which no other clock's correction can move.

    A process that stood still has one more try of its own: that its last one took so long says nothing of the store.
    Raises `Unavailable` when it stays away.
    """
    clock = asyncio.get_running_loop().time
    give_up = clock() + INSIST_SECONDS
    while True:
        began = clock()
        try:
            return await work()
        except Unavailable as error:
            if began >= give_up:
                log.critical("refresh_result_unstored", cause=error.detail)
                raise
            await asyncio.sleep(_AGAIN_SECONDS)
