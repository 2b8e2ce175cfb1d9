"""One broker for a module: what is sent to it here leaves nothing behind that the next request minds."""

import logging
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from broker.store.embedded import EmbeddedServer
from tests.fuzz.target import Target, running_target
from tests.stage import Sandbox

A_BUSY_MACHINE = "audit_stream_behind"
"""The copy of the audit trail waits for a store that is slow; no answer depends on it."""


@pytest.fixture(scope="module")
def target(
    sandbox_process: Sandbox, valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    sandbox_process.reset()
    with running_target(sandbox_process, valkey, tmp_path_factory.mktemp("fuzz")) as target:
        yield target


@pytest.fixture(autouse=True)
def nothing_unforeseen(caplog: pytest.LogCaptureFixture, target: Target) -> Iterator[None]:
    """The broker logs no trouble of its own meanwhile, uvicorn no exception, and neither logs a secret."""
    with capture_logs() as lines:
        yield
    trouble = [line for line in lines if line["log_level"] in {"warning", "error", "critical"}]
    assert [line for line in trouble if line["event"] != A_BUSY_MACHINE] == []
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    logged = f"{lines}\n{caplog.text}"
    assert not [secret for secret in target.secrets if secret in logged]
