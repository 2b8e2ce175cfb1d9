"""`broker registrations`: what to enter in an EHR's own form."""

from pathlib import Path
from typing import Annotated, Any

import typer

from broker.cli.session import ConfigOption, JsonOption, StateOption, open_session, print_rows, run
from broker.settings import RegistrationSettings

commands = typer.Typer(help="Registrations: what to enter at the EHR.", no_args_is_help=True)
_COLUMNS = ("registration", "ehr", "environment", "flow", "client_id", "authentication", "app")


@commands.command("list")
def list_registrations(*, config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """List all registrations."""
    rows = run(lambda: _list(config, state))
    print_rows(rows if as_json else [{**row, "ehr": " ".join(row["ehr"])} for row in rows], _COLUMNS, as_json=as_json)


@commands.command("show")
def show(
    registration: Annotated[str, typer.Argument(help="the registration's id")],
    *,
    jwks: Annotated[bool, typer.Option("--jwks", help="the public keys, too, for a form that takes no URL")] = False,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what to enter at the EHR. A secret is not among it: it came from there."""
    shown = run(lambda: _show(registration, config, state, with_keys=jwks))
    if as_json:
        print_rows([shown], (), as_json=True)
        return
    for name, value in shown.items():
        for line in _lines(value):
            print(f"{name:<15} {line}")


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{name}: {one}" for name, one in value.items()]
    return [str(one) for one in value] or ["-"] if isinstance(value, list) else [str(value or "-")]


async def _list(config: Path | None, state: Path | None) -> list[dict[str, Any]]:
    async with open_session(config, state) as broker:
        return [_row(registration) for registration in broker.directory.registrations]


async def _show(name: str, config: Path | None, state: Path | None, *, with_keys: bool) -> dict[str, Any]:
    async with open_session(config, state) as broker:
        described = await broker.describe_registration(name, with_keys=with_keys)
        return {**_row(broker.directory.registration(name)), **described}


def _row(registration: RegistrationSettings) -> dict[str, Any]:
    names = ("environment", "flow", "client_id", "authentication", "app")
    return {
        "registration": registration.id,
        "ehr": list(registration.ehr),
        **{name: getattr(registration, name) for name in names},
    }
