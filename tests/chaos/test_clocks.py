from pathlib import Path

import pytest

from tests.chaos import clocks


async def test_brokers_whose_clocks_are_wrong_renew_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RF-06, CA-11. `./run chaos clocks` watches for longer."""
    monkeypatch.setattr(clocks, "SLACK_SECONDS", 5.0)  # other tests want their share of the machine
    outcome = await clocks.prove(tmp_path, rounds=1, lifetime=5, grants=2)

    assert outcome.broken == []
