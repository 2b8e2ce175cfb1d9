"""Small faults, one at a time: every place in a module where a person could have written something else."""

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, Final

COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.Sub: ast.Add,
    ast.Add: ast.Sub,
}
NAMES: Final = {
    "any": "all",
    "all": "any",
    "issuperset": "issubset",
    "issubset": "issuperset",
    "fullmatch": "match",
    "startswith": "endswith",
    "endswith": "startswith",
}
_TALK: Final = frozenset(
    {
        "InsufficientScope",
        "InvalidHandle",
        "InvalidRequest",
        "InvalidScope",
        "TypeError",
        "UninterpretableInteraction",
        "ValueError",
        "refuse",
    }
)
"""What is called with a text for people: which text makes no difference to what is decided."""
_UNDECIDING: Final = frozenset({"public", "repr", "compare"})
"""Arguments by name that decide nothing: a text for people, and what a dataclass shows and compares itself by."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node hangs: a field of its parent, and the index in it if that is a list."""

    parent: ast.AST
    field: str
    index: int | None = None

    def put(self, node: Any) -> Any:
        """Hang another node there; returns the one that was there."""
        held: Any = self.parent if self.index is None else getattr(self.parent, self.field)
        if self.index is None:
            before = getattr(held, self.field)
            setattr(held, self.field, node)
        else:
            before, held[self.index] = held[self.index], node
        return before


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault in one module."""

    file: str
    """Relative to the repository."""
    number: int
    """The line in the file."""
    line: str
    """The text of that line."""
    mutation: str
    """What was done there, and a number if it was done there more than once."""
    code: CodeType


def mutants_of(file: str, root: Path) -> Iterator[Mutant]:
    """Yield every mutant of a module. Its code is good until the next one is asked for or not: it is compiled."""
    text = (root / file).read_text(encoding="utf-8")
    tree, lines = ast.parse(text), text.splitlines()
    times: Counter[tuple[str, str]] = Counter()
    for place, node, replacement, what in list(_faults(tree)):
        ast.copy_location(replacement, node)
        before = place.put(replacement)
        try:
            code = compile(ast.fix_missing_locations(tree), str(root / file), "exec")
        except (SyntaxError, ValueError):
            continue
        finally:
            place.put(before)
        line = lines[node.lineno - 1].strip()  # type: ignore[attr-defined]  # what is mutated has a line
        times[line, what] += 1
        again = f" ({times[line, what]})" if times[line, what] > 1 else ""
        yield Mutant(file, node.lineno, line, what + again, code)  # type: ignore[attr-defined]  # as above


Fault = tuple[Place, ast.AST, ast.AST, str]


def _faults(tree: ast.AST) -> Iterator[Fault]:
    yes_or_no = {returned for node in ast.walk(tree) for returned in _said_yes_or_no(node)}
    for place, node in _walk(tree):
        match node:
            case ast.Return() if node in yes_or_no:  # None is no, and mypy refuses it
                yield from (fault for fault in _of_statement(place, node) if fault[3] != "return None")
            case ast.stmt():
                yield from _of_statement(place, node)
            case ast.expr():
                yield from _of_expression(place, node)
            case ast.match_case():
                yield from _of_case(node)
            case ast.comprehension(ifs=ifs):
                for index, test in enumerate(ifs):
                    yield Place(node, "ifs", index), test, ast.Constant(True), f"if {_say(test)} → if True"


def _said_yes_or_no(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.FunctionDef) and isinstance(node.returns, ast.Name) and node.returns.id == "bool":
        yield from (inner for inner in ast.walk(node) if isinstance(inner, ast.Return))


def _walk(node: ast.AST) -> Iterator[tuple[Place, ast.AST]]:
    """Yield every node that decides something: no annotations, docstrings, decorators, or texts for people."""
    for field, value in ast.iter_fields(node):
        if field in {"annotation", "returns", "decorator_list", "bases", "type_comment", "format_spec"}:
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and not _is_talk(node, child):
                yield Place(node, field, index), child
                yield from _walk(child)


def _is_talk(parent: ast.AST, child: ast.AST) -> bool:
    if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
        return True
    if isinstance(child, ast.Import | ast.ImportFrom):
        return True
    if isinstance(child, ast.Assign):
        return ast.unparse(child.targets[0]) == "__all__" or ast.unparse(child.value).startswith("TypeVar(")
    if isinstance(child, ast.AnnAssign) and ast.unparse(child.annotation).endswith("TypeAlias"):
        return True
    if isinstance(child, ast.keyword) and child.arg in _UNDECIDING:
        return True
    called = parent.func if isinstance(parent, ast.Call) else None
    return isinstance(called, ast.Name) and called.id in _TALK and isinstance(child, ast.Constant | ast.JoinedStr)


def _of_statement(place: Place, node: ast.stmt) -> Iterator[Fault]:
    nothing = ast.Pass()
    match node:
        case ast.Return(value=ast.expr() as value):
            for constant in (None, True, False):
                if not (isinstance(value, ast.Constant) and value.value is constant):
                    yield place, node, ast.Return(ast.Constant(constant)), f"return {constant}"
        case ast.If(test=test) | ast.While(test=test):
            for constant in (True, False):
                yield Place(node, "test"), test, ast.Constant(constant), f"if {constant}"
        case ast.Raise() | ast.Expr() | ast.AugAssign() | ast.Continue():
            yield place, node, nothing, f"drop {type(node).__name__.lower()}"
        case ast.Assert():
            yield place, node, nothing, "drop assert"


def _of_expression(place: Place, node: ast.expr) -> Iterator[Fault]:  # noqa: C901  # a table, one row per kind
    match node:
        case ast.Compare(ops=ops):
            for index, op in enumerate(ops):
                other = COMPARISONS[type(op)]
                yield Place(node, "ops", index), node, other(), f"{type(op).__name__} → {other.__name__}"
        case ast.BoolOp(op=op, values=values):
            yield from _of_bool_op(place, node, op, values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield place, node, operand, f"drop not before {_say(operand)}"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            yield place, node, left, f"left of {_say(node)}"
            yield place, node, right, f"right of {_say(node)}"
            yield (
                Place(node, "op"),
                node,
                OPERATORS[type(op)](),
                f"{type(op).__name__} → {OPERATORS[type(op)].__name__}",
            )
        case ast.IfExp(test=test):
            for constant in (True, False):
                yield Place(node, "test"), test, ast.Constant(constant), f"{constant} if"
        case ast.Name(id=name) if name in NAMES:
            yield place, node, ast.Name(NAMES[name], node.ctx), f"{name} → {NAMES[name]}"
        case ast.Attribute(attr=name) if name in NAMES:
            yield place, node, ast.Attribute(node.value, NAMES[name], node.ctx), f"{name} → {NAMES[name]}"
        case ast.Constant():
            yield from _of_constant(place, node)


def _of_bool_op(place: Place, node: ast.expr, op: ast.boolop, values: list[ast.expr]) -> Iterator[Fault]:
    other = ast.Or if isinstance(op, ast.And) else ast.And
    yield place, node, ast.BoolOp(other(), values), f"{_say(node)}: {other.__name__.lower()}"
    for index, value in enumerate(values):
        rest = values[:index] + values[index + 1 :]
        yield place, node, ast.BoolOp(op, rest) if rest[1:] else rest[0], f"drop {_say(value)}"


def _of_constant(place: Place, node: ast.Constant) -> Iterator[Fault]:
    match node.value:
        case bool():
            others: list[Any] = [not node.value]
        case int():
            others = [node.value + 1, node.value - 1]
        case str():
            others = [f"{node.value}~x"]
        case bytes():
            others = [node.value + b"~x"]
        case _:
            others = []
    for other in others:
        yield place, node, ast.Constant(other), f"{node.value!r} → {other!r}"


def _of_case(node: ast.match_case) -> Iterator[Fault]:
    if not isinstance(node.pattern, ast.MatchAs) or node.pattern.pattern is not None:
        never = ast.copy_location(ast.Constant(False), node.pattern)
        yield Place(node, "guard"), node.pattern, never, "drop case"
    if node.guard is not None:
        yield Place(node, "guard"), node.guard, ast.Constant(True), f"case if {_say(node.guard)} → case if True"


def _say(node: ast.AST) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 60 else f"{text[:57]}…"
