"""How much a request may hold: the numbers that docs/interactions.md gives, and that one more is refused."""

import pytest

from broker.errors import UninterpretableInteraction
from broker.interactions import bundle, parameters, parse_interaction, search, syntax
from tests.docs.pages import read
from tests.interactions.asking import ask, ask_bundle, entry

PATIENT = {"resourceType": "Patient"}


def test_the_bounds_are_those_that_are_documented() -> None:
    found = (
        syntax.LONGEST_PATH,
        syntax.LONGEST_QUERY,
        syntax.LONGEST_FORM,
        syntax.MOST_PAIRS,
        parameters.MOST_PARAMETERS,
        bundle.MOST_ENTRIES,
        bundle.MOST_CONDITIONAL_REFERENCES,
        search.MOST_HOPS,
    )
    assert found == (2048, 8192, 262144, 256, 256, 500, 20, 8)
    page = read("docs/interactions.md")
    said = "paths over 2048 bytes, queries over 8192, forms over 262144, more than 256 parameters, more than 500"
    assert said in page
    assert "more than 8 hops" in page


@pytest.mark.parametrize(("length", "allowed"), [(262144, True), (262145, False)])
def test_a_form_has_so_many_bytes(length: int, *, allowed: bool) -> None:
    headers = [(b"content-type", b"application/x-www-form-urlencoded")]
    form = b"code=".ljust(length, b"x")
    if allowed:
        assert parse_interaction("POST", b"Observation/_search", b"", headers, form).body == form
    else:
        with pytest.raises(UninterpretableInteraction, match="too long"):
            parse_interaction("POST", b"Observation/_search", b"", headers, form)


@pytest.mark.parametrize(("count", "allowed"), [(20, True), (21, False)])
def test_a_resource_has_so_many_conditional_references(count: int, *, allowed: bool) -> None:
    resource = PATIENT | {"link": [{"other": {"reference": f"Patient?_id={number}"}} for number in range(count)]}
    if allowed:
        assert len(ask_bundle(entry("POST Patient", resource)).patients) == 20
    else:
        with pytest.raises(UninterpretableInteraction, match="too many conditional references"):
            ask_bundle(entry("POST Patient", resource))


@pytest.mark.parametrize(("hops", "allowed"), [(8, True), (9, False)])
def test_a_chain_has_so_many_hops(hops: int, *, allowed: bool) -> None:
    line = f"GET Observation?{'part-of.' * hops}code=x"
    if allowed:
        assert ask(line).kind == "search-type"
    else:
        with pytest.raises(UninterpretableInteraction, match="too long"):
            ask(line)


@pytest.mark.parametrize(("hops", "allowed"), [(8, True), (9, False)])
def test_has_hops_as_a_chain_does(hops: int, *, allowed: bool) -> None:
    line = f"GET Observation?{'_has:Observation:part-of:' * hops}code=x"
    if allowed:
        assert ask(line).kind == "search-type"
    else:
        with pytest.raises(UninterpretableInteraction, match="too long"):
            ask(line)


@pytest.mark.parametrize(
    "longest", ["GET Patient/" + "a" * 64, "GET Observation?patient=" + "a" * 64, "GET " + "A" * 64, "GET $" + "a" * 64]
)
def test_a_word_is_so_long(longest: str) -> None:
    assert ask(longest).needs
    with pytest.raises(UninterpretableInteraction):
        ask(f"{longest}{longest[-1]}")
