"""`./run chaos [NAME] [--rounds N] [--seed S]`: the last line is one JSON object, the status says if all held."""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

from tests.chaos import bulk, clocks, failover, herd, kill, machine, outage, rotate, stop
from tests.chaos.outcome import Outcome

Proof = Callable[[Path, int, int], Coroutine[None, None, Outcome]]

PROOFS: dict[str, tuple[int, Proof]] = {
    "kill": (200, lambda folder, rounds, seed: kill.prove(folder, rounds=rounds, seed=seed)),
    "herd": (3, lambda folder, rounds, _: herd.prove(folder, rounds=rounds)),
    "stop": (24, lambda folder, rounds, _: stop.prove(folder, rounds=rounds)),
    "outage": (2, lambda folder, rounds, _: outage.prove(folder, rounds=rounds)),
    "sentinel": (3, lambda folder, rounds, _: failover.prove(folder, "sentinel", rounds=rounds)),
    "cluster": (3, lambda folder, rounds, _: failover.prove(folder, "cluster", rounds=rounds)),
    "clocks": (4, lambda folder, rounds, _: clocks.prove(folder, rounds=rounds)),
    "machine": (1500, lambda folder, rounds, seed: machine.prove(folder, rounds=rounds, seed=seed)),
    "rotate": (1, lambda folder, *_: rotate.prove(folder)),
    "bulk": (1, lambda folder, *_: bulk.prove(folder)),
}
"""By name: how many rounds there are, if nobody says, and what is run."""


def main() -> None:
    """Run one proof, or all."""
    parser = argparse.ArgumentParser(prog="./run chaos", description=__doc__)
    parser.add_argument("name", nargs="?", choices=PROOFS, help="which one (default: all)")
    parser.add_argument("--rounds", type=int, help="how many rounds")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the rounds (default: %(default)s)")
    asked = parser.parse_args()
    ran = {name: _run(name, asked.rounds, asked.seed) for name in ([asked.name] if asked.name else PROOFS)}
    results = {f"{name}.{label}": value for name, outcome in ran.items() for label, value in outcome.results.items()}
    broken = [f"{name}: {sentence}" for name, outcome in ran.items() for sentence in outcome.broken]
    machine = {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
    print(json.dumps({"chaos": asked.name or "all", "machine": machine, "results": results, "broken": broken}))
    sys.exit(1 if broken else 0)


def _run(name: str, rounds: int | None, seed: int) -> Outcome:
    usual, prove = PROOFS[name]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcome = asyncio.run(prove(Path(folder), rounds or usual, seed))
    outcome.results["took_seconds"] = round(time.monotonic() - began, 1)
    for label, value in outcome.results.items():
        print(f"{name:<8} {label:<40} {value:>10,.1f}", flush=True)
    for sentence in outcome.broken:
        print(f"{name:<8} BROKEN: {sentence}", flush=True)
    return outcome


if __name__ == "__main__":
    main()
