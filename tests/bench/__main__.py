"""`./run bench [NAME]`: the last line printed is one JSON object with `bench`, `machine` and `results`."""

import asyncio
import json
import os
import platform
import sys

from tests.bench import proxy, refresh, vault

BENCHES = {"proxy": proxy.measure, "refresh": refresh.measure, "vault": vault.measure}


def main() -> None:
    """Run one bench, or say which there are."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in BENCHES:
        print("usage: ./run bench NAME")
        for known, measure in BENCHES.items():
            print(f"  {known:<8} {(measure.__doc__ or '').splitlines()[0]}")
        sys.exit(0 if not name else 2)
    results = asyncio.run(BENCHES[name]())
    for label, value in results.items():
        print(f"{label:<40} {value:,.3f}")
    machine = {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
    print(json.dumps({"bench": name, "machine": machine, "results": results}))


if __name__ == "__main__":
    main()
