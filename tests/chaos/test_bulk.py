from pathlib import Path

from tests.chaos import bulk


async def test_an_export_ends_complete_though_tokens_end_and_the_broker_is_killed(tmp_path: Path) -> None:
    """(BD-09) (PX-12) (NC-19). `./run chaos bulk` does it with a gigabyte."""
    outcome = await bulk.prove(tmp_path, files=4, lines=8 << 10, lifetime=2, rest=0.2)

    assert outcome.broken == []
    assert (outcome.results["megabytes"], outcome.results["restarts"]) == (32, 2)
