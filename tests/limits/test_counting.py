"""A cap on `_count`: what goes on asks for no more, however the app asked (HB-02)."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InsufficientScope
from broker.interactions import Interaction, parse_interaction
from broker.interactions.syntax import decode_query
from broker.limits import Limits, applied
from tests.test_policy import ask
from tests.test_policy_narrowed import batch

CAP = Limits(max_count=20)


@pytest.mark.parametrize(
    ("url", "query"),
    [
        ("Observation?code=1", "code=1&_count=20"),
        ("Observation", "_count=20"),
        ("Observation?_count=20&code=1", "_count=20&code=1"),
        ("Observation?_count=0", "_count=0"),
        ("Observation?_count=21&code=1", "code=1&_count=20"),
        ("Observation?_count=99999999999999999999", "_count=20"),
        ("Observation?_count=all", "_count=20"),
        ("Observation?_count=-1", "_count=20"),
        ("Observation?_count=5,500", "_count=20"),
        ("Observation?_count=500&_count=5", "_count=5"),
        ("Observation?_count=5&_count=5", "_count=5"),
        ("Observation?_count=5&code=1&_count=x", "code=1&_count=5"),
        ("Observation?_%63ount=500", "_count=20"),
        ("Observation?code=http://loinc.org%7C1%262", "code=http%3A//loinc.org%7C1%262&_count=20"),
        ("?_type=Observation", "_type=Observation&_count=20"),
        ("Patient/p1/Observation?_count=50", "_count=20"),
        ("Observation/_history?_since=2020", "_since=2020&_count=20"),
        ("Observation/o1/_history", "_count=20"),
        ("_history?_count=9", "_count=9"),
        ("?_getpages=abc&_count=500&_getpagesoffset=500", "_getpages=abc&_getpagesoffset=500&_count=20"),
        ("?_getpages=abc", "_getpages=abc&_count=20"),
        ("Patient/p1/$everything", "_count=20"),
        ("Patient/p1/$everything?_count=500", "_count=20"),
        ("Observation/$lastn?code=1", "code=1&_count=20"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_search_asks_for_at_most_the_cap(method: str, url: str, query: str) -> None:
    interaction = ask(method, url)

    one = applied(CAP, interaction)

    assert decode_query(one.query.encode()) == decode_query(query.encode()) == one.parameters
    assert (one.needs, one.path, one.body) == (interaction.needs, interaction.path, None)
    assert applied(CAP, one) == one


def test_a_count_whose_name_is_written_otherwise_is_written_again() -> None:
    """No search with one is understood; where one were, servers that fold the case of names would not differ."""
    odd = replace(ask("GET", "Observation"), query="_Count=5", parameters=(("_Count", "5"),))
    assert applied(CAP, odd).query == "_count=5"


@pytest.mark.parametrize(
    ("pairs", "body"),
    [("code=1", b"code=1&_count=20"), ("_count=500&code=1", b"code=1&_count=20"), ("_count=7", b"_count=7")],
)
def test_a_search_by_form_is_capped_in_its_form(pairs: str, body: bytes) -> None:
    headers = [(b"content-type", b"application/x-www-form-urlencoded")]
    interaction = parse_interaction("POST", b"Observation/_search", b"_format=json", headers, pairs.encode())

    one = applied(CAP, interaction)

    assert (one.query, one.body) == ("_format=json", body)
    assert one.parameters == (("_format", "json"), *decode_query(body))


@pytest.mark.parametrize(
    "interaction",
    [
        ask("GET", "Observation/o1"),
        ask("GET", "Observation/o1/_history/2"),
        ask("GET", "metadata"),
        ask("PUT", "Observation/o1"),
        ask("POST", "Observation"),
        ask("DELETE", "Observation?code=1"),
        batch("Observation/o1", "Observation?_count=20", "Observation?code=1&_count=3"),
    ],
    ids=lambda interaction: interaction.label,
)
def test_what_answers_no_pages_or_asks_for_few_itself_goes_on_as_it_is(interaction: Interaction) -> None:
    assert applied(CAP, interaction) == interaction


@pytest.mark.parametrize("url", ["Observation", "Observation?_count=21", "Observation?_count=5&_count=5"])
def test_a_search_in_a_bundle_must_ask_for_few_itself(url: str) -> None:
    """SC-09: a Bundle goes on as it came."""
    with pytest.raises(InsufficientScope, match="limit max_count: a search in a Bundle must itself ask") as refused:
        applied(CAP, batch("Observation/o1", url))

    assert "at most 20" in refused.value.public


def operation(name: str, url: str, method: str = "GET") -> Interaction:
    return replace(ask("GET", url), kind="operation", operation=name, method=method)


@pytest.mark.parametrize(
    "interaction",
    [
        operation("$graphql", "Patient/p1"),
        operation("$match", "Patient/p1"),
        operation("$everything", "Patient/p1", method="POST"),
        replace(ask("GET", "Patient/p1"), kind="something-new"),
    ],
    ids=lambda interaction: f"{interaction.method} {interaction.code}",
)
def test_what_nobody_can_ask_for_few_is_refused(interaction: Interaction) -> None:
    with pytest.raises(InsufficientScope, match=r"limit max_count: .* cannot be asked for a _count"):
        applied(CAP, interaction)


@given(
    st.lists(st.sampled_from(["_count=1", "_count=20", "_count=21", "_count=x", "code=1", "_sort=date"]), max_size=6),
    st.integers(1, 30),
    st.integers(1, 30),
)
def test_caps_after_each_other_are_the_smaller_one(pairs: list[str], one: int, other: int) -> None:
    search = ask("GET", "Observation?" + "&".join(pairs)) if pairs else ask("GET", "Observation")

    twice = applied(Limits(max_count=other), applied(Limits(max_count=one), search))

    counts = [value for name, value in twice.parameters if name == "_count"]
    assert len(counts) == 1
    assert int(counts[0]) <= min(one, other)
    kept = [pair for pair in search.parameters if pair[0] != "_count"]
    assert [pair for pair in twice.parameters if pair[0] != "_count"] == kept
