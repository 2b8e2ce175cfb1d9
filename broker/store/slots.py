"""Which node of a Redis Cluster holds what, as far as the nodes have told."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from broker.store.address import Node

CommandLine: TypeAlias = Sequence[Any]
WITHOUT_KEY: Final = frozenset({"PING", "INFO", "TIME", "ROLE", "WAIT", "WAITAOF", "CLUSTER", "ACL", "CONFIG"})
"""Of the commands that are sent to some node; what is not named here has its key first, or leads to a redirection."""


def slot_of(command: CommandLine) -> int | None:
    """Return the hash slot of the command's first key, or None for a command of no key."""
    name = str(command[0]).upper().partition(" ")[0]
    if name in WITHOUT_KEY:
        return None
    at = 3 if name in {"EVAL", "EVALSHA"} else 1
    if len(command) <= at or (at == 3 and int(command[2]) == 0):
        return None
    key = command[at]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


class SlotMap:
    """The primary of each slot."""

    def __init__(self) -> None:
        self._owners: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS

    def owner(self, slot: int | None) -> Node | None:
        """Return the primary of a slot; for a command of no key, that of any."""
        return self._owners[slot] if slot is not None else next(iter(self.primaries()), None)

    def primaries(self) -> list[Node]:
        """Return all primaries, each once."""
        return list(dict.fromkeys(node for node in self._owners if node is not None))

    def without_owner(self) -> int:
        """Count the slots that nobody has."""
        return self._owners.count(None)

    def move(self, slot: int, node: Node) -> None:
        """Note that a node said it was moved."""
        self._owners[slot] = node

    def learn(self, answer: Iterable[Any], asked: Node) -> None:
        """Take over an answer to CLUSTER SLOTS. An address without a host is that of the node that was asked."""
        owners: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, primary, *_ in answer:
            host = primary[0].decode() if primary[0] else asked.host
            owners[first : last + 1] = [Node(host, int(primary[1]))] * (last + 1 - first)
        self._owners = owners
