"""The rights that docs/deploy/users.acl and docs/operations.md give the broker."""

import re
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parents[2] / "docs"
PASSWORD: Final = "brokers-own-password"
ADDED: Final = dict(re.findall(r"^- (.+): `(\+[^`]+)`$", (DOCS / "operations.md").read_text(), re.MULTILINE))
"""What is added, by what it is added for."""
SENTINEL: Final = "behind sentinels"
CLUSTER: Final = "in a cluster"
REPLICA: Final = "with `BROKER_REDIS_DURABILITY=replica`"
DISK: Final = "with `BROKER_REDIS_DURABILITY=disk`"


def broker(*reasons: str) -> str:
    """Return the line of the broker's user, with what is added for `reasons`."""
    (line,) = re.findall(r"^user broker .*$", (DOCS / "deploy/users.acl").read_text(), re.MULTILINE)
    return " ".join((line, *(ADDED[reason] for reason in reasons), f">{PASSWORD}"))
