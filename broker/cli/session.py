"""What every command needs first: settings, keys, and a connection to the store."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from broker.app import Broker, open_broker
from broker.errors import ConfigurationError
from broker.kms.opening import open_kek, open_signing
from broker.settings import Deployment, Settings, load
from broker.store.connection import NO_STORE, connect
from broker.store.embedded import running_url
from broker.vault import KeyEncryptionKeys, LocalKeyring
from broker.vault.keyring import read_key_file

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="broker.toml (default: BROKER_CONFIG, or broker.toml here)")
]
StateOption = Annotated[
    Path | None, typer.Option("--state", help="directory of local state (default: BROKER_STATE, or .broker here)")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]
DEMO_KEY_FILE = "kek"
DEMO_CONFIG = "broker.toml"
Result = TypeVar("Result")


def read_deployment(config: Path | None, state: Path | None) -> Deployment:
    """Read the environment, and let the command's options win. Raises `ConfigurationError`."""
    deployment = Deployment.read(os.environ)
    if state is not None:
        moved = deployment.audit_file == deployment.state / "audit.jsonl"
        deployment = replace(
            deployment, state=state, audit_file=state / "audit.jsonl" if moved else deployment.audit_file
        )
    return replace(deployment, config=config) if config is not None else deployment


def read_settings(deployment: Deployment) -> tuple[Deployment, Settings, KeyEncryptionKeys]:
    """Read `broker.toml` and the keys; where a demo runs under the state directory, its own."""
    if deployment.redis_url is None and (url := running_url(deployment.state)) is not None:
        demo = replace(deployment, redis_url=url, config=deployment.state / DEMO_CONFIG)
        return demo, load(demo.config, os.environ), LocalKeyring(read_key_file(deployment.state / DEMO_KEY_FILE))
    kek = open_kek(os.environ)
    return deployment, load(deployment.config, os.environ), kek


@asynccontextmanager
async def open_session(config: Path | None, state: Path | None) -> AsyncIterator[Broker]:
    """Open the broker's rooms without serving."""
    deployment, settings, kek = read_settings(read_deployment(config, state))
    if deployment.redis_url is None:
        raise ConfigurationError(NO_STORE)
    redis = connect(deployment.redis_url, client_name="broker-cli", durability=deployment.durability)
    signing = open_signing(os.environ)
    try:
        async with open_broker(
            settings, redis=redis, kek=kek, signing=signing, audit_file=deployment.audit_file, keep_every=None
        ) as broker:
            yield broker
    finally:
        await signing.close()
        await kek.close()
        await redis.aclose()


def run(work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run one command's coroutine."""
    return asyncio.run(work())


def print_rows(rows: list[dict[str, Any]], columns: tuple[str, ...], *, as_json: bool) -> None:
    """Print a listing as JSON or as aligned columns."""
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = [columns, *(tuple(str(row.get(name, "") or "-") for name in columns) for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if not rows:
        print("(none)", file=sys.stderr)
