"""The runner makes the faults it should, and every written reason is of a fault that can still be made."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation.mutants import mutants_of
from tests.mutation.survivors import reasons
from tests.mutation.targets import ROOT, TARGETS, files, watchers_of


@pytest.mark.parametrize(
    ("code", "made"),
    [
        ("def f(x): return x", ["return None", "return True", "return False"]),
        ("def f(x) -> bool: return x", ["return True", "return False"]),
        ("y = x == 1", ["Eq → NotEq", "1 → 2", "1 → 0"]),
        ("y = x in z", ["In → NotIn"]),
        ("y = x <= z", ["LtE → Lt"]),
        ("y = a and b", ["a and b: or", "drop a", "drop b"]),
        ("y = a or b or c", ["a or b or c: and", "drop a", "drop b", "drop c"]),
        ("y = not a", ["drop not before a"]),
        ("y = a | b", ["left of a | b", "right of a | b", "BitOr → BitAnd"]),
        ("y = a if b else c", ["True if", "False if"]),
        ("y = any(x)", ["any → all"]),
        ("y = {a for a in b if c}", ["if c → if True"]),
        ("if a:\n    f()", ["if True", "if False", "drop expr"]),
        ("raise f()", ["drop raise"]),
        ("y += x", ["drop augassign"]),
        ("y = 'a'", ["'a' → 'a~x'"]),
        ("y = True", ["True → False"]),
        ("match a:\n    case 1 if b: pass", ["drop case", "case if b → case if True", "1 → 2", "1 → 0"]),
        ('"""Text."""', []),
        ("y: int = x", []),
        ("import a", []),
        ("__all__ = ['a']", []),
        ("T = TypeVar('T')", []),
        ("refuse('a')", ["drop expr"]),
        ("raise InsufficientScope(f'a {b}', public='c')", ["drop raise"]),
        ("y = field(repr=False, compare=False)", []),
    ],
)
def test_every_place_is_broken_in_every_way(tmp_path: Path, code: str, made: list[str]) -> None:
    (tmp_path / "module.py").write_text(code)
    assert sorted(mutant.mutation for mutant in mutants_of("module.py", tmp_path)) == sorted(made)


def test_a_mutant_differs_in_its_fault_alone(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("a = 1\nb = [a == 1, a == 1]\n")
    found = {}
    for mutant in mutants_of("module.py", tmp_path):
        names: dict[str, object] = {}
        exec(mutant.code, names)  # noqa: S102  # a mutant is there to be run
        found[mutant.line, mutant.mutation] = names["b"]

    assert found["a = 1", "1 → 2"] == [False, False]
    assert found["b = [a == 1, a == 1]", "Eq → NotEq"] == [False, True]
    assert found["b = [a == 1, a == 1]", "Eq → NotEq (2)"] == [True, False]


def test_every_reason_is_of_a_fault_that_can_be_made() -> None:
    known = reasons()
    made = {
        (mutant.file, mutant.line, mutant.mutation)
        for file in sorted({file for file, _, _ in known})
        for mutant in mutants_of(file, ROOT)
    }
    assert known.keys() - made == set()
    assert all(len(reason) > 10 for reason in known.values())


def test_the_faults_of_a_small_module_are_noticed_the_fast_way() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.mutation", "--fast", "broker/limits/arrival.py"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    made = len(list(mutants_of("broker/limits/arrival.py", ROOT)))
    assert json.loads(ran.stdout.splitlines()[-1])["results"] == {"killed": made}


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_mutated_has_tests(target: str) -> None:
    for file in files([target]):
        assert all((ROOT / test).exists() for test in watchers_of(file)), file
