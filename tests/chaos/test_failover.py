from pathlib import Path

import pytest

from tests.chaos import failover


async def test_a_primary_that_dies_among_refreshes_costs_no_grant_and_no_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RF-05. `./run chaos sentinel` and `./run chaos cluster` look for longer."""
    for name, seconds in {
        "LIFETIME_SECONDS": 2,
        "BEFORE_SECONDS": 1.0,
        "AFTER_SECONDS": 1.5,
        "SLACK_SECONDS": 2.0,
    }.items():
        monkeypatch.setattr(failover, name, seconds)  # other tests want their share of the machine
    outcome = await failover.prove(tmp_path, "sentinel", rounds=1, grants=2)

    assert outcome.broken == []
