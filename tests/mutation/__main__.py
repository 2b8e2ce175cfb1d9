"""`./run python -m tests.mutation [FILE|FOLDER…]`: break the code that decides, and see whether a test notices.

Prints what survives, and one JSON object. The status is 1 if a mutant survives without a reason in `survivors.toml`.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter

import pydantic  # noqa: F401  # what every test imports is imported once, before the forks
import structlog  # noqa: F401  # as above

from tests.mutation.running import fates
from tests.mutation.survivors import reasons
from tests.mutation.targets import TARGETS, files


def main() -> None:
    """Run the mutants of the files that were named, of all if none was."""
    parser = argparse.ArgumentParser(prog="./run python -m tests.mutation", description=__doc__)
    parser.add_argument("target", nargs="*", help=f"a file, or one of {', '.join(TARGETS)}")
    parser.add_argument("--fast", action="store_true", help="do not try again what survives the fast way")
    given = parser.parse_args()
    chosen = files(given.target)
    os.nice(10)
    began, known, total = time.monotonic(), reasons(), Counter[str]()
    for file in chosen:
        counts = Counter[str]()
        for mutant, fate in fates(file, known, sure=not given.fast):
            if fate == "survived":
                print(f"{mutant.file}:{mutant.number}: {mutant.line}\n    {mutant.mutation}", flush=True)
            counts[fate] += 1
        total += counts
        print(f"{file}: {dict(counts)}, {time.monotonic() - began:.0f} s", flush=True)
    print(json.dumps({"mutation": chosen, "seconds": round(time.monotonic() - began), "results": total}))
    sys.exit(1 if total["survived"] else 0)


if __name__ == "__main__":
    main()
