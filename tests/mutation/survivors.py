"""The mutants that no test can notice, each with the reason why it makes no difference."""

import tomllib
from typing import Final

from tests.mutation.targets import ROOT

FILE: Final = "tests/mutation/survivors.toml"
Key = tuple[str, str, str]
"""File, text of the line, mutation."""


def reasons() -> dict[Key, str]:
    """Read the reasons."""
    tables = tomllib.loads((ROOT / FILE).read_text(encoding="utf-8"))["survivor"]
    return {(table["file"], table["line"], table["mutation"]): table["reason"] for table in tables}
