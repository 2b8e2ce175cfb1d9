"""Run the tests against mutants: in forks of this process, so that nothing of them stays."""

import importlib.util
import os
import resource
import signal
import sys
from collections.abc import Container, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType
from typing import Any, Final, Literal

import pytest
from hypothesis import HealthCheck, settings

from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.session import EXAMPLES, KILLED, Examples, Session
from tests.mutation.targets import ROOT, SLOW, watchers_of

CPU_SECONDS: Final = 60
"""What all tests of a module take is less: a mutant that computes for longer hangs, which somebody would notice."""
_OPTIONS: Final = ("-x", "-q", "--noconftest", "-c", os.devnull, "--rootdir", str(ROOT), "-p", "no:cacheprovider")
Fate = Literal["killed", "hangs", "excused", "survived"]


class _Loader(SourceFileLoader):
    """Loads one module with other code than that of its file."""

    def __init__(self, fullname: str, path: str, code: CodeType) -> None:
        super().__init__(fullname, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002  # the protocol's
        return self._code


class _Finder(MetaPathFinder):
    """Finds the mutant where its module is asked for."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = mutant.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self._path, self._code = str(ROOT / mutant.file), mutant.code

    def find_spec(self, fullname: str, _path: Any, _target: Any = None) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(
            fullname, self._path, loader=_Loader(fullname, self._path, self._code)
        )


def fates(file: str, excused: Container[tuple[str, str, str]], *, sure: bool) -> Iterator[tuple[Mutant, Fate]]:
    """Say of each mutant of a file whether a test fails with it: the fast way, and where none does, the sure one.

    Raises `RuntimeError` where a test fails without any mutant: it would notice anything.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _prepare()
        session = Session(file, lambda status: os.write(writer, f"{status}\n".encode()))
        pytest.main([*_OPTIONS, "-k", f"not {SLOW}", *watchers_of(file)], plugins=[session, Examples()])
        os._exit(pytest.ExitCode.OK)
    os.close(writer)
    with os.fdopen(reader) as statuses:
        for mutant in mutants_of(file, ROOT):
            status = statuses.readline()
            if not status:
                raise RuntimeError(f"{file}: its tests fail without any mutant")
            if int(status) == KILLED:
                yield mutant, "killed"
            elif (mutant.file, mutant.line, mutant.mutation) in excused:
                yield mutant, "excused"
            else:
                yield mutant, fate_of(mutant) if sure else "survived"
    os.waitpid(pid, 0)


def fate_of(mutant: Mutant) -> Fate:
    """Say whether a test fails with this mutant."""
    status = _status_of(mutant, watchers_of(mutant.file))
    return "survived" if status == 0 else "hangs" if status == -signal.SIGXCPU else "killed"


def _status_of(mutant: Mutant, tests: Sequence[str]) -> int:
    """Run the tests in a fork; returns its exit status, or the number of the signal that ended it, negated."""
    pid = os.fork()
    if pid == 0:
        _run(mutant, tests)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _run(mutant: Mutant, tests: Sequence[str]) -> None:
    """Run in the fork, and end it: status 0 if all tests pass."""
    loaded = [name for name in sys.modules if name == "broker" or name.startswith("broker.")]
    sys.meta_path.insert(0, _Finder(mutant))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    _prepare()
    if loaded:
        os._exit(pytest.ExitCode.INTERNAL_ERROR)
    for test in tests:  # one file after the other: most mutants fall with the first
        if status := pytest.main([*_OPTIONS, test], plugins=[Examples()]):
            os._exit(int(status))
    os._exit(pytest.ExitCode.OK)


def _prepare() -> None:
    os.chdir(ROOT)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    settings.register_profile(
        "mutation", max_examples=EXAMPLES, derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    settings.load_profile("mutation")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # none is needed, and looking for them takes as long as a test
