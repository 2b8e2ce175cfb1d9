"""When to ask again, and what of an EHR's words is passed on (BD-05, BD-06, BD-07)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.bulk.waits import PROGRESS_CHARACTERS, clean_progress, is_transient, next_wait, retry_after

DATE = "Sun, 29 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "polls", "seconds"),
    [
        ({"retry-after": "120"}, 0, 120.0),
        ({"retry-after": "14400"}, 9, 14_400.0),
        ({"retry-after": "9999999"}, 0, 86_400.0),
        ({"retry-after": "Sun, 29 Nov 2026 12:02:00 GMT", "date": DATE}, 0, 120.0),
        ({"retry-after": "0"}, 0, 5.0),
        ({"retry-after": "soon"}, 1, 10.0),
        ({}, 0, 5.0),
        ({}, 1, 10.0),
        ({}, 5, 160.0),
        ({}, 6, 300.0),
        ({}, 10_000, 300.0),
    ],
)
def test_the_ehr_says_when_or_it_takes_twice_as_long_each_time(
    headers: dict[str, str], polls: int, seconds: float
) -> None:
    """(BD-05)"""
    assert next_wait(headers, polls) == seconds


@pytest.mark.parametrize(("seconds", "written"), [(0.0, "1"), (-5.0, "1"), (0.2, "1"), (5.0, "5"), (5.01, "6")])
def test_an_app_is_told_whole_seconds_and_never_too_few(seconds: float, written: str) -> None:
    assert retry_after(seconds) == written


@pytest.mark.parametrize(
    ("said", "passed_on"),
    [
        (None, None),
        ("", None),
        ("  ", None),
        ("40%", "40%"),
        ("a\r\nSet-Cookie: b", "aSet-Cookie: b"),
        ("50 % é \x00", "50 %"),
        ("x" * 500, "x" * 99),
    ],
)
def test_progress_is_passed_on_short_and_clean(said: str | None, passed_on: str | None) -> None:
    """(BD-06)"""
    assert clean_progress(said) == passed_on


@given(st.text())
def test_no_progress_breaks_a_header(said: str) -> None:
    passed_on = clean_progress(said) or ""

    assert passed_on.isascii()
    assert passed_on.isprintable()
    assert len(passed_on) < PROGRESS_CHARACTERS


@pytest.mark.parametrize(
    ("body", "is_so"),
    [
        (b'{"issue": [{"code": "transient"}]}', True),
        (b'{"issue": [{"code": "processing"}, {"code": "throttled"}]}', True),
        (b'{"issue": [{"code": "timeout"}]}', True),
        (b'{"issue": [{"code": "processing"}]}', False),
        (b'{"issue": [{"code": "not-supported"}]}', False),
        (b'{"issue": []}', True),
        (b'{"issue": [1]}', True),
        (b'{"issue": 1}', True),
        (b"[]", True),
        (b"1", True),
        (b"<html>", True),
        (b"\xff", True),
        (b"", True),
        (b"[" * 100_000, True),
    ],
)
def test_a_failed_status_is_asked_for_again_unless_the_ehr_says_that_the_export_failed(
    body: bytes, *, is_so: bool
) -> None:
    """(BD-07)"""
    assert is_transient(body) is is_so
