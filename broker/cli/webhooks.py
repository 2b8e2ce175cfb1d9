"""`broker webhooks`: what webhooks were not told yet, and what was given up."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from broker.app import Broker
from broker.audit import Event as AuditEvent
from broker.cli.session import ConfigOption, JsonOption, StateOption, open_session, print_rows, run
from broker.errors import NotFound
from broker.webhooks import Event, told_of

commands = typer.Typer(help="Webhooks: events that were not heard yet, or given up.", no_args_is_help=True)
WebhookArgument = Annotated[str, typer.Argument(help="the webhook's id")]
EventsArgument = Annotated[list[str] | None, typer.Argument(help="ids of events, as listed")]
AllOption = Annotated[bool, typer.Option("--all", help="every event that was given up")]
_COLUMNS = ("webhook", "event", "state", "at", "tries", "said", "grant", "health")


@commands.command("list")
def list_events(
    *,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
    dead: Annotated[bool, typer.Option("--dead", help="only what was given up")] = False,
) -> None:
    """List events: waiting ones with their next try, and dead letters with the time when they were given up."""
    print_rows(run(lambda: _list(config, state, dead=dead)), _COLUMNS, as_json=as_json)


@commands.command("retry")
def retry(
    webhook: WebhookArgument,
    events: EventsArgument = None,
    *,
    every: AllOption = False,
    config: ConfigOption = None,
    state: StateOption = None,
) -> None:
    """Try events anew: at once, and then as long as new ones."""
    print(f"{run(lambda: _change(webhook, events or [], every, 'webhook.retry', config, state))} events are due now")


@commands.command("drop")
def drop(
    webhook: WebhookArgument,
    events: EventsArgument = None,
    *,
    every: AllOption = False,
    config: ConfigOption = None,
    state: StateOption = None,
) -> None:
    """Delete events. Nobody is told of them any more."""
    print(f"{run(lambda: _change(webhook, events or [], every, 'webhook.drop', config, state))} events are deleted")


async def _list(config: Path | None, state: Path | None, *, dead: bool) -> list[dict[str, Any]]:
    async with open_session(config, state) as broker:
        outbox, rows = broker.telling.outbox, []
        for webhook in broker.settings.webhook:
            if not dead:
                rows += [_row(webhook.id, "waiting", event, at) async for event, at in outbox.listed(webhook.id, "due")]
            rows += [_row(webhook.id, "dead", event, at) async for event, at in outbox.listed(webhook.id, "dead")]
        return rows


async def _change(
    webhook: str,
    events: list[str],
    every: bool,  # noqa: FBT001  # given by place, as a flag of the command
    what: Literal["webhook.retry", "webhook.drop"],
    config: Path | None,
    state: Path | None,
) -> int:
    async with open_session(config, state) as broker:
        if webhook not in {known.id for known in broker.settings.webhook}:
            raise NotFound(f"no webhook {webhook}")
        outbox = broker.telling.outbox
        found = [event async for event, _ in outbox.listed(webhook, "dead")] if every else []
        found += [await outbox.read(webhook, name) for name in events]
        for event in found:
            await _change_one(broker, webhook, event, what)
        return len(found)


async def _change_one(broker: Broker, webhook: str, event: Event, what: AuditEvent) -> None:
    outbox, now = broker.telling.outbox, broker.clock()
    broker.audit.record(told_of(event, what, "allowed", f"{webhook}: {event.id}: by an operator"))
    await (outbox.retry(webhook, event, now=now) if what == "webhook.retry" else outbox.drop(webhook, event, now=now))


def _row(webhook: str, state: str, event: Event, at: float) -> dict[str, Any]:
    return {
        "webhook": webhook,
        "event": event.id,
        "state": state,
        "at": datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "tries": event.tries,
        "said": event.said,
        "grant": event.data["grant"],
        "health": event.data["health"],
    }
