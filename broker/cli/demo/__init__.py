"""`broker demo`: store, simulated EHR, broker and an app on this machine, and every journey played over real HTTP."""

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from broker.errors import ConfigurationError


def demo(
    *,
    leave: Annotated[bool, typer.Option("--exit", help="end after the journeys instead of staying up")] = False,
    state: Annotated[Path, typer.Option("--state", help="directory for everything the demo writes")] = Path(".broker"),
) -> None:
    """Play an EHR launch, a standalone launch, a backend read, a refresh and a revoke, then look for leaks."""
    began = time.monotonic()
    try:
        from broker.cli.demo.stage import open_stage  # noqa: PLC0415  # needs the demo extra
        from broker.cli.demo.story import play  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            f"the demo needs the package {error.name}. Fix: ./run demo, or pip install '…[demo]'"
        ) from None
    # Both end the demo in order, so that what it started ends too; a shell may have started us with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with open_stage(state) as stage:
            leaks = asyncio.run(play(stage, began=began, stay=not leave))
    except KeyboardInterrupt:
        print("\ndemo: ended")
        return
    if leaks:
        print(f"demo: {leaks} leaks", file=sys.stderr)
        sys.exit(1)
    if leave:
        print("demo: ok")
