"""Replicas of the refresh engine in one process, each message of which waits until a test lets it go on.

A message waits twice: before it leaves, and, carried out, before its answer is read. So a replica that is let go on by
nobody is one that is paused; if it never is again, it has died there.
"""

import asyncio
import json
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from redis.exceptions import ConnectionError as NotConnectedError

from broker.app.rooms import Rooms, open_rooms
from broker.egress import Answer, Egress
from broker.errors import BrokerError, EhrAnswerLost
from broker.flows.revoke import RevokeGrant
from broker.kms.signing import NoSigning
from broker.policy import Permit
from broker.refresh.keeper import Keeper
from broker.store import keys
from broker.store.client import StoreClient
from broker.store.scripts import script
from broker.witness import Witness
from tests.refresh.model_ehr import BASE, Request, document, token_of
from tests.stage.vault import a_vault

if TYPE_CHECKING:
    from tests.refresh.world import World

TAG: Final = "machinegrant"
GRANT, LEASE = keys.grant(TAG), keys.lease(TAG)
SCRIPTS: Final = {
    script(name)._sha: name
    for name in ("claim_refresh", "intend_refresh", "release_refresh", "commit_grant", "end_grant", "use_grant")
}

When = Literal["before", "after"]
Point = tuple[str, When]
"""Before a message leaves, or after it was carried out."""


@dataclass(eq=False, repr=False)
class Step:
    """A message that waits."""

    replica: "Replica"
    name: str
    when: When
    is_repeat: bool
    """Whether its sender only asks again whether it is its turn."""
    let_go: "asyncio.Future[bool]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def is_to_store(self) -> bool:
        """Whether it is a message to the store."""
        return self.name != "gate" and not self.name.startswith("EHR")

    def __repr__(self) -> str:
        return f"{self.replica.name}: {self.when} {self.name}"


