from pathlib import Path

from tests.chaos import stop


async def test_a_broker_that_stood_still_does_not_lose_the_answer_in_its_hand(tmp_path: Path) -> None:
    """RF-05. `./run chaos stop` lets leases run out by themselves, and stops brokers everywhere."""
    outcome = await stop.prove_shortly(tmp_path)

    assert outcome.broken == []
    assert outcome.results == {"rounds": 1, "kept": 1, "told": 0, "refused_writes": 0, "reuse_alarms": 0}
