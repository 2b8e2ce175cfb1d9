"""Rotation, loss, reuse, grace, exchange, revocation: handles in a real store against a model of what may happen."""

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from broker.clock import system_entropy
from broker.credentials import KeyedHash
from broker.errors import InvalidGrant, InvalidHandle, InvalidRequest
from broker.grants import Grants, Terms, TokenSet
from broker.handles import MOST_EXCHANGES, ExchangedHandles, Handles
from broker.issued import IssuedRecords
from broker.scopes import Scopes
from broker.secret import Secret
from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer
from broker.store.shared import SharedConnections
from tests.stage.vault import a_vault

TAG = "0123456789AB"
SCOPES = Scopes.parse("patient/*.rs offline_access")
LIFETIME, REFRESH_LIFETIME = 300, 3600
TERMS = Terms(
    ehr="sandbox", fhir_base="https://ehr.example/R4", registration="r", flow="launch", app="app", scopes=SCOPES
)
TOKENS = TokenSet(access_token=Secret("t"), refresh_token=Secret("r"), renew_at=9e9, expires_at=9e9)


@dataclass(eq=False)
class Held:
    """A handle as the model has it."""

    text: str
    family: str
    ends: float
    parent: "Held | None" = None
    uses: int | None = None
    ended: bool = False

    @property
    def line(self) -> list["Held"]:
        """This one and those that it was exchanged for."""
        return [self, *(self.parent.line if self.parent else [])]

    def is_live(self, now: float) -> bool:
        return not any(one.ended for one in self.line) and now < self.ends


@dataclass(eq=False)
class Refresh:
    """A refresh handle as the model has it."""

    text: str
    family: str
    ends: float
    spent_at: float | None = None
    successor: "tuple[Held, Refresh] | None" = None


@dataclass
class World:
    """The real thing, with a clock that the machine moves."""

    url: Secret
    now: float = 1_000_000.0
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)

    async def open(self) -> None:
        self.redis = connect(self.url)
        await self.redis.flushall()
        vault = a_vault(self.redis, clock=self.clock)
        self.grants = Grants(self.redis, vault, tenant="t", clock=self.clock)
        records = IssuedRecords(vault, KeyedHash(bytes(32)), tenant="t", clock=self.clock, entropy=system_entropy)
        self.shared = SharedConnections(self.redis)
        self.handles = Handles(self.redis, self.shared, records, self.grants, clock=self.clock)
        self.exchanged = ExchangedHandles(self.redis, records, clock=self.clock)
        await self.grants.create(TAG, TERMS, TOKENS)

    def clock(self) -> float:
        return self.now


