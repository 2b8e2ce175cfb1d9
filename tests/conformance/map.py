"""`docs/smart-conformance.md`: what shows each requirement. Written by `./run python -m tests.conformance.map`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.conformance.requirements import SANDBOX, Group, Requirement, citations, groups, reasons

PAGE: Final = Path("docs/smart-conformance.md")
INTRODUCTION: Final = """\
# Conformance to SMART

What SMART App Launch 2.2, Backend Services, the OAuth and JOSE RFCs and the vendors ask of a token broker, and the
tests that show it. The rules are in our own words; the ids are those that code and tests cite. "(server)" in a level
marks what binds an EHR: the simulated EHR keeps it, or breaks it on purpose, and the broker survives both.

This page is generated from the docstrings of the tests by `./run python -m tests.conformance.map`; a test checks that
it is current, and that every requirement has a test or a reason.

Levels: those of the specification; `vendor`, what an EHR does; `design`, what follows for a broker; `reference`,
nothing to obey. How shown: `journey`, an app, the broker and the simulated EHR as processes on one machine;
`refusal`, the same with somebody who misbehaves; `part`, one part of the broker; `simulated EHR`, a test of that.
"""
WAYS: Final = {
    "tests/stories/": "journey",
    "tests/clients/": "journey",
    "tests/onc/": "journey",
    "tests/commands/": "journey",
    "tests/leaks/": "journey",
    "tests/refusals/": "refusal",
    "tests/fuzz/": "refusal",
    SANDBOX: "simulated EHR",
}


def page() -> str:
    """Return what `docs/smart-conformance.md` should be."""
    cited, excused = citations(), reasons()
    summary = "\n".join(_summary(group, cited, excused) for group in groups())
    chapters = "".join(_chapter(group, cited, excused) for group in groups())
    head = "| Requirements | Number | Tested | Not tested, with reason |\n| --- | --- | --- | --- |\n"
    return f"{INTRODUCTION}\n{head}{summary}\n{chapters}"


def _summary(group: Group, cited: Mapping[str, tuple[str, ...]], excused: Mapping[str, str]) -> str:
    anchor = "".join(letter for letter in group.title.lower().replace(" ", "-") if letter.isalnum() or letter == "-")
    tested = sum(one.shown_by(cited.get(one.id, ())) and one.id not in excused for one in group.requirements)
    reasoned = sum(one.id in excused for one in group.requirements)
    return f"| [{group.title}](#{anchor}) | {len(group.requirements)} | {tested} | {reasoned} |"


def _chapter(group: Group, cited: Mapping[str, tuple[str, ...]], excused: Mapping[str, str]) -> str:
    rows = "".join(_row(one, cited.get(one.id, ()), excused.get(one.id)) for one in group.requirements)
    return f"\n## {group.title}\n\n| Id | Level | Rule | How shown | Tests |\n| --- | --- | --- | --- | --- |\n{rows}"


def _row(one: Requirement, tests: tuple[str, ...], reason: str | None) -> str:
    ways = ", ".join(dict.fromkeys(map(_way, tests)))
    how = reason or (ways if one.shown_by(tests) else "**not shown**")
    listed = "<br>".join(f"`{test}`" for test in tests)
    cells = (one.id, one.level, one.rule.replace("|", "\\|"), how, listed)
    return f"| {' | '.join(cells)} |\n".replace("|  |", "| |")


def _way(test: str) -> str:
    return next((way for folder, way in WAYS.items() if test.startswith(folder)), "part")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
