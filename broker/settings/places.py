"""Where in `broker.toml` a fault stands: tables and keys of the parsed file, found again as lines of its text."""

import re
from itertools import chain
from typing import Final

Place = tuple[str | int, ...]
"""Keys and indexes from the top of the file."""
_HEADER: Final = re.compile(r"\s*\[+\s*[\w\"'.-]+\s*\]")


def name_of(place: Place) -> str:
    """Return the place as a path of keys, such as `app[2].access[1].scopes`."""
    return ".".join(f"[{part + 1}]" if isinstance(part, int) else part for part in place).replace(".[", "[")


def line_of(text: str, place: Place) -> int:
    """Find the line of a key: the n-th `[[table]]` header along the path, then the key below it.

    A key that is not there is reported at its table's header, or at line 1 of the file.
    """
    lines = text.splitlines()
    start, path = 0, ""
    for part, following in zip(place, [*place[1:], None], strict=True):
        if isinstance(part, int):
            continue
        path = f"{path}.{part}" if path else part
        if isinstance(following, int):
            header = re.compile(rf"\s*\[\[\s*{re.escape(path)}\s*\]\]")
            found = [i for i, line in enumerate(lines) if i >= start and header.match(line)]
            start = found[following] if following < len(found) else _key_line(lines, start, path, part)
        else:
            start = _key_line(lines, start, path, part)
    return start + 1


def _key_line(lines: list[str], start: int, path: str, key: str) -> int:
    assignment, header = re.compile(rf"\s*{re.escape(key)}\s*="), re.compile(rf"\s*\[+\s*{re.escape(path)}\s*\]")
    end = next((i for i in range(start + 1, len(lines)) if _HEADER.match(lines[i])), len(lines))
    in_table = (i for i in range(start, end) if assignment.match(lines[i]))
    as_table = (i for i in range(start, len(lines)) if header.match(lines[i]))
    return next(chain(in_table, as_table), start)
