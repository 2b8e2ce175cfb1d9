"""What `broker check` says of webhooks: whether they hear what they are told. None of them is called for it."""

from collections.abc import AsyncIterator, Sequence

from broker.cli.finding import Finding
from broker.settings import WebhookSettings
from broker.webhooks import Outbox


async def check_webhooks(webhooks: Sequence[WebhookSettings], outbox: Outbox) -> AsyncIterator[Finding]:
    """Look at what waits for each, and at what was given up. Raises `StoreUnavailable`."""
    for webhook in webhooks:
        dead = [event async for event, _ in outbox.listed(webhook.id, "dead")]
        late = [event.said async for event, _ in outbox.listed(webhook.id, "due") if event.tries]
        if dead:
            fix = f"broker webhooks list --dead, then retry or drop {webhook.id}"
            yield Finding("webhook", "warning", f"{webhook.id}: {len(dead)} events were given up. Fix: {fix}")
        if late:
            yield Finding("webhook", "warning", f"{webhook.id}: {len(late)} events were not heard yet ({late[0]})")
        if not dead and not late:
            yield Finding("webhook", "ok", f"{webhook.id}: it heard what it was told")
