"""`broker handles`: what apps hold, by public id. The handles themselves are kept nowhere."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.audit import AuditRecord
from broker.cli.session import ConfigOption, JsonOption, StateOption, open_session, print_rows, run
from broker.errors import NotFound

commands = typer.Typer(help="Handles: what apps hold.", no_args_is_help=True)
_COLUMNS = ("handle", "grant", "app", "ehr", "expires_at", "scopes", "limits")


@commands.command("list")
def list_handles(*, config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """List all live handles."""
    print_rows(run(lambda: _list(config, state)), _COLUMNS, as_json=as_json)


@commands.command("revoke")
def revoke(
    handle: Annotated[str, typer.Argument(help="the handle's public id, as listed")],
    *,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """End one handle at once."""
    run(lambda: _revoke(handle, config, state))
    if as_json:
        print_rows([{"handle": handle, "state": "revoked"}], (), as_json=True)
    else:
        print(f"{handle} is revoked")


async def _list(config: Path | None, state: Path | None) -> list[dict[str, Any]]:
    async with open_session(config, state) as broker:
        live = [handle async for tag in broker.grants.tags() for handle in await broker.handles.live(tag)]
    return [
        {
            "handle": handle.id,
            "grant": handle.tag,
            "app": handle.app,
            "ehr": handle.ehr,
            "expires_at": datetime.fromtimestamp(handle.expires_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "scopes": str(handle.scopes),
            "limits": handle.limits.names if handle.limits else "",
        }
        for handle in live
    ]


async def _revoke(handle_id: str, config: Path | None, state: Path | None) -> None:
    async with open_session(config, state) as broker:
        async for tag in broker.grants.tags():
            if any(handle.id == handle_id for handle in await broker.handles.live(tag)):
                broker.audit.record(
                    AuditRecord(
                        event="handle.revoke",
                        outcome="allowed",
                        grant=tag,
                        handle=handle_id,
                        reason="revoked by an operator",
                    )
                )
                await broker.handles.revoke_by_id(tag, handle_id)
                return
    raise NotFound(f"there is no live handle {handle_id}")
