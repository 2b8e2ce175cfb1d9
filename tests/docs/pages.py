"""How the tests read the documentation: pages, sections, tables, code in cells."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """Return what stands under a heading, up to the next one of its level or above."""
    level = heading.partition(" ")[0]
    rest = text.split(f"\n{heading}\n", 1)[1]
    return re.split(rf"\n#{{1,{len(level)}}} ", rest, maxsplit=1)[0]


def rows(text: str, header: str) -> list[list[str]]:
    """Return the cells of the one table whose header line begins like this."""
    lines = text.split(f"\n| {header} |", 1)[1].splitlines()[2:]
    table = []
    for line in lines:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split(" | ")])
    assert table, f"the table {header!r} is empty"
    return table


def code(cell: str) -> str:
    """Return the first `code` in a cell."""
    return str(re.findall(r"`([^`]+)`", cell)[0])