class Rotation(RuleBasedStateMachine):
    """What the store allows is what the model allows, after every step."""

    url: Secret
    held = Bundle("held")
    refreshes = Bundle("refreshes")

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.url)
        self.run = self.world.runner.run
        self.run(self.world.open())
        self.numbers = itertools.count()
        self.ended_families: set[str] = set()
        self.all_held: list[Held] = []

    def teardown(self) -> None:
        self.run(self.world.shared.close())
        self.run(self.world.redis.aclose())
        self.world.runner.close()

    def issue(self, family: str, **more: Any) -> tuple[Held, Refresh]:
        issued = self.run(
            self.world.handles.issue(
                tag=TAG,
                app="app",
                ehr="sandbox",
                scopes=SCOPES,
                family=family,
                lifetime=LIFETIME,
                refresh_lifetime=REFRESH_LIFETIME,
                announce=lambda _: None,
                **more,
            )
        )
        assert issued.refresh_handle is not None
        now = self.world.now
        held = Held(issued.handle.reveal(), family, now + LIFETIME)
        self.all_held.append(held)
        return held, Refresh(issued.refresh_handle.reveal(), family, now + REFRESH_LIFETIME)

    def end_family(self, family: str) -> None:
        self.ended_families.add(family)
        for one in self.all_held:
            one.ended |= one.family == family

    @rule(target=refreshes)
    def authorize(self) -> Refresh:
        _, refresh = self.issue(f"{next(self.numbers):024x}")
        return refresh

    @rule(target=refreshes, presented=refreshes, grace=st.sampled_from([0, 10]))
    def refresh(self, presented: Refresh, grace: int) -> Refresh:
        now, successor = self.world.now, presented.successor
        is_known = presented.family not in self.ended_families and now < presented.ends
        forgiven = (
            presented.spent_at is not None
            and successor is not None
            and successor[1].spent_at is None
            and grace > 0
            and now - presented.spent_at <= grace
        )
        if not is_known or (presented.spent_at is not None and not forgiven):
            with pytest.raises(InvalidGrant):
                self.present(presented, grace)
            if is_known:
                self.end_family(presented.family)
            return presented
        pair = self.present(presented, grace)
        if successor is not None:
            successor[0].ended = True
            successor[1].spent_at = now
            presented.successor = None
        else:
            presented.spent_at, presented.successor = now, pair
        return pair[1]

    def present(self, presented: Refresh, grace: int) -> tuple[Held, Refresh]:
        spends = self.run(self.world.handles.find_refresh(presented.text))
        return self.issue(presented.family, spends=spends, grace=grace)

    @rule(target=held, among=st.data())
    def keep_in_mind(self, among: st.DataObject) -> Held | None:
        return among.draw(st.sampled_from(self.all_held)) if self.all_held else None

    @rule(target=held, subject=held, uses=st.none() | st.integers(1, 3), lifetime=st.integers(1, 2 * LIFETIME))
    def exchange(self, subject: Held | None, uses: int | None, lifetime: int) -> Held | None:
        if subject is None or not subject.is_live(self.world.now):
            return subject
        if sum(one.is_live(self.world.now) for one in self.all_held if one.line[-1] is subject.line[-1]) > 30:
            return subject
        handle, _ = self.run(self.world.handles.redeem(subject.text, "sandbox"))
        asked: dict[str, Any] = {"app": "app", "scopes": SCOPES, "patient": None, "announce": lambda _: None}
        exchange = self.world.exchanged.issue(handle, lifetime=lifetime, uses=uses, **asked)
        if len(handle.ancestors) == MOST_EXCHANGES:
            with pytest.raises(InvalidRequest):
                self.run(exchange)
            return subject
        issued = self.run(exchange)
        ends = min(self.world.now + lifetime, subject.ends)
        exchanged = Held(issued.handle.reveal(), subject.family, ends, parent=subject, uses=uses)
        self.all_held.append(exchanged)
        return exchanged

    @rule(used=held)
    def use(self, used: Held | None) -> None:
        if used is None or not used.is_live(self.world.now):
            return
        handle, _ = self.run(self.world.handles.redeem(used.text, "sandbox"))
        self.run(self.world.handles.take_use(handle))
        for one in used.line:
            if one.uses is not None:
                one.uses -= 1
                one.ended |= one.uses == 0

    @rule(ended=held)
    def revoke(self, ended: Held | None) -> None:
        if ended is not None and ended.is_live(self.world.now):
            handle, _ = self.run(self.world.handles.redeem(ended.text, "sandbox"))
            self.run(self.world.handles.revoke(handle))
            ended.ended = True

    @rule(presented=refreshes)
    def revoke_the_family(self, presented: Refresh) -> None:
        if presented.family not in self.ended_families and self.world.now < presented.ends:
            self.run(self.world.handles.revoke(self.run(self.world.handles.find_refresh(presented.text))))
            self.end_family(presented.family)

    @rule(seconds=st.sampled_from([1, 5, 10, 11, 100]))
    def wait(self, seconds: int) -> None:
        self.world.now += seconds

    @invariant()
    def exactly_the_live_handles_work(self) -> None:
        async def works(text: str) -> bool:
            try:
                await self.world.handles.redeem(text, "sandbox")
            except InvalidHandle:
                return False
            return True

        async def all_of_them() -> list[bool]:
            return await asyncio.gather(*(works(one.text) for one in self.all_held))

        assert self.run(all_of_them()) == [one.is_live(self.world.now) for one in self.all_held]


def test_handles_live_and_end_as_the_model_says(valkey: EmbeddedServer) -> None:
    """RF-03, OA-24, HB-05, HB-08: rotation, loss, reuse, grace, exchange and revocation in any order."""

    class Here(Rotation):
        url = valkey.url()

    run_state_machine_as_test(Here, settings=settings(max_examples=40, stateful_step_count=30))
