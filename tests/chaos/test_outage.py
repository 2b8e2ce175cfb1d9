from pathlib import Path

import pytest

from tests.chaos import outage


async def test_brokers_refuse_cleanly_while_redis_is_gone_and_go_on_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RF-05. `./run chaos outage` does it for half a minute."""
    monkeypatch.setattr(outage, "SLACK_SECONDS", 2.0)  # other tests want their share of the machine
    monkeypatch.setattr(outage, "RECOVERED_SECONDS", 1.5)
    outcome = await outage.prove(tmp_path, rounds=1, seconds=2.5, readers=2)

    assert outcome.broken == []
    assert outcome.results["refused"] > 0
