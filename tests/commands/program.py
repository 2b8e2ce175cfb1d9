"""Run the `broker` command as a process of its own."""

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Final

from tests.commands.nursery import Nursery

MOST_SECONDS: Final = 20


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Operator:
    """Somebody at a terminal."""

    home: Path
    environ: dict[str, str]
    nursery: Nursery
    heard: list[Said] = field(default_factory=list)

    def but(self, **changes: str | None) -> "Operator":
        """The same with variables set, or (None) not set."""
        kept = {name: text for name, text in self.environ.items() if name not in changes}
        return replace(self, environ=kept | {name: text for name, text in changes.items() if text is not None})

    async def start(self, *arguments: str, pass_fds: tuple[int, ...] = ()) -> asyncio.subprocess.Process:
        """Start `broker` and leave it running."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "broker",
            *arguments,
            cwd=self.home,
            env=self.environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=pass_fds,
        )

    async def run(self, *arguments: str, told: str = "") -> Said:
        """Run `broker` to its end, with `told` at its standard input; it never ends with a traceback."""
        streams = self.nursery.start(arguments, told=told, cwd=self.home, environ=self.environ)
        process_id = int(await asyncio.to_thread(streams[2].readline))
        reading = asyncio.gather(*(asyncio.to_thread(_read_to_its_end, stream) for stream in streams))
        try:
            async with asyncio.timeout(MOST_SECONDS):
                out, err, status = await asyncio.shield(reading)
        except TimeoutError:
            os.kill(process_id, signal.SIGKILL)
            await reading
            raise
        return self._heard(Said(int(status), out.decode(), err.decode()))

    async def hear(self, process: asyncio.subprocess.Process) -> Said:
        """Wait for a process to end, killing it after 20 seconds."""
        try:
            async with asyncio.timeout(MOST_SECONDS):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            raise
        return self._heard(Said(process.returncode or 0, out.decode(), err.decode()))

    def _heard(self, said: Said) -> Said:
        assert "Traceback" not in said.out + said.err, said
        self.heard.append(said)
        return said


def _read_to_its_end(stream: IO[bytes]) -> bytes:
    with stream:
        return stream.read()
