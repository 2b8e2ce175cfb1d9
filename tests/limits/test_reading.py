"""Limits as an app writes them in a token exchange: exact values, or a refusal that names the parameter."""

from ipaddress import ip_network

import pytest

from broker.errors import InvalidRequest
from broker.interactions import LIMITABLE
from broker.limits import Limits, read_limits, read_moment, read_parameter


def test_what_is_not_named_is_not_limited() -> None:
    assert read_limits({"scope": "patient/*.rs"}) == Limits()


def test_every_parameter_is_read() -> None:
    """HB-05."""
    form = {
        "types": "Observation Condition",
        "interactions": "read search-type $everything",
        "not_before": "2027-01-31T08:00:00.25Z",
        "max_count": "20",
        "read_only": "true",
        "network": "203.0.113.128/25 2001:db8::/32 203.0.113.0/25",
    }

    assert read_limits(form) == Limits(
        types=frozenset({"Condition", "Observation"}),
        interactions=frozenset({"$everything", "read", "search-type"}),
        not_before=1801382401,
        max_count=20,
        read_only=True,
        network=(ip_network("203.0.113.0/24"), ip_network("2001:db8::/32")),
    )


KINDS = """
capabilities conditional-create conditional-delete conditional-patch conditional-update create delete history-instance
history-system history-type patch read search-compartment search-page search-system search-type update vread
"""


@pytest.mark.parametrize("name", KINDS.split())
def test_every_kind_but_a_bundle_can_be_named(name: str) -> None:
    assert read_limits({"interactions": name}).interactions == frozenset({name})
    assert set(LIMITABLE) == set(KINDS.split())


BAD = [
    ("types", "observation"),
    ("types", "Observation,Condition"),
    ("types", "Observation  Condition"),
    ("types", " Observation"),
    ("types", "*"),
    ("types", "Resource"),
    ("types", "Observation/1"),
    ("types", " ".join(["Observation"] * 65)),
    ("interactions", "search"),
    ("interactions", "READ"),
    ("interactions", "batch"),
    ("interactions", "transaction"),
    ("interactions", "operation"),
    ("interactions", "$"),
    ("interactions", "Patient/$everything"),
    ("interactions", "read,vread"),
    ("interactions", "$lastn/x"),
    ("not_before", "tomorrow"),
    ("not_before", "-1"),
    ("not_before", "1.5"),
    ("not_before", "123456789012"),
    ("not_before", "2027-01-31"),
    ("not_before", "2027-01-31T08:00:00"),
    ("not_before", "2027-02-31T08:00:00Z"),
    ("not_before", "2027-01-31 08:00:00Z"),
    ("not_before", "2027-01-31T08:00:00+01:30:15"),
    ("not_before", "0001-01-01T00:00:00+23:59"),
    ("not_before", "２０２７-01-31T08:00:00Z"),
    ("max_count", "0"),
    ("max_count", "-1"),
    ("max_count", "1.0"),
    ("max_count", "1000001"),
    ("max_count", "٣"),
    ("read_only", "false"),
    ("read_only", "1"),
    ("read_only", "True"),
    ("network", "203.0.113.7/24"),
    ("network", "203.0.113.0/24,2001:db8::/32"),
    ("network", "example.org"),
    ("network", " ".join(["203.0.113.0/24"] * 65)),
]


@pytest.mark.parametrize(("name", "text"), BAD, ids=[f"{name}-{number}" for number, (name, _) in enumerate(BAD)])
def test_what_is_malformed_is_refused_by_the_name_of_its_parameter(name: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_limits({"read_only": "true", name: text})

    assert refused.value.public.startswith(f"{name} ")
    assert refused.value.public.endswith(".")


@pytest.mark.parametrize(
    ("name", "text", "must"),
    [
        ("types", "Observation  Condition", "be a list of at most 64, with one blank between two"),
        ("types", " ".join(["Observation"] * 65), "be a list of at most 64, with one blank between two"),
        ("max_count", "20x", "be a whole number from 1 to 1000000"),
        ("max_count", "1000001", "be a whole number from 1 to 1000000"),
    ],
)
def test_a_refusal_says_what_must_be_written(name: str, text: str, must: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_limits({name: text})

    assert refused.value.public == f"{name} must {must}."


@pytest.mark.parametrize("count", [1, 1_000_000])
def test_the_bounds_of_a_count_are_within(count: int) -> None:
    assert read_limits({"max_count": str(count)}) == Limits(max_count=count)


def test_a_list_may_have_64_words() -> None:
    assert read_limits({"types": " ".join(["Observation"] * 64)}) == Limits(types=frozenset({"Observation"}))


def test_a_parameter_that_is_not_there_is_none() -> None:
    assert read_parameter({}, "max_count", int) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("1970-01-01T00:00:00Z", 0.0),
        ("1801382400", 1801382400.0),
        ("2027-01-31T08:00:00Z", 1801382400.0),
        ("2027-01-31T09:30:00+01:30", 1801382400.0),
        ("2027-01-31T08:00:00.5Z", 1801382400.5),
    ],
)
def test_a_moment_is_seconds_or_a_time_with_its_zone(text: str, seconds: float) -> None:
    assert read_moment(text) == seconds
