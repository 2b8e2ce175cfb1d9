"""Whether the browser's tests may be left out is said in one place, so that CI cannot pass without them."""

from pathlib import Path

import pytest

from tests.clients.chromium import PROGRAMS, find_chromium


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_installed_browser_is_found(tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.touch(mode=0o755)

    assert find_chromium({"PATH": str(tmp_path), "CI_BROWSER": "required"}) == str(program)


def test_without_a_browser_a_test_is_skipped(tmp_path: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="there is no Chromium"):
        find_chromium({"PATH": str(tmp_path)})


def test_without_a_browser_that_is_required_a_test_fails(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="there is no Chromium"):
        find_chromium({"PATH": str(tmp_path), "CI_BROWSER": "required"})
