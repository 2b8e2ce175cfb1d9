"""Send one token request of a grant: past the EHR's gate, written down before, never when the lease may end first."""

from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog
from redis.asyncio import Redis

from broker.clock import Clock
from broker.ehr.token_answer import TokenAnswer, at_server
from broker.errors import BrokerError, EhrAnswerLost, EhrHeldBack
from broker.grants import Grant, Grants
from broker.refresh.asking import Ask
from broker.refresh.gate import AGAIN_SECONDS, SPARE_SECONDS, Gate
from broker.refresh.limits import Lane
from broker.settings import EhrSettings
from broker.store import keys
from broker.store.connection import Script
from broker.store.scripts import script

log = structlog.get_logger()

LEASE_SECONDS: Final = 60.0
"""How long others wait before they call a dead holder's grant uncertain; longer where a request may take longer."""


def is_in_time(*, now: float, timeout: float, ends_at: float) -> bool:
    """Whether a request that is sent now has its answer before `ends_at`, or none that counts. Pure."""
    return now + timeout <= ends_at


@dataclass(frozen=True, slots=True)
class Sending:
    """Steps 2 and 3 of a renewal."""

    redis: Redis
    grants: Grants
    gate: Gate
    clock: Clock
    intend: Script = field(default_factory=partial(script, "intend_refresh"))

    async def __call__(self, grant: Grant, owner: str, ehr: EhrSettings, ask: Ask, lane: Lane) -> TokenAnswer:
        """Return the answer. Raises `EhrHeldBack` when nothing was sent, `EhrError`, `StoreUnavailable`."""
        async with self.gate.passage(ehr, lane, takes=ask.longest) as passage:
            ends_at = min(passage.ends_at, await self._intend(grant, owner, ask.longest))
            return await self._ask(grant, ask, ends_at)

    async def _intend(self, grant: Grant, owner: str, longest: float) -> float:
        """Write down that the request may have been sent; returns when the lease ends, in seconds."""
        lease, now = max(LEASE_SECONDS, longest + SPARE_SECONDS), self.clock()
        lines = [keys.grant(grant.tag), keys.lease(grant.tag)]
        said = await self.intend(self.redis, lines, [owner, int(lease * 1000), grant.generation], durable=True)
        if said != b"ok":
            (await self.grants.read(grant.tag)).require_usable()
            raise EhrHeldBack("the lease ran out before the request was sent", retry_after=AGAIN_SECONDS)
        return now + lease

    async def _ask(self, grant: Grant, ask: Ask, ends_at: float) -> TokenAnswer:
        """Send the request. Raises `EhrError` alone: from here on, whatever else goes wrong, it may have been sent."""

        def check() -> None:
            if not is_in_time(now=self.clock(), timeout=ask.timeout, ends_at=ends_at):
                cause = "the broker was held up for so long that its lease may end before the EHR answers"
                raise EhrHeldBack(f"{cause}: nothing was sent", retry_after=AGAIN_SECONDS)

        try:
            return at_server(await ask.send(check), grant.terms.fhir_base)
        except BrokerError:
            raise
        except Exception as error:
            log.exception("refresh_failed_unforeseen", grant=grant.tag)
            raise EhrAnswerLost(f"the request failed unforeseen ({type(error).__name__})") from None
