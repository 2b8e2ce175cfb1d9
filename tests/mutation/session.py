"""Mutants, tried fast: the tests are collected once, and each mutant is put in place in a fork of that.

A mutant is put in place by exchanging the function that it is in, or the constants that come out otherwise. It is
tried against the tests that call the function, or any of the module. What survives here is not believed: a test may
have called the function while it was collected. `running.fate_of` tries it again, with everything new.
"""

import ast
import json
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Final

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import settings

from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.targets import ROOT

CPU_SECONDS: Final = 20
EXAMPLES: Final = 60
MEMORY: Final = 4 << 30
"""In bytes: a mutant that fills more is stopped, which fails the test."""
SURVIVED: Final = 0
KILLED: Final = 1
UNFIT: Final = 2
"""There is no function or constant to exchange."""
_SETTINGS: Final = "_hypothesis_internal_use_settings"


class Examples:
    """A plugin for pytest: a test has no more examples than others, whatever it says itself."""

    def pytest_collection_modifyitems(self, items: Sequence[pytest.Item]) -> None:
        """Lower what tests say."""
        for item in items:
            test = getattr(item, "obj", None)
            if isinstance(own := getattr(test, _SETTINGS, None), settings):
                setattr(test, _SETTINGS, settings(own, max_examples=min(own.max_examples, EXAMPLES)))


class Session:
    """A plugin for pytest: instead of running the tests, it tries each mutant of a file against those that matter."""

    def __init__(self, file: str, tell: Callable[[int], object]) -> None:
        self._file, self._tell = file, tell
        self._functions = list(_functions(ast.parse((ROOT / file).read_text(encoding="utf-8"))))

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Tell the status of each mutant, in order."""
        status, written = _in_fork(lambda pipe: os.write(pipe, json.dumps(self._watch(session.items)).encode()))
        if status != SURVIVED:
            return True
        watched = json.loads(written)
        for mutant in mutants_of(self._file, ROOT):
            self._tell(self._try(mutant, session.items, watched))
        return True

    def _watch(self, items: Sequence[pytest.Item]) -> dict[str, list[int]]:
        """Return, by function, the tests that call it, the fastest first. Raises `RuntimeError` where one fails."""
        watched, seconds = defaultdict(list), []
        for number, item in enumerate(items):
            began = time.perf_counter()
            for name in self._called_by(item):
                watched[name].append(number)
            seconds.append(time.perf_counter() - began)
        watched[""] = list(set(chain.from_iterable(watched.values())))
        return {name: sorted(numbers, key=seconds.__getitem__) for name, numbers in watched.items()}

    def _called_by(self, item: pytest.Item) -> set[str]:
        path, called = str(ROOT / self._file), set()

        def trace(frame: FrameType, _event: str, _argument: Any) -> None:
            if frame.f_code.co_filename == path:
                called.add(frame.f_code.co_qualname.partition(".<")[0])

        sys.settrace(trace)
        reports = runtestprotocol(item, nextitem=None, log=False)
        sys.settrace(None)
        if any(report.failed for report in reports):
            raise RuntimeError(item.nodeid)
        return called

    def _try(self, mutant: Mutant, items: Sequence[pytest.Item], watched: dict[str, list[int]]) -> int:
        inside = next((name for first, last, name in self._functions if first <= mutant.number <= last), "")

        def run(_pipe: int) -> None:
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            if not _put(mutant, inside):
                os._exit(UNFIT)
            for number in watched.get(inside, []):
                if any(report.failed for report in runtestprotocol(items[number], nextitem=None, log=False)):
                    os._exit(KILLED)

        return _in_fork(run)[0]


def _functions(tree: ast.AST, within: str = "") -> Iterator[tuple[int, int, str]]:
    """Yield first line, last line and name of each function of a module and of its classes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.end_lineno or node.lineno, within + node.name
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{within}{node.name}.")


def _put(mutant: Mutant, inside: str) -> bool:
    """Exchange the code of one function, or constants if it is in none; False where that cannot be done."""
    module = sys.modules[mutant.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")]
    new = {name: value for name, value in vars(module).items() if name.startswith("__")}
    exec(mutant.code, new)  # noqa: S102  # a mutant is there to be run
    if not inside:
        return _put_constants(vars(module), new)
    old, changed = _function(vars(module), inside), _function(new, inside)
    if old is None or changed is None or len(old.__code__.co_freevars) != len(changed.__code__.co_freevars):
        return False
    code: CodeType = changed.__code__
    old.__code__, old.__defaults__, old.__kwdefaults__ = code, changed.__defaults__, changed.__kwdefaults__
    return True


def _put_constants(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Exchange each constant whose value is another one, wherever it was imported; False if there is none."""
    names = [name for name, value in new.items() if _is_constant(name, value) and value != old[name]]
    for name in names:
        before, value = old[name], _adopted(new[name], old)
        for module in list(sys.modules.values()):
            if name in vars(module) and vars(module)[name] is before:
                vars(module)[name] = value
    return bool(names)


def _is_constant(name: str, value: Any) -> bool:
    return not name.startswith("__") and not isinstance(value, type | FunctionType | ModuleType)


def _adopted(value: Any, old: dict[str, Any]) -> Any:
    """Return a constant with the objects in it made ones of the classes that there were."""
    if isinstance(value, tuple):
        return tuple(_adopted(one, old) for one in value)
    if isinstance(value, dict):
        return {key: _adopted(one, old) for key, one in value.items()}
    if type(value).__module__ == old["__name__"]:
        object.__setattr__(value, "__class__", old[type(value).__name__])
    return value


def _function(names: Any, path: str) -> FunctionType | None:
    first, _, rest = path.partition(".")
    found = names.get(first)
    if rest:
        return _function(vars(found), rest)
    found = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
    return found if isinstance(found, FunctionType) else None


def _in_fork(run: Callable[[int], Any]) -> tuple[int, bytes]:
    """Run in a fork; returns its exit status, or the number of the signal that ended it, negated, and what it wrote."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            run(writer)
        except BaseException:  # noqa: BLE001  # whatever it is, it is a mutant that is noticed
            os._exit(KILLED)
        os._exit(SURVIVED)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        written = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), written
