"""`broker vault`: the keys that what is stored is sealed under: seen, replaced, destroyed."""

import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from broker.app.vault import VaultWork, open_vault
from broker.cli.session import ConfigOption, JsonOption, StateOption, print_rows, read_deployment, read_settings, run
from broker.errors import ConfigurationError
from broker.flows.rotate_domain_keys import Rotated
from broker.flows.rotate_kek import Rewrapped
from broker.flows.shred import Shredded
from broker.store.clock import StoreClock
from broker.store.connection import NO_STORE, connect
from broker.vault import Domain
from broker.vault.domain_key import DomainKey

commands = typer.Typer(help="The vault: keys that what is stored is sealed under.", no_args_is_help=True)
_COLUMNS: Final = ("tenant", "ehr", "key", "state", "made", "since", "kek", "seals", "records")
_ROTATED: Final = ("tenant", "ehr", "key", "rewrapped", "left", "ended")
MOST_SEALS: Final = 2**32
"""A key that wraps with random nonces should not wrap more often (NIST SP 800-38D §8.3)."""


@commands.command("status")
def status(
    *,
    gone: Annotated[bool, typer.Option("--gone", help="those that were destroyed, too")] = False,
    records: Annotated[bool, typer.Option("--records", help="count what is under each: reads the whole store")] = False,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the key of each EHR, and of what is the tenant's alone: since when it seals, and which KEK wraps it."""
    rows = run(lambda: _status(config, state, gone=gone, count=records))
    _print(rows, _COLUMNS if records else _COLUMNS[:-1], as_json=as_json)


@commands.command("rotate")
def rotate(
    names: Annotated[list[str] | None, typer.Argument(help="EHRs, or the tenant for what is no EHR's")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="all EHRs', and the tenant's own")] = False,
    kek: Annotated[bool, typer.Option("--kek", help="wrap the keys that there are by the current KEK")] = False,
    new_version: Annotated[
        bool, typer.Option("--new-version", help="with --kek: let the KMS make a new version first")
    ] = False,
    leave_unreadable: Annotated[
        bool, typer.Option("--leave-unreadable", help="end the old key although records under it are damaged")
    ] = False,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give EHRs new keys while brokers run: some six minutes, and as long as reading the store takes.

    Every record is put under the new key, then the old one is destroyed. Run again, it goes on where it was cut off.
    Exit 1 when a damaged record keeps an old key.
    """
    if [bool(names), every, kek].count(True) != 1 or (new_version and not kek):
        raise ConfigurationError("name EHRs, or say --all, or say --kek; --new-version goes with --kek")
    if kek:
        _print_rewrapped(run(lambda: _rotate_kek(config, state, new_version=new_version)), as_json=as_json)
        return
    wanted = None if every else names
    rotations = run(lambda: _rotate(wanted, config, state, leave_unreadable=leave_unreadable))
    _print([_rotated(one) for one in sorted(rotations, key=lambda one: str(one.domain))], _ROTATED, as_json=as_json)
    for name in [name for one in rotations for name in one.unreadable]:
        _tell(f"unreadable: {name}")
    if not all(one.is_complete for one in rotations):
        _tell("an old key stays, as records under it are damaged. Fix: delete those, or --leave-unreadable")
        raise typer.Exit(1)


@commands.command("verify")
def verify(*, config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Open every sealed record and change nothing. Exit 1 when one is unreadable; those are named as they are found."""
    readable, unreadable = run(lambda: _verify(config, state))
    kinds = sorted(readable | unreadable)
    rows = [{"kind": kind, "readable": readable[kind], "unreadable": unreadable[kind]} for kind in kinds]
    _print(rows, ("kind", "readable", "unreadable"), as_json=as_json)
    if unreadable:
        raise typer.Exit(1)


@commands.command("shred")
def shred(
    *,
    ehr: Annotated[str | None, typer.Option("--ehr", help="what is sealed for this EHR")] = None,
    tenant: Annotated[bool, typer.Option("--tenant", help="everything, for all EHRs and for none")] = False,
    yes: Annotated[
        str, typer.Option("--yes", help="the name of what is shredded, once more: there is no way back")
    ] = "",
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make everything sealed for an EHR unreadable for good, and print a signed certificate of it (a JWS).

    It destroys the keys first, and takes five minutes until no broker has them any more. Run again, it goes on.
    """
    if (ehr is None) is not tenant:
        raise ConfigurationError("say --ehr EHR, or --tenant")
    done, certificate = run(lambda: _shred(ehr or "", yes, config, state))
    if as_json:
        print(json.dumps({"certificate": certificate, "keks_left": done.keks_left}, indent=2))
    else:
        print(certificate)
    for line in _remaining(done):
        _tell(line)


async def _status(config: Path | None, state: Path | None, *, gone: bool, count: bool) -> list[dict[str, Any]]:
    async with _open(config, state) as (tenant, work):
        found = [(key, seals) async for key, seals in work.records.all(tenant) if gone or key.state != "gone"]
        found.sort(key=lambda one: (str(one[0].domain), one[0].created_at))
        under: Counter[bytes | None] = Counter()
        if count:
            async for batch in work.inventory.batches():
                under.update(record.key_id for record in batch)
        rows = [{**_row(key), "seals": seals} | ({"records": under[key.id]} if count else {}) for key, seals in found]
    for key, seals in found:
        if seals > MOST_SEALS // 2:
            _tell(f"{key.domain}: key {key.id.hex()} has sealed {seals} times. Fix: broker vault rotate")
    return rows


async def _rotate(
    names: Sequence[str] | None, config: Path | None, state: Path | None, *, leave_unreadable: bool
) -> Sequence[Rotated]:
    async with _open(config, state) as (tenant, work):
        domains = None if names is None else {Domain(tenant, "" if name == tenant else name) for name in names}
        return await work.rotate(domains, _tell, leave_unreadable=leave_unreadable)


async def _rotate_kek(config: Path | None, state: Path | None, *, new_version: bool) -> Rewrapped:
    async with _open(config, state) as (_, work):
        return await work.rotate_kek(_tell, new_version=new_version)


async def _verify(config: Path | None, state: Path | None) -> tuple[Counter[str], Counter[str]]:
    async with _open(config, state) as (_, work):
        verified = await work.verify(lambda name, why: _tell(f"unreadable: {name}: {why}"))
        return verified.readable, verified.unreadable


async def _shred(ehr: str, yes: str, config: Path | None, state: Path | None) -> tuple[Shredded, str]:
    async with _open(config, state) as (tenant, work):
        if yes != (name := ehr or tenant):
            keys = [key async for key, _ in work.records.all(tenant) if ehr in {"", key.domain.ehr}]
            raise ConfigurationError(
                f"this makes everything unreadable that is sealed under {len(keys)} keys of {name}, for good: "
                f"grants end, people launch again. If that is meant, say --yes {name}"
            )
        return await work.shred(ehr, _tell)


def _remaining(done: Shredded) -> list[str]:
    """Say what a shred cannot reach: copies of the store from before, beside the KEK of then."""
    if not done.keks_left:
        return []
    lines = [
        "a copy of Redis or a backup from before is still read by whoever has it and the KEK of then.",
        f"Fix: let these leave every copy of the keyring: {', '.join(done.keks_left)}",
    ]
    if done.others:
        lines.append(f"They wrap {done.others} other keys: put a new line first, and broker vault rotate --kek")
    return lines


@asynccontextmanager
async def _open(config: Path | None, state: Path | None) -> AsyncIterator[tuple[str, VaultWork]]:
    deployment, settings, kek = read_settings(read_deployment(config, state))
    if deployment.redis_url is None:
        raise ConfigurationError(NO_STORE)
    redis, clock = (
        connect(deployment.redis_url, client_name="broker-vault", durability=deployment.durability),
        StoreClock(),
    )
    try:
        await clock.measure(redis)
        async with open_vault(settings, redis=redis, kek=kek, audit_file=deployment.audit_file, clock=clock) as work:
            yield settings.tenant, work
    finally:
        await kek.close()
        await redis.aclose()


def _row(key: DomainKey) -> dict[str, Any]:
    return {
        "tenant": key.domain.tenant,
        "ehr": key.domain.ehr or None,
        "key": key.id.hex(),
        "state": key.state if key.ended_by is None else f"{key.state} ({key.ended_by})",
        "made": _when(key.created_at),
        "since": _when(key.since),
        "kek": key.wrapped.kek if key.wrapped is not None else None,
        "keks": list(key.keks),
    }


def _rotated(one: Rotated) -> dict[str, Any]:
    return {
        "tenant": one.domain.tenant,
        "ehr": one.domain.ehr or None,
        "key": one.new.id.hex(),
        "rewrapped": one.moved,
        "left": len(one.unreadable),
        "ended": [key.id.hex() for key in one.old] if one.is_complete else [],
    }


def _print_rewrapped(done: Rewrapped, *, as_json: bool) -> None:
    said = {"rewrapped": done.moved, "left": done.left, "keks": sorted(done.current), "free": sorted(done.earlier)}
    if as_json:
        print(json.dumps(said, indent=2))
        return
    print(f"{done.moved} keys rewrapped, {done.left} left under another KEK than {', '.join(sorted(done.current))}")
    for kek in sorted(done.earlier):
        print(f"{kek} wraps nothing in the store any more; backups from before need it")


def _print(rows: list[dict[str, Any]], columns: tuple[str, ...], *, as_json: bool) -> None:
    """Print a listing in which a nought is a nought."""
    shown = rows if as_json else [{name: "0" if value == 0 else value for name, value in row.items()} for row in rows]
    print_rows(shown, columns, as_json=as_json)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
