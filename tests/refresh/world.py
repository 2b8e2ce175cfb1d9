"""One grant at one EHR, the replicas that keep it current, and what must hold of it at every moment."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from broker.audit import AuditTrail
from broker.egress import Answer
from broker.ehr.token_answer import parse_answer
from broker.grants import Grant, Grants, LaunchContext, Terms
from broker.refresh.outcome import token_set
from broker.refresh.schedule import Schedule
from broker.scopes import Scopes
from broker.settings import Settings, load
from broker.store.client import StoreClient
from broker.store.scripts import script
from tests.refresh.model_ehr import BASE, GRACE_SECONDS, Kind, ModelEhr
from tests.refresh.replicas import GRANT, LEASE, SCRIPTS, TAG, Replica, Step
from tests.stage.vault import a_vault

QUIET_TURNS: Final = 25
"""Of the event loop, without anything new, after which nothing more happens by itself."""
KNOWN: Final[Mapping[Kind, str]] = {
    "strict": "",
    "grace": f"refresh_grace = {GRACE_SECONDS}",
    "reusable": 'refresh_tokens = "reusable"',
    "telling": "introspect_lost = true",
}
"""What broker.toml says of each kind of EHR."""
_HEAD: Final = """
public_url = "https://broker.example"
[[app]]
id = "app"
authentication = "none"
redirect_uris = ["https://app.example/callback"]
launch_uri = "https://app.example/launch"
"""
_ACCESS: Final = """
[[app.access]]
registration = "at-{kind}"
scopes = "patient/*.rs offline_access"
"""
_EHR: Final = """
[[ehr]]
id = "{kind}"
fhir_base = "https://ehr.example/{kind}"
token_concurrency = 1000
token_requests_per_minute = 6000
token_failures = 100
{known}
[[registration]]
id = "at-{kind}"
ehr = "{kind}"
flow = "launch"
client_id = "broker"
authentication = "client_secret_basic"
client_secret = "env:SECRET"
scopes = "patient/*.rs offline_access"
app = "app"
"""


def settings_of(folder: Path) -> Settings:
    """Return settings with an EHR of each kind."""
    text = _HEAD + "".join(_ACCESS.format(kind=kind) for kind in KNOWN)
    text += "".join(_EHR.format(kind=kind, known=known) for kind, known in KNOWN.items())
    (folder / "broker.toml").write_text(text)
    return load(folder / "broker.toml", {"SECRET": "a secret of the broker's at the model EHR"})


@dataclass(eq=False, repr=False)
class World:
    """One grant at one EHR, and the replicas that keep it current."""

    settings: Settings
    redis: StoreClient
    audit: AuditTrail
    ehr: ModelEhr
    now: float = 1_000_000.0
    random: Random = field(default_factory=lambda: Random(0))  # noqa: S311  # the same each time
    replicas: list[Replica] = field(default_factory=list)
    waiting: list[Step] = field(default_factory=list)
    dead: list[Step | Replica] = field(default_factory=list)
    """Whoever died, and where: kept, as else it would be cleared away, and so go on."""
    lost: set[str] = field(default_factory=set)
    """Refresh tokens that nobody can have any more, by no fault of the engine's."""
    trouble: list[str] = field(default_factory=list)
    """What has happened that may make a grant uncertain."""
    served: list[int] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Rules that did not hold."""
    forgot_an_intent: bool = False
    grants: Grants = field(init=False)
    _before: "tuple[str, list[Any]] | None" = None

    async def open(self) -> None:
        """Make the grant, and start two replicas."""
        await self.redis.flushall()
        for name in SCRIPTS.values():
            await self.redis.script_load(script(name)._text)
        vault = a_vault(self.redis, tenant=self.settings.tenant, clock=self.clock, entropy=self.entropy)
        self.grants = Grants(self.redis, vault, tenant=self.settings.tenant, clock=self.clock)
        answer = parse_answer(Answer(200, {}, json.dumps(self.ehr.issue(self.now)).encode()))
        kind, scopes = self.ehr.kind, Scopes.parse("patient/*.rs offline_access")
        terms = Terms(kind, f"{BASE}/{kind}", f"at-{kind}", "launch", "app", scopes, LaunchContext(patient="p"))
        grant = await self.grants.create(TAG, terms, token_set(answer, now=self.now, share=0.7, default_lifetime=300))
        await Schedule(self.redis).watch(grant)
        await self.join("A")
        await self.join("B")

    async def join(self, name: str, *, is_operator: bool = False) -> Replica:
        """Start a replica."""
        replica = await Replica(self, name, is_operator).open()
        self.replicas.append(replica)
        return replica

    def clock(self) -> float:
        """Return the time that all of them go by."""
        return self.now

    def entropy(self, count: int) -> bytes:
        """Return bytes that are the same each time."""
        return self.random.randbytes(count)

    def must(self, holds: bool, otherwise: str) -> None:  # noqa: FBT001  # as `assert` reads
        """Note a rule that does not hold."""
        if not holds:
            self.broken.append(otherwise)

    def lose(self, tokens: set[str], why: str) -> None:
        """Note that nobody can have these any more."""
        self.lost |= tokens
        self.trouble.append(why)

    def kill(self, replica: Replica) -> None:
        """End a replica where it is."""
        self.replicas.remove(replica)
        self.dead += [replica, *(step for step in self.waiting if step.replica is replica)]
        self.waiting = [step for step in self.waiting if step.replica is not replica]
        self.lose(replica.flying | replica.in_hand, f"{replica.name} died")

    async def settle(self) -> None:
        """Wait until everything waits to be let go on: no connection to the store is in use for some turns."""
        pool: Any = self.redis.connection_pool
        quiet, seen = 0, len(self.waiting)
        while quiet < QUIET_TURNS:
            await asyncio.sleep(0)
            quiet = 0 if pool._in_use_connections or len(self.waiting) != seen else quiet + 1
            seen = len(self.waiting)

    async def go_on(self, step: Step, *, well: bool = True) -> None:
        """Let one message go on; or have its sender told that the store does not answer."""
        self.waiting.remove(step)
        step.let_go.set_result(well)
        await self.settle()

    @property
    def ready(self) -> list[Step]:
        """What can go on: messages of replicas that are not paused; first those that wait for nobody else."""
        return sorted((step for step in self.waiting if not step.replica.is_paused), key=lambda step: step.is_repeat)

    async def run(self) -> None:
        """Let everything go on until nothing waits but for somebody else."""
        await self.settle()
        asked_again = 0
        while (ready := self.ready) and asked_again <= 2 * len(ready):
            asked_again = asked_again + 1 if ready[0].is_repeat else 0
            await self.go_on(ready[0])

    async def call(self, who: int) -> None:
        """Have an app call one of the replicas, and let everything go on."""
        self.replicas[who].start(self.replicas[who].serve())
        await self.run()

    async def lapse(self) -> None:
        """Let the lease run out, as if its time had passed."""
        await self.redis.delete(LEASE)

    async def pass_time(self, seconds: float) -> None:
        """Move the clock: leases run out, and the EHR carries out what was late."""
        self.now += seconds
        before = set(self.ehr.valid)
        self.ehr.tick(self.now)
        self.lose(self.ehr.valid - before, "an answer was late")
        left = await self.redis.pttl(LEASE)
        if left > 0:
            await self.redis.pexpire(LEASE, max(1, int(left - seconds * 1000)))
        if left > 0 and left <= seconds * 1000:
            await self.redis.delete(LEASE)

    async def remember(self, name: str) -> None:
        """Keep what the store held before a write."""
        if name in SCRIPTS.values():
            async with self.redis.pipeline(transaction=False) as pipe:
                pipe.hgetall(GRANT)
                pipe.pttl(GRANT)
                pipe.get(LEASE)
                pipe.pttl(LEASE)
                self._before = (name, await pipe.execute())

    async def forget(self) -> str | None:
        """Fail over to a server that has all but the last write; returns which one that was."""
        if self._before is None:
            return None
        had = await self.stored_token()
        name, (grant, grant_left, lease, lease_left) = self._before
        self._before = None
        await self.redis.delete(GRANT, LEASE)
        await self.redis.hset(GRANT, mapping=grant)
        await self.redis.pexpire(GRANT, grant_left)
        if lease is not None:
            await self.redis.set(LEASE, lease, px=lease_left)
        self.forgot_an_intent |= name == "intend_refresh"
        self.lose({had} - {await self.stored_token()} - {None}, f"the store forgot {name}")  # type: ignore[arg-type]
        return name

    async def grant(self) -> Grant:
        """Return the grant as it is in the store."""
        return await self.grants.read(TAG)

    async def stored_token(self) -> str | None:
        """Return the refresh token that the store has."""
        grant = await self.grant()
        if grant.sealed_tokens is None:
            return None
        token = (await self.grants.open_tokens(grant)).refresh_token
        return token.reveal() if token is not None else None

    async def check(self) -> None:
        """See to it that the current refresh token is somewhere; if it was lost, that the grant says so."""
        grant, stored = await self.grant(), await self.stored_token()
        busy = [replica for replica in self.replicas if replica.is_busy]
        somewhere = {stored} | self.lost | {token for one in busy for token in one.flying | one.in_hand}
        if self.ehr.alive and grant.state not in {"revoked", "suspended"}:
            self.must(bool(self.ehr.valid & somewhere), f"{self.ehr.valid} is lost, the store has {stored}: {grant}")
        if self.ehr.alive and grant.state == "active" and not busy and not self.forgot_an_intent:
            known = stored in self.ehr.valid or grant.attempted_by is not None
            self.must(known, f"the store has {stored}, and nothing says that it was replaced by {self.ehr.valid}")
        self.must(grant.state == "active" or bool(grant.cause), f"it is {grant.state} without a cause")
        self.must(not self.ehr.alarms or self.is_excused, f"alarms at the EHR: {self.ehr.alarms}")
        assert not self.broken, self.broken

    async def end(self) -> None:
        """Let all of it come to an end, with an EHR that is well."""
        self.ehr.fates.clear()
        for replica in self.replicas:
            replica.pauses_at = None
        for seconds in (0, 61, 121, 61, 400):
            await self.pass_time(seconds)
            for replica in self.replicas[:2]:
                replica.start(replica.serve())
            await self.run()
            await self.check()
        grant = await self.grant()
        if grant.state in {"active", "uncertain"} and self.ehr.alive:
            self.must(not self.waiting, f"somebody waits for ever: {self.waiting}")
        if not self.trouble and self.ehr.alive and grant.state != "revoked":
            self.must(grant.state == "active" and self.now < grant.expires_at, f"without trouble: {grant}")
        await self.check()

    @property
    def is_excused(self) -> bool:
        """Whether an operator has said that a token be sent again, or the store forgot that it may have been sent."""
        return self.forgot_an_intent or any(request.by_operator for request in self.ehr.requests)


@asynccontextmanager
async def open_world(settings: Settings, redis: StoreClient, folder: Path, kind: Kind) -> AsyncIterator[World]:
    """Make a grant at an EHR of that kind, and two replicas; in the end they stop where they are."""

    async def ship_nothing(_lines: Sequence[str]) -> None:
        """The audit file is enough here."""

    ehr = ModelEhr(kind)
    audit = AuditTrail(file=folder / "audit.jsonl", ship=ship_nothing, clock=lambda: world.now)
    world = World(settings, redis, audit, ehr)
    await audit.open()
    before = asyncio.all_tasks()
    try:
        await world.open()
        yield world
    finally:
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await audit.close()
