"""One task per key: whoever comes while it runs waits for the same one."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class SingleFlight(Generic[Result]):
    """The work runs in its own task, so a caller that leaves changes nothing for the others."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Future[Result]] = {}

    async def run(self, key: str, work: Callable[[], Awaitable[Result]]) -> Result:
        """Return the result of the running task for `key`, or start `work`. Errors reach every waiter."""
        return await asyncio.shield(self.start(key, work))

    def start(self, key: str, work: Callable[[], Awaitable[Result]]) -> asyncio.Future[Result]:
        """The same without waiting."""
        task = self._running.get(key)
        if task is None or task.done():  # who comes before it is forgotten would not wait, and ask again without end
            task = asyncio.ensure_future(work())
            self._running[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return task

    async def close(self) -> None:
        """Wait until everything that runs has ended: a refresh is never cut off half-way."""
        if self._running:  # not by `gather`, which hands its own cancellation on
            await asyncio.wait(list(self._running.values()))

    def _forget(self, key: str, task: asyncio.Future[Result]) -> None:
        if self._running.get(key) is task:
            del self._running[key]
        if not task.cancelled():
            task.exception()  # read, so that an error nobody waited for is not reported as forgotten
