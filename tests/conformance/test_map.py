"""Every requirement has a test or a reason, and the page says what is."""

from collections import Counter

from tests.conformance.map import PAGE, page
from tests.conformance.requirements import (
    ID,
    RANGE,
    ROOT,
    citations,
    docstrings,
    has_test_of_the_broker,
    reasons,
    requirements,
)


def test_every_requirement_has_a_test_or_a_reason() -> None:
    cited, excused = citations(), reasons()
    lacking = [one.id for one in requirements() if not one.shown_by(cited.get(one.id, ())) and one.id not in excused]

    assert lacking == []


def test_no_reason_stands_for_a_requirement_that_a_test_of_the_broker_cites() -> None:
    cited, excused = citations(), reasons()

    assert excused.keys() - {one.id for one in requirements()} == set()
    assert [id_ for id_ in excused if has_test_of_the_broker(cited.get(id_, ()))] == []
    assert [id_ for id_, reason in excused.items() if len(reason.split()) < 3] == []


def test_no_test_cites_an_unknown_requirement() -> None:
    known = {one.id for one in requirements()}

    assert {id_: tests for id_, tests in citations().items() if id_ not in known} == {}


def test_no_test_cites_a_range() -> None:
    assert [test for test, text in docstrings() if RANGE.search(text)] == [], "name each id that the test shows"


def test_every_requirement_is_listed_once() -> None:
    counted = Counter(one.id for one in requirements())

    assert len(counted) > 300
    assert {id_ for id_, times in counted.items() if times > 1} == set()
    assert all(ID.fullmatch(id_) for id_ in counted)


def test_the_page_is_current() -> None:
    current = page() == (ROOT / PAGE).read_text(encoding="utf-8")

    assert current, "write it anew: ./run python -m tests.conformance.map"
