"""The requirements, the tests that cite them, and the reasons where there is no test.

A test cites a requirement by its id, `TK-07` or `Q1`, in its docstring. A requirement on servers alone may be shown by
the simulated EHR; what the broker has to do is shown by a test of the broker.
"""

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
HERE: Final = Path(__file__).parent
SANDBOX: Final = "tests/sandbox/"

ID: Final = re.compile(r"\b(?:[A-Z]{2}-\d{2}|Q\d{1,2})\b")
RANGE: Final = re.compile(rf"{ID.pattern}\s*(?:…|\.\.\.?|–|-|to|through)\s*{ID.pattern}")


def has_test_of_the_broker(tests: tuple[str, ...]) -> bool:
    """Whether not all of them are tests of the simulated EHR."""
    return not all(test.startswith(SANDBOX) for test in tests)


@dataclass(frozen=True)
class Requirement:
    """What is asked, how strictly, in our own words."""

    id: str
    level: str
    rule: str

    @property
    def of_servers(self) -> bool:
        """Whether it binds EHRs and not the broker as their client."""
        return "(server)" in self.level

    def shown_by(self, tests: tuple[str, ...]) -> bool:
        """Whether one of the tests that cite it is a test of who has to do it."""
        return bool(tests) if self.of_servers else has_test_of_the_broker(tests)


@dataclass(frozen=True)
class Group:
    """A chapter."""

    title: str
    requirements: tuple[Requirement, ...]


def groups() -> tuple[Group, ...]:
    """Read `requirements.toml`."""
    document = tomllib.loads((HERE / "requirements.toml").read_text(encoding="utf-8"))
    return tuple(
        Group(group["title"], tuple(Requirement(*rule) for rule in group["rules"])) for group in document["group"]
    )


def requirements() -> tuple[Requirement, ...]:
    """Return the requirements of all groups."""
    return tuple(requirement for group in groups() for requirement in group.requirements)


def reasons() -> Mapping[str, str]:
    """Read `reasons.toml`: why nothing tests a requirement."""
    return tomllib.loads((HERE / "reasons.toml").read_text(encoding="utf-8"))


@cache
def docstrings() -> tuple[tuple[str, str], ...]:
    """Return each test that has a docstring as `file::test`, with the docstring."""
    return tuple(_docstrings())


def _docstrings() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
                continue
            if text := ast.get_docstring(node):
                yield f"{path.relative_to(ROOT).as_posix()}::{node.name}", text


def citations() -> Mapping[str, tuple[str, ...]]:
    """Return the tests that cite each id, whether or not there is such a requirement."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for test, text in docstrings():
        for id_ in dict.fromkeys(ID.findall(text)):
            found[id_].append(test)
    return {id_: tuple(tests) for id_, tests in found.items()}
