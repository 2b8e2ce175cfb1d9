"""`broker backup`: copies of what cannot be made again. A backup holds nothing in the clear."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from broker.app.backups import Backups, open_backups
from broker.cli.session import ConfigOption, JsonOption, StateOption, print_rows, read_deployment, read_settings, run
from broker.errors import ConfigurationError
from broker.flows.restore import SHREDDED
from broker.store.connection import NO_STORE, connect

commands = typer.Typer(help="Backups: copies of what cannot be made again.", no_args_is_help=True)
FileArgument = Annotated[Path, typer.Argument(help="the file of the backup")]


@commands.command("create")
def create(
    file: FileArgument, *, config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False
) -> None:
    """Write a backup while the broker runs, into a new file of mode 0600."""
    count = run(lambda: _create(file, config, state))
    if as_json:
        print_rows([{"file": str(file), "records": count}], (), as_json=True)
    else:
        print(f"{file}: {count} records. It opens with today's key-encryption key: keep a copy of that elsewhere.")


@commands.command("verify")
def verify(
    file: FileArgument, *, config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False
) -> None:
    """Read a backup to its end, and change nothing. Exit 1 when it is damaged, was cut, or does not open."""
    found = run(lambda: _verify(file, config, state))
    if as_json:
        print_rows([found], (), as_json=True)
    else:
        print(f"{file}: {found['records']} records, taken at {found['taken_at']}; whole and unchanged")


@commands.command("restore")
def restore(
    file: FileArgument,
    *,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="every broker on this store is stopped")] = False,
) -> None:
    """Put a backup into an empty store; its grants are uncertain until the EHR or an operator has said otherwise."""
    if not yes:
        raise ConfigurationError("stop every broker on this store first, then say --yes")
    counted = run(lambda: _restore(file, config, state))
    if as_json:
        print_rows([counted], (), as_json=True)
    else:
        shredded = counted.pop(SHREDDED, 0)
        print(f"{file}: {sum(counted.values())} records are back. Now start the brokers, and see broker grants list")
        if shredded:
            print(f"{shredded} records are not: their keys were shredded")


@commands.command("restored")
def restored(
    *,
    config: ConfigOption = None,
    state: StateOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="the store was put back, by a snapshot of Redis perhaps")] = False,
) -> None:
    """Say that the store was restored by other means: no refresh token of before is sent unasked from now on."""
    if not yes:
        raise ConfigurationError("this makes all grants of launches uncertain whose refresh tokens rotate: say --yes")
    run(lambda: _call_restored(config, state))
    print("what the store holds now is called restored; running brokers know it within seconds")


async def _create(file: Path, config: Path | None, state: Path | None) -> int:
    async with _open(config, state) as backups:
        with _new_file(file) as out:
            return await backups.back_up(out)


async def _verify(file: Path, config: Path | None, state: Path | None) -> dict[str, str | int]:
    async with _open(config, state) as backups:
        with _reading(file) as source:
            return dict(await backups.restore.verify(source))


async def _restore(file: Path, config: Path | None, state: Path | None) -> dict[str, int]:
    async with _open(config, state) as backups:
        with _reading(file) as source:
            return dict(await backups.restore(source))


async def _call_restored(config: Path | None, state: Path | None) -> None:
    async with _open(config, state) as backups:
        await backups.restore.call_restored()


@asynccontextmanager
async def _open(config: Path | None, state: Path | None) -> AsyncIterator[Backups]:
    deployment, settings, kek = read_settings(read_deployment(config, state))
    if deployment.redis_url is None:
        raise ConfigurationError(NO_STORE)
    redis = connect(deployment.redis_url, client_name="broker-backup")
    try:
        async with open_backups(settings, redis=redis, kek=kek, audit_file=deployment.audit_file) as backups:
            yield backups
    finally:
        await kek.close()
        await redis.aclose()


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Write beside it, and take its name only when all of it is on disk."""
    if path.exists():
        raise ConfigurationError(f"{path} is there already. Fix: another name")
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {os.strerror(error.errno or 0)}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {os.strerror(error.errno or 0)}") from None
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from None
    with file:
        yield file
