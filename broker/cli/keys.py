"""`broker keys`: the keys that registrations sign with, where each one signs, and how they are replaced."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.app import Broker
from broker.cli.session import ConfigOption, JsonOption, StateOption, open_session, print_rows, run
from broker.errors import InvalidRequest
from broker.keys.ring import Ring, RingKey
from broker.settings import RegistrationSettings

commands = typer.Typer(help="Signing keys: what registrations prove themselves with at EHRs.", no_args_is_help=True)
RegistrationArgument = Annotated[str, typer.Argument(help="the registration's id")]
_COLUMNS = (
    "registration",
    "kid",
    "algorithm",
    "held_by",
    "state",
    "since",
    "fetches",
    "signs_at",
    "still_needed_by",
    "next_at",
)


@commands.command("list")
def list_keys(*, config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """List all keys, and at how many EHRs each one signs."""
    rows = run(lambda: _list(config, state))
    print_rows(rows if as_json else [_short(row) for row in rows], _COLUMNS, as_json=as_json)


@commands.command("rotate")
def rotate(
    registration: RegistrationArgument,
    *,
    now: Annotated[bool, typer.Option("--now", help="try the new key with the next request, fetched or not")] = False,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a new key into the JWK Set. It takes over by itself, and the old one stays while an EHR needs it."""
    print_rows(run(lambda: _rotate(registration, config, state, now=now)), _COLUMNS, as_json=as_json)


@commands.command("retire", context_settings={"ignore_unknown_options": True})  # a thumbprint may begin with "-"
def retire(
    registration: RegistrationArgument,
    kid: Annotated[str, typer.Argument(help="the key's kid, as listed")],
    *,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a key out of the JWK Set at once, and delete or destroy its private part: when it may be in wrong hands."""
    print_rows(run(lambda: _retire(registration, kid, config, state)), _COLUMNS, as_json=as_json)


async def _list(config: Path | None, state: Path | None) -> list[dict[str, Any]]:
    async with open_session(config, state) as broker:
        rows = []
        for registration in broker.directory.registrations:
            if registration.authentication == "private_key_jwt":
                ring = await broker.rings.find(registration)
                rows += _rows(broker, registration, ring) if ring is not None else []
        return rows


async def _rotate(name: str, config: Path | None, state: Path | None, *, now: bool) -> list[dict[str, Any]]:
    async with open_session(config, state) as broker:
        registration = _signing(broker, name)
        if (await broker.rings.of(registration)).is_rotating:
            raise InvalidRequest(f"a new key of {name} is waiting already. Fix: broker keys list shows it")
        return [_short(row) for row in _rows(broker, registration, await broker.rings.add(registration, seen=now))]


async def _retire(name: str, kid: str, config: Path | None, state: Path | None) -> list[dict[str, Any]]:
    async with open_session(config, state) as broker:
        registration = _signing(broker, name)

        def without(ring: Ring) -> Ring:
            try:
                return ring.without(kid, datetime.now(UTC).timestamp())
            except ValueError as error:
                raise InvalidRequest(str(error)) from None

        ring = await broker.rings.change(registration, without)
        ring = await broker.rings.destroy_retired(registration, ring)
        return [_short(row) for row in _rows(broker, registration, ring)]


def _signing(broker: Broker, name: str) -> RegistrationSettings:
    registration = broker.directory.registration(name)
    if registration.authentication != "private_key_jwt":
        raise InvalidRequest(f"{name} authenticates by {registration.authentication}, so it has no signing key")
    return registration


def _rows(broker: Broker, registration: RegistrationSettings, ring: Ring) -> list[dict[str, Any]]:
    now, waits = datetime.now(UTC).timestamp(), broker.tending.waits(registration)
    due, stuck = broker.tending.due_at(registration, ring), list(ring.stuck(waits, now))

    def row(key: RingKey) -> dict[str, Any]:
        signs = [ehr for ehr in waits if key.is_live and ring.signer(ehr).kid == key.kid]
        return {
            "registration": registration.id,
            "kid": key.kid,
            "algorithm": key.algorithm,
            "held_by": key.reference or ("broker" if key.private is not None else None),
            "state": key.state,
            "since": _when(key.since),
            "fetches": key.fetches,
            "signs_at": signs,
            "still_needed_by": [ehr for ehr in stuck if ehr in signs],
            "next_at": _when(due) if due is not None and key == ring.newest else None,
        }

    return [row(key) for key in reversed(ring.keys)]


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row for people: how many EHRs, not which."""
    counts = {name: f"{len(row[name])} EHRs" if row[name] else None for name in ("signs_at", "still_needed_by")}
    return {**row, **counts}


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
