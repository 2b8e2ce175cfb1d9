"""The operations that docs/interactions.md lists are those of the table in the code, row by row."""

from broker.interactions.operations import OPERATIONS, Operation
from tests.docs.pages import read, rows

LEVELS = {"system": "system", "type": "type", "instance": "resource"}


def test_every_operation_is_documented_with_its_levels_methods_and_needs() -> None:
    table = rows(read("docs/interactions.md"), "Operation | At | By | Needs | About one patient")

    assert [tuple(row) for row in table] == [documented(row) for row in OPERATIONS]


def documented(row: Operation) -> tuple[str, ...]:
    levels = ", ".join(word for level, word in LEVELS.items() if level in row.levels)
    return name(row), levels, ", ".join(sorted(row.methods)), needed(row), bound(row)


def name(row: Operation) -> str:
    if row.type != "*":
        return f"`{row.type}/{row.name}`"
    return f"`{row.name}` of all, or of any type" if "system" in row.levels else f"`{row.name}` of any type"


def needed(row: Operation) -> str:
    if row.needs_of_others:
        listed = "what `_type` lists, else on " if "_type" in row.parameters else ""
        return f"`{row.needs}`; `{row.needs_of_others}` on {listed}`*`"
    if row.is_search:
        return f"`{row.needs}`, and what its search parameters reach"
    if row.resources == {"resource"} and row.type == "*":
        return f"`{row.needs}`; `r` on each type that the resource refers to"
    return f"`{row.needs}`"


def bound(row: Operation) -> str:
    if row.bound_by:
        return f"by `{row.bound_by}`"
    return "at a resource" if row.about_patient else ""
