"""A busy machine must not decide whether a store is away."""

import pytest

from broker.store import pool


@pytest.fixture(autouse=True)
def _patient_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("WAIT_SECONDS", "CONNECT_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(pool, limit, 10.0)
