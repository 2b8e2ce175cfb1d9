"""A client of a Redis Cluster that keeps what is promised of one server: in time, and sent at most once.

redis-py's own cluster client sends a command again when its answer was lost, and opens a connection outside of any
limit; so this one is made of clients of single nodes. It sends a command to the primary of its key's slot, and a second
time only after a redirection, since then nothing ran. Nothing is read from replicas.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as NotConnectedError
from redis.exceptions import TimeoutError as NoAnswerError

from broker.store.address import Node
from broker.store.client import Durability, StoreClient, StorePipeline
from broker.store.slots import CommandLine, SlotMap, slot_of

LEARN_SECONDS: Final = 0.9
MOST_REDIRECTIONS: Final = 5

Answer = TypeVar("Answer")


class ClusterClient(StoreClient):
    """Looks to the rooms like a client of one server."""

    @classmethod
    def to(
        cls, seeds: Sequence[Node], open_node: Callable[[Node], StoreClient], durability: Durability
    ) -> "ClusterClient":
        """Return a client that finds the cluster through any of the `seeds`."""
        client = cls(connection_pool=open_node(seeds[0]).connection_pool)
        client.durability = durability
        client._open_node, client._seeds = open_node, tuple(seeds)
        client._nodes, client._slots, client._learning = {}, SlotMap(), None
        return client

    _open_node: Callable[[Node], StoreClient]
    _seeds: tuple[Node, ...]
    _nodes: dict[Node, StoreClient]
    _slots: SlotMap
    _learning: asyncio.Task[None] | None

    def node(self, node: Node) -> StoreClient:
        """Return the client of one node."""
        if node not in self._nodes:
            self._nodes[node] = self._open_node(node)
        return self._nodes[node]

    async def primaries(self) -> list[StoreClient]:
        """Return a client for each primary."""
        if not self._slots.primaries():
            await self._learn()
        return [self.node(node) for node in self._slots.primaries()]

    def slots_without_owner(self) -> int:
        """Count the slots of no primary, once `primaries` was asked for."""
        return self._slots.without_owner()

    async def owner(self, slot: int | None) -> Node:
        """Return the primary of a slot. Raises ClusterDownError if there is none."""
        node = self._slots.owner(slot)
        if node is None:
            await self._learn()
            node = self._slots.owner(slot)
            if node is None:
                raise ClusterDownError("no node has this slot", status_code="CLUSTERDOWN")
        return node

    @contextmanager
    def noticing(self) -> Iterator[None]:
        """After an error that a failover can be behind, ask anew which node has what."""
        try:
            yield
        except (NotConnectedError, NoAnswerError, ClusterDownError, ReadOnlyError, OSError):
            self._learn_soon()
            raise

    async def at_owner(self, slot: int | None, send: Callable[[StoreClient, bool], Awaitable[Answer]]) -> Answer:
        """Let `send` talk to the primary of a slot, and to the next one after a redirection.

        `send` is told whether ASKING has to come before each command, and raises MovedError or AskError only if
        nothing ran.
        """
        node = await self.owner(slot)
        asking = False
        for _ in range(MOST_REDIRECTIONS):
            try:
                with self.noticing():
                    return await send(self.node(node), asking)
            except AskError as error:  # MovedError is one
                node, asking = Node(error.host or node.host, error.port), not isinstance(error, MovedError)
                if not asking:
                    self._slots.move(error.slot_id, node)
                    self._learn_soon()
        raise ClusterDownError("redirected too often", status_code="MOVED")

    async def execute_command(self, *command: Any, **options: Any) -> Any:
        """Send a command to the node that has its key; one without key to some primary."""

        async def send(client: StoreClient, asking: bool) -> Any:  # noqa: FBT001 - as `at_owner` says it
            if not asking:
                return await client.execute_command(*command, **options)  # type: ignore[no-untyped-call]
            async with client.pipeline() as pipe:
                pipe.execute_command("ASKING")
                pipe.execute_command(*command, **options)
                return (await pipe.execute())[1]

        return await self.at_owner(slot_of(command), send)

    def pipeline(self, transaction: bool = False, shard_hint: str | None = None) -> "ClusterPipeline":  # noqa: ARG002, FBT001, FBT002 - redis-py's signature
        """Return several commands that are sent together, to each node in one round trip."""
        return ClusterPipeline.of(self, transaction=transaction)

    async def ping(self, **_: Any) -> bool:
        """Tell that some primary answers: that a failover goes on at another one does not make us unready."""
        answers = await asyncio.gather(*(client.ping() for client in await self.primaries()), return_exceptions=True)
        if True in answers:
            return True
        self._learn_soon()
        raise next(answer for answer in answers if isinstance(answer, BaseException))

    async def scan_iter(self, *args: Any, **options: Any) -> AsyncIterator[Any]:  # type: ignore[override] # redis-py says Iterator
        """Go through the keys of all primaries."""
        for client in await self.primaries():
            async for key in client.scan_iter(*args, **options):
                yield key

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: ARG002, FBT001 - redis-py's signature
        """Close the clients of all nodes."""
        if self._learning is not None:
            self._learning.cancel()
            with suppress(asyncio.CancelledError, RedisError, OSError):
                await self._learning
        for client in self._nodes.values():
            await client.aclose()

    def _learn_soon(self) -> None:
        if self._learning is None or self._learning.done():
            self._learning = asyncio.ensure_future(self._ask_all())
            self._learning.add_done_callback(_read)

    async def _learn(self) -> None:
        """Wait until it is known which node has what. Raises a ConnectionError of redis-py."""
        self._learn_soon()
        assert self._learning is not None  # noqa: S101 - as just made
        await asyncio.shield(self._learning)

    async def _ask_all(self) -> None:
        """Ask all nodes at once, and believe the first that answers: what is outdated in it, redirections mend."""
        asking = [asyncio.ensure_future(self._ask(node)) for node in dict.fromkeys((*self._seeds, *self._nodes))]
        error: Exception = NotConnectedError("no node of the cluster answers")
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(LEARN_SECONDS):
                    for answered in asyncio.as_completed(asking):
                        try:
                            node, answer = await answered
                        except (RedisError, OSError) as failed:
                            error = failed if isinstance(failed, ResponseError) else error
                        else:
                            self._slots.learn(answer, node)
                            return
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        raise error

    async def _ask(self, node: Node) -> tuple[Node, Any]:
        answer = await self.node(node).execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
        if not answer:
            raise ClusterDownError("it knows of no slots", status_code="CLUSTERDOWN")
        return node, answer


def _read(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # whoever waits has it; if nobody does, the next command tells


@dataclass(slots=True)
class _Unit:
    """Commands that have to go over one connection: one with a key, and those without that follow it."""

    slot: int | None
    commands: list[tuple[CommandLine, Mapping[str, Any]]]
    answers: list[Any] = field(default_factory=list)

    def is_redirected(self) -> bool:
        """Tell that nothing ran but what has no key."""
        return isinstance(self.answers[0], AskError)


class ClusterPipeline(StorePipeline):
    """Commands that go to the nodes of their keys: in one round trip, where these are on one node."""

    _cluster: ClusterClient

    @classmethod
    def of(cls, cluster: ClusterClient, *, transaction: bool) -> "ClusterPipeline":
        """Return an empty one. Raises ValueError for a transaction, since nothing here needs one."""
        if transaction:
            raise ValueError("what has to be atomic is a script")
        pipeline = cls(cluster.connection_pool, cluster.response_callbacks, transaction, None)
        pipeline._cluster = cluster
        return pipeline

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - redis-py's signature
        """Send everything and return the answers, in the order of the commands."""
        stack = list(self.command_stack)
        await self.reset()  # type: ignore[no-untyped-call]
        units = _units(stack)
        homes: dict[Node, list[_Unit]] = {}
        for unit in units:
            homes.setdefault(await self._cluster.owner(unit.slot), []).append(unit)
        sent = await asyncio.gather(*(self._send(node, there) for node, there in homes.items()), return_exceptions=True)
        for failure in sent:
            if failure is not None:
                raise failure
        for unit in units:
            if unit.is_redirected():
                await self._cluster.at_owner(unit.slot, partial(_send, [unit]))
        answers = [answer for unit in units for answer in unit.answers]
        if raise_on_error:
            self.raise_first_error(stack, answers)
        return answers

    async def _send(self, node: Node, units: list[_Unit]) -> None:
        with self._cluster.noticing():
            await _send(units, self._cluster.node(node), asking=False, follow=False)


def _units(stack: Sequence[tuple[CommandLine, Mapping[str, Any]]]) -> list[_Unit]:
    units: list[_Unit] = []
    for command, options in stack:
        slot = slot_of(command)
        if slot is None and units:
            units[-1].commands.append((command, options))
        else:
            units.append(_Unit(slot, [(command, options)]))
    return units


async def _send(units: list[_Unit], client: StoreClient, asking: bool, *, follow: bool = True) -> None:  # noqa: FBT001 - as `at_owner` says it
    """Send units in one round trip, and keep their answers. With `follow` a redirection is raised."""
    async with client.pipeline() as pipe:
        for unit in units:
            if asking:
                pipe.execute_command("ASKING")
            for command, options in unit.commands:
                pipe.execute_command(*command, **options)
        answers = iter(await pipe.execute(raise_on_error=False))
    for unit in units:
        if asking:
            next(answers)
        unit.answers = [next(answers) for _ in unit.commands]
        if follow and unit.is_redirected():
            raise unit.answers[0]
