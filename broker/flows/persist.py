"""Work over the whole store that one short outage need not end. For what may be done again from its beginning."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from broker.errors import StoreUnavailable

TRIES: Final = 10
AGAIN_SECONDS: Final = 5.0

Result = TypeVar("Result")


async def persist(
    work: Callable[[], Awaitable[Result]],
    *,
    tell: Callable[[str], None],
    sleep: Callable[[float], Awaitable[None]],
) -> Result:
    """Begin again while the store is away, for most of a minute. Raises `StoreUnavailable` when it stays away."""
    for _ in range(TRIES - 1):
        try:
            return await work()
        except StoreUnavailable as error:
            tell(f"the store is away ({error.detail}); going on in {AGAIN_SECONDS:.0f} s")
            await sleep(AGAIN_SECONDS)
    return await work()
