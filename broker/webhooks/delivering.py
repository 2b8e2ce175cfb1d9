"""Sends events to one webhook: signed, at least once, to nowhere else, and again until they were heard."""

import asyncio
from dataclasses import dataclass, replace
from typing import Final

import structlog

from broker.audit import AuditRecord, AuditTrail, Outcome
from broker.audit import Event as AuditEvent
from broker.clock import Clock, Entropy
from broker.egress import Egress
from broker.ehr.token_answer import parse_retry_after
from broker.errors import EhrAnswerLost, EhrError, EhrUnreachable, Unavailable
from broker.settings import WebhookSettings
from broker.webhooks.outbox import Event, Outbox
from broker.webhooks.retries import next_try
from broker.webhooks.signing import signed_headers

log = structlog.get_logger()

TRY_SECONDS: Final = 10.0
"""How long a receiver has for its answer. It should only take note, and work later."""
AGAIN_SECONDS: Final = 60.0
"""When an event is taken again whose try did not end: its replica died."""
AT_ONCE: Final = 16
"""Tries under way in one process for one webhook."""
_GONE: Final = "http_410"
_LATER: Final = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Delivering:
    """Tells one webhook."""

    webhook: WebhookSettings
    outbox: Outbox
    egress: Egress
    audit: AuditTrail
    clock: Clock
    entropy: Entropy

    async def look(self) -> tuple[int, int]:
        """Try what is due, not all of it at once; returns how many were tried and heard. Raises `StoreUnavailable`."""
        now = self.clock()
        events = await self.outbox.take(self.webhook.id, now, again=now + AGAIN_SECONDS, most=AT_ONCE)
        heard = await asyncio.gather(*map(self._try, events))
        return len(events), sum(heard)

    async def _try(self, event: Event) -> bool:
        try:
            return await self._deliver(event)
        except Unavailable as error:
            log.info("webhook_waits", webhook=self.webhook.id, cause=error.detail)
            return False

    async def _deliver(self, event: Event) -> bool:
        self._record(event, "allowed", f"try {event.tries + 1}")
        said, asked = await self._send(event)
        tried = replace(event, tries=event.tries + 1, said=said)
        if said is None:
            await self.outbox.settle(self.webhook.id, tried, "heard", self.clock())
            return True
        self._record(event, "failed", said)
        await self._put_off(tried, asked)
        return False

    async def _send(self, event: Event) -> tuple[str | None, float]:
        """Return what went wrong in one word, or None; and the seconds that the receiver asked to wait."""
        body = event.body.encode()
        headers = {
            "Content-Type": "application/json",
            **signed_headers(self.webhook.secret, event.id, body, now=self.clock()),
        }
        try:
            async with (
                asyncio.timeout(TRY_SECONDS),
                self.egress.stream("POST", self.webhook.url, headers=headers, content=body, timeout=TRY_SECONDS) as it,
            ):  # its body is nobody's business, and is not read
                said = None if 200 <= it.status < 300 else f"http_{it.status}"
                return said, parse_retry_after(it.headers) if it.status in _LATER else 0.0
        except (EhrAnswerLost, TimeoutError):
            return "no_answer", 0.0
        except EhrUnreachable:
            return "no_connection", 0.0
        except EhrError:
            return "not_allowed", 0.0

    async def _put_off(self, event: Event, asked: float) -> None:
        now = self.clock()
        drawn = int.from_bytes(self.entropy(4), "big") / 0xFFFF_FFFF
        again = next_try(event.tries, first=event.made_at, now=now, asked=asked, drawn=drawn)
        if again is not None and event.said != _GONE:
            await self.outbox.settle(self.webhook.id, event, "again", again)
            return
        log.warning("webhook_given_up", webhook=self.webhook.id, webhook_event=event.id, said=event.said)
        self._record(event, "failed", f"given up after {event.tries} tries")
        await self.outbox.settle(self.webhook.id, event, "dead", now)

    def _record(self, event: Event, outcome: Outcome, what: str) -> None:
        self.audit.record(told_of(event, "webhook.send", outcome, f"{self.webhook.id}: {event.id}: {what}"))


def told_of(event: Event, name: AuditEvent, outcome: Outcome, reason: str) -> AuditRecord:
    """Return an audit record about an event and its grant."""
    data = event.data
    known = {field: data.get(field) for field in ("app", "ehr", "registration", "grant")}
    return AuditRecord(event=name, outcome=outcome, reason=reason, **known)