class WatchedClient(StoreClient):
    """A client of the store whose messages about the grant wait."""

    replica: "Replica"

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command."""
        world = self.replica.world
        if not {GRANT, LEASE} & set(args):
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        name = SCRIPTS.get(args[1], args[0])
        await self._wait(name, "before")
        await world.remember(name)
        answer = await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        self.replica.heard(answer)
        await self._wait(name, "after")
        return answer

    async def _wait(self, name: str, when: When) -> None:
        if not await self.replica.wait(name, when):
            raise NotConnectedError


@dataclass(eq=False, repr=False)
class Network:
    """The way from one replica to the model EHR."""

    replica: "Replica"

    def require_callable(self, url: str) -> None:
        """All of them are."""

    async def fetch(self, method: str, url: str, *, timeout: float, content: bytes | None = None, **_: Any) -> Answer:
        """Send one request. Raises `EhrAnswerLost`, also where it was not sent in time, as the real one does."""
        if method == "GET":
            return document() if url.endswith("/smart-configuration") else Answer(404, {}, b"")
        replica, world = self.replica, self.replica.world
        name, give_up = url.removeprefix(f"{BASE}/"), world.now + timeout
        await replica.wait(f"EHR {name}", "before")
        if world.now >= give_up:
            world.trouble.append("a request was not sent in time")
            raise EhrAnswerLost("not sent in time")
        answer = self._carry_out(name, content)
        brings = _brings(answer)
        replica.flying |= brings
        await replica.wait(f"EHR {name}", "after")
        replica.flying -= brings
        if answer is None or world.now >= give_up:
            world.lose(brings, "an answer was lost")
            raise EhrAnswerLost("no answer")
        replica.in_hand |= brings
        if answer.status in {429, 503} and name == "token" and replica.last_request is not None:
            replica.last_request.told = True
        return answer

    def _carry_out(self, name: str, content: bytes | None) -> Answer | None:
        world, ehr = self.replica.world, self.replica.world.ehr
        if name == "introspect":
            return ehr.introspect(token_of(content, "token"))
        if name == "revoke":
            return ehr.revoke()
        request = Request(token_of(content, "refresh_token"), world.now, self.replica.is_operator)
        world.must(
            ehr.may_be_sent(request) or world.forgot_an_intent, f"{self.replica.name} sent {request.token} again"
        )
        self.replica.last_request = request
        ehr.requests.append(request)
        before = set(ehr.valid)
        answer = ehr.take(request, world.now)
        if not _brings(answer):
            world.lose(ehr.valid - before, "a request was lost, or its answer")
        return answer


def _brings(answer: Answer | None) -> set[str]:
    said = json.loads(answer.body or b"{}") if answer is not None else {}
    return {said["refresh_token"]} if "refresh_token" in said else set()


@dataclass(eq=False, repr=False)
class Replica:
    """One process of the broker, as far as refreshing goes."""

    world: "World"
    name: str
    is_operator: bool = False
    rooms: Rooms = field(init=False)
    keeper: Keeper = field(init=False)
    last_request: Request | None = None
    flying: set[str] = field(default_factory=set)
    """Refresh tokens whose answer is on its way."""
    in_hand: set[str] = field(default_factory=set)
    """Refresh tokens that it was answered."""
    pauses_at: "Point | None" = None
    """Where the whole process stops until it is let go on."""
    tasks: "set[asyncio.Task[None]]" = field(default_factory=set)
    _held: "set[asyncio.Task[Any] | None]" = field(default_factory=set)

    async def open(self) -> "Replica":
        """Build its rooms."""
        world = self.world
        redis = WatchedClient(connection_pool=world.redis.connection_pool)
        redis.replica = self
        vault = a_vault(world.redis, tenant=world.settings.tenant, clock=world.clock, entropy=world.entropy)
        witness = Witness(redis, None, world.audit, world.clock, world.entropy)
        egress = cast("Egress", Network(self))
        self.rooms = rooms = await open_rooms(
            world.settings, redis, vault, NoSigning(), world.audit, egress, witness, world.clock, world.entropy
        )
        object.__setattr__(rooms.gate, "sleep", self._wait_at_gate)  # by the world's time, which only a test moves
        self.keeper = Keeper(rooms.grants, rooms.directory, rooms.refresher, rooms.schedule, world.clock)
        return self

    @property
    def is_busy(self) -> bool:
        """Whether something of it waits to go on."""
        return any(step.replica is self for step in self.world.waiting)

    @property
    def is_paused(self) -> bool:
        """Whether it has come to where it stops."""
        return any(step.replica is self and (step.name, step.when) == self.pauses_at for step in self.world.waiting)

    async def wait(self, name: str, when: When) -> bool:
        """Wait to be let go on; returns whether all goes well."""
        step = Step(self, name, when, name == "claim_refresh" and asyncio.current_task() in self._held)
        self.world.waiting.append(step)
        return await step.let_go

    async def _wait_at_gate(self, _seconds: float) -> None:
        step = Step(self, "gate", "before", is_repeat=True)
        self.world.waiting.append(step)
        await step.let_go

    def heard(self, answer: object) -> None:
        """Notice who is told to wait for another replica."""
        (self._held.add if answer == b"held" else self._held.discard)(asyncio.current_task())

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Let it do something."""
        self.tasks.add(asyncio.ensure_future(work))

    async def serve(self) -> None:
        """Have an app call."""
        world, rooms = self.world, self.rooms
        try:
            grant = await rooms.grants.read(TAG)
            grant.require_usable()
            token = await rooms.refresher.current_token(cast("Permit", SimpleNamespace(grant=grant)))
        except BrokerError as error:
            world.refusals.append(error.detail)
        else:
            world.served.append(token.generation)
            text = token.access_token.reveal()
            world.must(world.now < world.ehr.ends[text], f"{self.name} gave out {text}, which has ended")

    async def keep(self) -> None:
        """Have the keeper look."""
        await self.keeper.look()

    async def insist(self) -> None:
        """`broker grants refresh GRANT --even-uncertain`."""
        with suppress(BrokerError):
            await self.rooms.refresher.renewal.renew(await self.rooms.grants.read(TAG), even_uncertain=True)

    async def revoke(self) -> None:
        """`broker grants revoke GRANT`."""
        with suppress(BrokerError):
            await RevokeGrant(self.rooms.grants, self.rooms.ehr_side, self.rooms.audit)(TAG, cause="revoked by a test")
