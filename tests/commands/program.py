"""Run the `broker` command as a process of its own."""

import asyncio
import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


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
    heard: list[Said] = field(default_factory=list)

    def but(self, **changes: str | None) -> "Operator":
        """The same with variables set, or (None) not set."""
        kept = {name: text for name, text in self.environ.items() if name not in changes}
        return replace(self, environ=kept | {name: text for name, text in changes.items() if text is not None})

    async def start(
        self, *arguments: str, pass_fds: tuple[int, ...] = (), stdin: bool = False
    ) -> asyncio.subprocess.Process:
        """Start `broker` and leave it running; with `stdin`, for something to be said to it."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "broker",
            *arguments,
            cwd=self.home,
            env=self.environ,
            stdin=asyncio.subprocess.PIPE if stdin else None,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=pass_fds,
        )

    async def run(self, *arguments: str) -> Said:
        """Run `broker` to its end; it never ends with a traceback."""
        return await self.hear(await self.start(*arguments))

    async def hear(self, process: asyncio.subprocess.Process, told: bytes | None = None) -> Said:
        """Say `told` to it, if it was started for that, and wait for a process to end, killing it after 20 seconds."""
        try:
            async with asyncio.timeout(20):
                out, err = await process.communicate(told)
        except TimeoutError:
            process.kill()
            raise
        said = Said(process.returncode or 0, out.decode(), err.decode())
        assert "Traceback" not in said.out + said.err, said
        self.heard.append(said)
        return said
