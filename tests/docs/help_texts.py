"""The command line's own words, and `docs/commands.md` made from them: `./run python -m tests.docs.help_texts`."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from unittest import mock

from broker.cli import main

COMMANDS = Path("docs/commands.md")
INTRODUCTION = """\
# Commands

In a checkout, `./run broker …`; installed, `broker …`;
in the container, `docker compose exec broker python -m broker …`.

Commands need what `broker serve` needs: `broker.toml`, the store and the key, see
[configuration](configuration.md#environment-variables); `apps secret` needs nothing. Where a demo runs under the state
directory and no store is set, `apps list`, `grants` and `handles` take the demo's. No command prints a raw token or a
handle. Exit status: 0, 1 for an error, 2 for a wrong command line, 78 for a fault in the configuration.
"""
_LISTED = re.compile(r"^  ([a-z]+)(?:  .*)?$", re.MULTILINE)


def help_texts(*command: str) -> Iterator[tuple[str, str]]:
    """Yield each command with its help, as on a terminal of 80 columns, groups before what is in them."""
    text = _help(command)
    yield " ".join(("broker", *command)), text
    for name in _LISTED.findall(text.partition("Commands:\n")[2]):
        yield from help_texts(*command, name)


def page() -> str:
    """Return what `docs/commands.md` should be."""
    sections = (f"\n## {command}\n\n```text\n{text}```\n" for command, text in help_texts())
    return INTRODUCTION + "".join(sections)


def _help(command: tuple[str, ...]) -> str:
    printed = io.StringIO()
    with (
        mock.patch.dict(sys.modules, {"__main__": ModuleType("__main__")}),  # as the installed `broker` names itself
        mock.patch.object(sys, "argv", ["broker", *command, "--help"]),
        mock.patch.dict(os.environ, {"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        main()
    return "".join(line.rstrip() + "\n" for line in printed.getvalue().splitlines())


if __name__ == "__main__":
    COMMANDS.write_text(page(), encoding="utf-8")
