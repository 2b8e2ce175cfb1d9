"""A child does not outlive its parent."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from broker.store.lifeline import ORPHANED, watched


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_watched_process_ends_when_the_one_that_has_it_watched_is_killed(process: subprocess.Popen[bytes]) -> None:
    watch = (
        "import sys, time; from broker.store.lifeline import watched\n"
        "with watched(int(sys.argv[1])): print('watching', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", watch, str(process.pid)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"watching\n"
        parent.kill()

    assert process.wait(10) == -signal.SIGTERM


def test_a_watched_process_is_left_alone_when_the_watch_ends(process: subprocess.Popen[bytes]) -> None:
    with watched(process.pid):
        pass

    assert process.poll() is None


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is of Linux")
def test_a_child_whose_parent_was_gone_before_it_could_bind_itself_ends_at_once() -> None:
    # The program forks twice and binds the grandchild, whose parent is not the one that asked for the binding.
    bind_in_grandchild = """if True:
        import os
        from broker.store.lifeline import _binding_to_parent
        bind = _binding_to_parent()
        if os.fork() == 0:
            if os.fork() == 0:
                bind()
                os._exit(0)
            os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
        raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
    """

    assert subprocess.run([sys.executable, "-c", bind_in_grandchild], check=False).returncode == ORPHANED
