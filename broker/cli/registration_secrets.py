"""`broker registrations secret`: client secrets that are added while the broker runs. None is ever printed."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.cli.session import ConfigOption, JsonOption, StateOption, open_session, print_rows, run
from broker.errors import InvalidRequest
from broker.secret import Secret
from broker.settings import RegistrationSettings
from broker.settings.registration import WITH_SECRET

commands = typer.Typer(help="Client secrets at EHRs: one more before the EHR changes.", no_args_is_help=True)
RegistrationArgument = Annotated[str, typer.Argument(help="the registration's id")]
_COLUMNS = ("secret", "origin", "since", "expires", "accepted")
_LONGEST = 4096


@commands.command("add")
def add(
    registration: RegistrationArgument,
    *,
    expires: Annotated[
        datetime | None, typer.Option("--expires", formats=["%Y-%m-%d"], help="until when the EHR takes it")
    ] = None,
    config: ConfigOption = None,
    state: StateOption = None,
) -> None:
    """Add the secret on standard input. It is tried where an EHR refuses the others, and first from then on."""
    text = sys.stdin.read(_LONGEST + 1).rstrip("\r\n")
    if not text or len(text) > _LONGEST or not text.isprintable():
        raise InvalidRequest("no secret on standard input. Fix: broker registrations secret add ID < FILE")
    until = expires.replace(tzinfo=UTC).timestamp() if expires is not None else None
    print(run(lambda: _add(registration, Secret(text), until, config, state)))


@commands.command("list")
def list_secrets(
    registration: RegistrationArgument,
    *,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a registration's secrets by id, and when an EHR took each one last."""
    print_rows(run(lambda: _list(registration, config, state)), _COLUMNS, as_json=as_json)


@commands.command("retire")
def retire(
    registration: RegistrationArgument,
    secret: Annotated[str, typer.Argument(help="the secret's id, as listed")],
    *,
    config: ConfigOption = None,
    state: StateOption = None,
) -> None:
    """Delete a secret that was added."""
    run(lambda: _retire(registration, secret, config, state))


async def _add(name: str, secret: Secret, expires: float | None, config: Path | None, state: Path | None) -> str:
    async with open_session(config, state) as broker:
        return await broker.client_secrets.add(_with_secret(broker.directory.registration(name)), secret, expires)


async def _list(name: str, config: Path | None, state: Path | None) -> list[dict[str, Any]]:
    async with open_session(config, state) as broker:
        known = await broker.client_secrets.all(_with_secret(broker.directory.registration(name)))
        return [
            {
                "secret": one.id,
                "origin": one.origin,
                "since": _when(one.since),
                "expires": _when(one.expires),
                "accepted": _when(one.accepted),
            }
            for one in known
        ]


async def _retire(name: str, secret: str, config: Path | None, state: Path | None) -> None:
    async with open_session(config, state) as broker:
        await broker.client_secrets.retire(_with_secret(broker.directory.registration(name)), secret)


def _with_secret(registration: RegistrationSettings) -> RegistrationSettings:
    if registration.authentication not in WITH_SECRET:
        raise InvalidRequest(f"{registration.id} authenticates by {registration.authentication}, not by a secret")
    return registration


def _when(seconds: float | None) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d") if seconds is not None else None
