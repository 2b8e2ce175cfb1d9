"""Dates, tokens, strings and references match as FHIR says."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.fhir.matching import PREFIXES, interval, matches
from sandbox.fhir.parameters import PARAMETERS
from sandbox.fhir.routes import random_id

BIRTHDATE = PARAMETERS["Patient"]["birthdate"]
PERIOD = PARAMETERS["Encounter"]["date"]
DAYS = st.dates().map(str)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2026", "2026-01-01", "2027-01-01"),
        ("2024", "2024-01-01", "2025-01-01"),
        ("2024-02", "2024-02-01", "2024-03-01"),
        ("2026-12", "2026-12-01", "2027-01-01"),
        ("2026-11-22", "2026-11-22", "2026-11-23"),
        ("2026-11-22T10:00", "2026-11-22T10:00:00", "2026-11-22T10:01:00"),
        ("2026-11-22T10:00Z", "2026-11-22T10:00:00", "2026-11-22T10:01:00"),
        ("2026-11-22T10:00:05Z", "2026-11-22T10:00:05", "2026-11-22T10:00:06"),
        ("2026-11-22T10:00:05-05:00", "2026-11-22T15:00:05", "2026-11-22T15:00:06"),
        ("2026-11-22T10:00:05.25Z", "2026-11-22T10:00:05.250000", "2026-11-22T10:00:05.250001"),
    ],
)
def test_a_date_covers_what_it_does_not_say(text: str, start: str, end: str) -> None:
    assert interval(text) == (at(start), at(end))


@pytest.mark.parametrize(
    "text", ["", "26", "2026-1", "20261122", "2026-W10", "2026-13", "2026-11-22 10:00", "0000", "x"]
)
def test_what_is_not_a_fhir_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        interval(text)


@pytest.mark.parametrize(
    ("value", "period", "matched"),
    [
        ("2026-03", ("2026-03-05", "2026-03-06"), True),
        ("2026-03", ("2026-02-27", "2026-03-06"), False),
        ("ne2026-03", ("2026-02-27", "2026-03-06"), True),
        ("ap2026-03", ("2026-02-27", "2026-03-06"), True),
        ("ap2026-04", ("2026-02-27", "2026-03-06"), False),
        ("gt2026-03", ("2026-03-05", "2026-04-01"), True),
        ("gt2026-03", ("2026-03-05", "2026-03-31"), False),
        ("ge2026-03", ("2026-03-05", "2026-03-31"), True),
        ("lt2026-03", ("2026-02-28", "2026-03-31"), True),
        ("lt2026-03", ("2026-03-01", "2026-03-31"), False),
        ("le2026-03", ("2026-03-01", "2026-03-31"), True),
        ("sa2026-03", ("2026-04-01", "2026-04-02"), True),
        ("sa2026-03", ("2026-03-31", "2026-04-02"), False),
        ("eb2026-03", ("2026-02-01", "2026-02-28"), True),
        ("eb2026-03", ("2026-02-01", "2026-03-01"), False),
        ("gt2030", ("2026-01-01", None), True),
        ("lt1990", (None, "2026-01-01"), True),
    ],
)
def test_a_period_is_compared_as_an_interval(
    value: str, period: tuple[str | None, str | None], *, matched: bool
) -> None:
    bounds = {name: bound for name, bound in zip(("start", "end"), period, strict=True) if bound}
    assert matches(PERIOD, "", value, {"resourceType": "Encounter", "period": bounds}) == matched


def born(day: str, value: str) -> bool:
    return matches(BIRTHDATE, "", value, {"resourceType": "Patient", "birthDate": day})


@given(DAYS, DAYS)
def test_days_compare_as_days(day: str, other: str) -> None:
    answers = {prefix: born(day, prefix + other) for prefix in PREFIXES}
    assert answers == {
        "eq": day == other,
        "ne": day != other,
        "gt": day > other,
        "lt": day < other,
        "ge": day >= other,
        "le": day <= other,
        "sa": day > other,
        "eb": day < other,
        "ap": day == other,
    }


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2100, 1, 1)))  # noqa: DTZ001 - zones are written
def test_a_moment_is_the_same_in_every_zone(moment: datetime) -> None:
    written = moment.replace(microsecond=0)
    east = (written + timedelta(hours=2)).isoformat() + "+02:00"
    assert interval(written.isoformat() + "Z") == interval(east)


@pytest.mark.parametrize(
    ("value", "text", "modifier", "matched"),
    [
        ("lop", "López", "", True),
        ("LÓPEZ", "lopez", "", True),
        ("pez", "López", "", False),
        ("pez", "López", "contains", True),
        ("Lopez", "López", "exact", False),
        ("strasse", "Straße", "", True),
    ],
)
def test_text_is_compared_without_case_and_accents(value: str, text: str, modifier: str, *, matched: bool) -> None:
    patient = {"resourceType": "Patient", "name": [{"family": text}]}
    assert matches(PARAMETERS["Patient"]["family"], modifier, value, patient) == matched


@pytest.mark.parametrize(
    ("value", "element", "matched"),
    [
        ("a", {"coding": [{"system": "s", "code": "a"}]}, True),
        ("s|a", {"coding": [{"system": "s", "code": "a"}]}, True),
        ("s|", {"coding": [{"system": "s", "code": "a"}]}, True),
        ("|a", {"coding": [{"system": "s", "code": "a"}]}, False),
        ("|a", {"coding": [{"code": "a"}]}, True),
        ("t|a", {"coding": [{"system": "s", "code": "a"}]}, False),
        ("A", {"coding": [{"system": "s", "code": "a"}]}, False),
        ("b", {"coding": [{"code": "a"}, {"code": "b"}]}, True),
        ("a", {"text": "a"}, False),
        ("", {"text": "a"}, False),
    ],
)
def test_a_token_is_a_system_and_a_code(value: str, element: dict[str, Any], *, matched: bool) -> None:
    condition = {"resourceType": "Condition", "code": element}
    assert matches(PARAMETERS["Condition"]["code"], "", value, condition) == matched


def test_a_random_id_is_a_fhir_id_nobody_can_predict() -> None:
    made = {random_id() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"e[A-Za-z0-9.-]{22}3", id_) for id_ in made)
