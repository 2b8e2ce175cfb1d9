"""Events that webhooks are to be told of: kept until they were heard, or until an operator drops them."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal, cast

from redis.asyncio import Redis

from broker.errors import NotFound
from broker.store import keys
from broker.store.connection import Script, store_errors
from broker.store.scripts import script

KEPT_SECONDS: Final = 30 * 86_400
"""How long an event is kept, told or not; a dead letter nobody cared for in so long is gone."""
HEARD_SECONDS: Final = 86_400
"""How long it is known that an event was heard: while another webhook has no room, the same one is made each minute."""
MOST_WAITING: Final = 100_000
"""Events that wait for one webhook; with more, grants keep their marks until there is room."""
_PAGE: Final = 500

Outcome = Literal["heard", "again", "dead"]


@dataclass(frozen=True, slots=True)
class Event:
    """One event for one webhook."""

    id: str
    body: str = field(repr=False)
    """What is sent, byte for byte, at each try."""
    made_at: float
    tries: int = 0
    said: str | None = None
    """What came of the last try, in one word."""

    @property
    def data(self) -> Mapping[str, Any]:
        """What it says of a grant."""
        return dict(json.loads(self.body)["data"])

    def dump(self) -> str:
        """Return it as it is kept."""
        return json.dumps(asdict(self), separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Outbox:
    """The events of each webhook, in the store. All replicas share it."""

    redis: Redis
    queueing: Script = field(default_factory=partial(script, "queue_event"))
    taking: Script = field(default_factory=partial(script, "take_due"))
    settling: Script = field(default_factory=partial(script, "settle_event"))

    async def queue(self, webhook: str, event: Event) -> bool:
        """Keep an event, due at once, if it is not there yet; False where too many wait. Raises `StoreUnavailable`."""
        on = [keys.webhook_event(webhook, event.id), keys.webhook_due(webhook)]
        args: list[str | int] = [event.dump(), KEPT_SECONDS * 1000, event.id, repr(event.made_at), MOST_WAITING]
        return bool(await self.queueing(self.redis, on, args))

    async def take(self, webhook: str, now: float, *, again: float, most: int) -> list[Event]:
        """Return events that are due, each to one replica; they are due `again` then, should that one die."""
        due = keys.webhook_due(webhook)
        (found,) = await self.taking(self.redis, [due], [repr(now), repr(again), most, most])
        names = [name.decode() for name in found]
        events = await self._read(webhook, names)
        lost = [name for name, event in zip(names, events, strict=True) if event is None]
        if lost:  # kept for as long as anything is
            with store_errors():
                await self.redis.zrem(due, *lost)
        return [event for event in events if event is not None]

    async def settle(self, webhook: str, event: Event, outcome: Outcome, at: float) -> None:
        """Write down what became of a try: `heard`, tried `again` at a time, or `dead` since then (seconds)."""
        args: list[str | int] = [event.id, outcome, event.dump(), repr(at), HEARD_SECONDS * 1000]
        await self.settling(self.redis, self._keys(webhook, event.id), args)

    async def listed(self, webhook: str, state: Literal["due", "dead"]) -> AsyncIterator[tuple[Event, float]]:
        """Go through a webhook's events by time, with that time in seconds, a page at a time."""
        key = keys.webhook_due(webhook) if state == "due" else keys.webhook_dead(webhook)
        start = 0
        while True:
            with store_errors():
                found = await self.redis.zrange(key, start, start + _PAGE - 1, withscores=True)
            page = [(name.decode(), float(at)) for name, at in cast("list[tuple[bytes, float]]", found)]
            for event, (_, at) in zip(await self._read(webhook, [name for name, _ in page]), page, strict=True):
                if event is not None:
                    yield event, at
            if len(page) < _PAGE:
                return
            start += _PAGE

    async def retry(self, webhook: str, event: Event, *, now: float) -> None:
        """Try an event anew from now on, as if it were new."""
        await self.settle(webhook, replace(event, tries=0, made_at=now), "again", now)

    async def drop(self, webhook: str, event: Event, *, now: float) -> None:
        """Delete an event."""
        await self.settle(webhook, event, "heard", now)

    async def read(self, webhook: str, name: str) -> Event:
        """Return an event. Raises `NotFound`."""
        (known,) = await self._read(webhook, [name])
        if known is None:
            raise NotFound(f"no event {name} of webhook {webhook}")
        return known

    async def _read(self, webhook: str, names: Sequence[str]) -> list[Event | None]:
        if not names:
            return []
        with store_errors():
            async with self.redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.get(keys.webhook_event(webhook, name))
                found: list[bytes | None] = await pipe.execute()
        return [Event(**json.loads(text)) if text else None for text in found]

    def _keys(self, webhook: str, event: str) -> list[str]:
        return [keys.webhook_event(webhook, event), keys.webhook_due(webhook), keys.webhook_dead(webhook)]
