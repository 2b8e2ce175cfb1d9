from pathlib import Path

from broker.store.embedded import EmbeddedServer
from tests.refresh.engine_machine import explore


def test_whatever_happens_no_refresh_token_is_sent_twice_or_lost_by_the_broker(
    valkey: EmbeddedServer, tmp_path: Path
) -> None:
    """RF-03, RF-04, RF-05, RF-15. `./run chaos machine` looks further."""
    explore(valkey.url(), tmp_path, examples=100, steps=12)
