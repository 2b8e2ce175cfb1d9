"""The `broker` command as an operator has it: a program with an environment, beside a broker that serves."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from broker.store.embedded import EmbeddedServer
from tests.commands.nursery import Nursery, nursery
from tests.commands.program import Operator
from tests.stage import BrokerStage
from tests.stage.broker import KEY


def write_private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture(scope="session")
def running_nursery() -> Iterator[Nursery]:
    with nursery() as running:
        yield running


@pytest.fixture
def operator(valkey: EmbeddedServer, redis: Redis, tmp_path: Path, running_nursery: Nursery) -> Operator:
    """An operator with an empty store and a key, and a `broker.toml` still to be written."""
    home = tmp_path / "operator"
    home.mkdir()
    environ = {
        "PATH": os.environ["PATH"],
        "BROKER_PORT": "0",
        "BROKER_CONFIG": str(home / "broker.toml"),
        "BROKER_STATE": str(home),
        "BROKER_REDIS_URL_FILE": str(write_private(home / "redis-url", valkey.url().reveal())),
        "BROKER_KEK_FILE": str(write_private(home / "kek", base64.b64encode(KEY).decode())),
    }
    return Operator(home, environ, running_nursery)


@pytest.fixture
async def at_stage(operator: Operator, stage: BrokerStage) -> Operator:
    """The same with the stage's `broker.toml`."""
    (operator.home / "broker.toml").write_text((stage.state / "broker.toml").read_text())
    return operator
