"""What `broker check` says about the store: each primary, and whether the policy can be met."""

from collections.abc import AsyncIterator, Iterator
from typing import Final

from broker.cli.finding import Finding, Level
from broker.clock import system_clock
from broker.errors import BrokerError
from broker.secret import Secret
from broker.store.address import StoreAddress
from broker.store.client import Durability
from broker.store.cluster import ClusterClient
from broker.store.connection import NO_STORE, connect, store_errors
from broker.store.facts import STRANGER, ServerFacts, server_facts

MOST_CLOCK_OFFSET_SECONDS: Final = 2.0
MOST_LAG_SECONDS: Final = 10
OLDEST_REDIS: Final = 7
WITH_A_CHOICE: Final = 2
"""Replicas from which a failover can choose one that is behind."""


async def check_store(url: Secret | None, durability: Durability) -> AsyncIterator[Finding]:
    """Connect, and look at every primary."""
    if url is None:
        yield Finding("store", "fault", NO_STORE)
        return
    try:
        address = StoreAddress.parse(url)
        async with connect(url, client_name="broker-check") as redis:
            primaries, missing = [redis], 0
            if isinstance(redis, ClusterClient):
                with store_errors():
                    primaries, missing = list(await redis.primaries()), redis.slots_without_owner()
            facts = [await server_facts(primary, system_clock, durability) for primary in primaries]
    except BrokerError as error:
        yield Finding("store", "fault", f"{error.code}: {error.detail}")
        return
    if not address.is_private():
        text = "its connections are not encrypted: fine on a network of their own. Fix: rediss instead of redis"
        yield Finding("store", "warning", text)
    if missing:
        yield Finding("store", "fault", f"{missing} of the cluster's slots have no primary: what is there is refused")
    for of_one in facts:
        for finding in store_findings(of_one, durability):
            yield finding


def store_findings(facts: ServerFacts, durability: Durability) -> Iterator[Finding]:
    """Say what a primary is, and what about it would lose grants."""
    yield _version(facts.version)
    for level, text in (*_keeping(facts), *_replicas(facts), *_policy(facts, durability), *_rest(facts)):
        yield Finding("store", level, text)


def _version(version: str | None) -> Finding:
    if version is None:
        return Finding("store", "warning", "it answers, but its ACL does not let us ask for its version (INFO)")
    product, _, number = version.partition(" ")
    if product == "Redis" and int(number.partition(".")[0]) < OLDEST_REDIS:
        return Finding("store", "fault", f"{version} is too old. Fix: Redis 7.0 or Valkey 8 or newer")
    return Finding("store", "ok", version)


def _keeping(facts: ServerFacts) -> Iterator[tuple[Level, str]]:
    if facts.maxmemory_policy not in {None, "noeviction"}:
        yield "fault", f"maxmemory-policy is {facts.maxmemory_policy}: Redis would forget grants. Fix: noeviction"
    if facts.aof_enabled is False:
        yield "warning", "appendonly is off: a restart of Redis loses grants. Fix: appendonly yes"


def _replicas(facts: ServerFacts) -> Iterator[tuple[Level, str]]:
    if facts.lag is not None and facts.lag > MOST_LAG_SECONDS:
        yield "warning", f"a replica is {facts.lag} s behind: a failover to it loses as much"
    if (facts.replicas or 0) >= WITH_A_CHOICE and facts.has_least_replicas is False:
        yield "warning", "a primary that is cut off goes on writing what is lost. Fix: min-replicas-to-write 1"


def _policy(facts: ServerFacts, durability: Durability) -> Iterator[tuple[Level, str]]:
    setting = f"BROKER_REDIS_DURABILITY={durability}"
    if durability == "replica":
        if not facts.can_wait:
            yield "fault", f"{setting}, and its user may not send WAIT: no refresh succeeds. Fix: +wait"
        if facts.replicas == 0:
            yield "fault", f"{setting}, and it has no replica: no refresh succeeds. Fix: add one, or primary"
    if durability == "disk":
        if not facts.can_wait:
            text = "it has no WAITAOF (Redis 7.2, Valkey 8), or its user may not send it: no refresh succeeds"
            yield "fault", f"{setting}, and {text}. Fix: +waitaof, or replica"
        if facts.aof_enabled is False:
            yield "fault", f"{setting}, and appendonly is off: no refresh succeeds. Fix: appendonly yes"


def _rest(facts: ServerFacts) -> Iterator[tuple[Level, str]]:
    if facts.clock_offset is not None and abs(facts.clock_offset) > MOST_CLOCK_OFFSET_SECONDS:
        yield "warning", f"its clock differs by {facts.clock_offset:+.1f} s. Fix: run NTP on both"
    if facts.may_too_much:
        yield "warning", f"its user may do more than the broker does ({STRANGER}). Fix: the rights in users.acl"
