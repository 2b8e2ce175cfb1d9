"""Scopes with search parameters: what a request says, what is added to it, what is checked, what is refused."""

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import deciding
from broker.deciding import SearchableWanted
from broker.errors import InsufficientScope
from broker.flows.searchable import listed
from broker.granular import Searchable, as_search, is_said
from broker.interactions import Interaction, Need, parse_interaction
from broker.policy import Permit, decide
from broker.release import Rule
from broker.token_parameters import alternatives
from tests.test_policy import ME, app, ask, grant, handle, known

LISTED = frozenset({("Observation", "category"), ("Observation", "code"), ("Condition", "category"), ("*", "_tag")})
LAB = "Observation.rs?category=laboratory"
TYPES = tuple(f"T{first}{second}" for first in "abcd" for second in "xyz")
FORM = [(b"content-type", b"application/x-www-form-urlencoded")]


def decided(request: str | Interaction, held: str, searchable: Searchable | None = LISTED) -> Permit:
    interaction = request if isinstance(request, Interaction) else ask("GET", request)
    return decide(handle(held), grant(held), known(app(held)), interaction, None, searchable)


@pytest.mark.parametrize(
    ("url", "held", "added"),
    [
        ("Observation", f"user/{LAB}", "category=laboratory"),
        ("Observation", f"patient/{LAB}", "category=laboratory"),
        ("Observation?code=1&_count=5", f"user/{LAB}", "category=laboratory"),
        ("Observation?category=vital-signs", f"user/{LAB}", "category=laboratory"),
        ("Observation?category=laboratory,vital-signs", f"user/{LAB}", "category=laboratory"),
        ("Observation?category:not=laboratory", f"user/{LAB}", "category=laboratory"),
        (f"Patient/{ME}/Observation", f"user/{LAB}", "category=laboratory"),
        ("Observation", "user/*.rs?_tag=t|red", "_tag=t%7Cred"),
        ("Observation", f"user/{LAB} user/Observation.rs?category=vital-signs", "category=laboratory,vital-signs"),
        ("Observation", "user/Observation.rs?category=c|a&code=x", "category=c%7Ca&code=x"),
        (
            "Observation",
            "user/Observation.rs?category=a&code=x user/Observation.rs?category=a&code=y",
            "category=a&code=x,y",
        ),
        ("Observation?_include=Observation:encounter:Encounter", f"user/{LAB} user/Encounter.r", "category=laboratory"),
    ],
)
def test_a_search_is_made_to_say_what_the_scopes_do(url: str, held: str, added: str) -> None:
    """SC-05."""
    permit = decided(url, held)

    asked = url.partition("?")[2]
    assert permit.interaction.query.removeprefix(f"{asked}&" if asked else "") == added
    assert permit.interaction.parameters[-1:] == tuple(parse_qsl(added))[-1:]
    assert (permit.checks, permit.relies_on_search) == (None, True)
    assert permit.rule.endswith("added")


@pytest.mark.parametrize(
    ("url", "rule"),
    [("Observation?category=laboratory", "patient-scope filtered"), ("Observation", "patient-scope added")],
)
def test_what_a_filter_covers_for_one_patient_is_about_no_other(url: str, rule: str) -> None:
    """SC-05, PX-14."""
    permit = decided(url, f"patient/{LAB}")
    assert (permit.rule, permit.relies_on_search) == (rule, True)
    with pytest.raises(InsufficientScope, match="another patient"):
        decided(f"{url}{'&' if '?' in url else '?'}patient=pat-2", f"patient/{LAB}")


def test_a_form_is_made_to_say_it_in_the_form() -> None:
    """SC-05, EP-22: some servers read only one of the two."""
    search = parse_interaction("POST", b"Observation/_search", b"_format=json", FORM, b"code=1")

    permit = decided(search, f"user/{LAB}")

    assert permit.interaction.body == b"code=1&category=laboratory"
    assert permit.interaction.query == "_format=json"


@pytest.mark.parametrize(
    ("url", "held"),
    [
        ("Observation?category=laboratory", f"user/{LAB}"),
        ("Observation?category=a", "user/Observation.s?category=a,b"),
        ("Observation?category=a,b", "user/Observation.s?category=a user/Observation.s?category=b"),
        ("Observation?category=b,a&code=x", "user/Observation.s?category=a user/Observation.s?category=b"),
    ],
)
@pytest.mark.parametrize("searchable", [None, (), LISTED])
def test_what_a_search_says_by_itself_is_left_as_it_is(url: str, held: str, searchable: Searchable | None) -> None:
    """SC-05: and nobody has to know what the EHR can search by."""
    permit = decided(url, held, searchable)

    assert permit.interaction.query == url.partition("?")[2]
    assert (permit.checks, permit.rule, permit.relies_on_search) == (None, "scope filtered", True)


@pytest.mark.parametrize(
    ("url", "held", "searchable"),
    [
        ("Observation/1", f"user/{LAB}", None),
        ("Observation/1", f"patient/{LAB}", None),
        ("Observation/1/_history", f"user/{LAB}", None),
        ("Observation/1/_history/2", f"user/{LAB}", None),
        ("Observation", f"user/{LAB}", ()),
        ("Observation", f"user/{LAB}", {("Observation", "code"), ("Condition", "category")}),
        ("Observation?sessionID=1", f"user/{LAB}", LISTED),
        ("Observation?_count=1", f"user/{LAB} user/Observation.rs?status=final", LISTED),
        ("Encounter?_include=Encounter:diagnosis:Condition", "user/Encounter.rs user/Condition.r?category=x", None),
        ("Encounter?_revinclude=Observation:encounter", f"user/Encounter.rs user/{LAB}", None),
        ("Observation?_revinclude=Observation:has-member", f"user/{LAB}", LISTED),
        ("?_type=Observation,Encounter", f"user/Encounter.rs user/{LAB}", None),
        (f"Patient/{ME}/$everything", "user/*.rs?_tag=t|red", None),
        (f"Patient/{ME}/$everything?_type=Observation", f"user/Patient.r user/{LAB}", None),
        ("Observation/$lastn", f"user/{LAB}", None),
        (
            "Observation?subject:Patient.name=x&_include=Observation:encounter:Encounter",
            "user/Observation.rs user/Patient.s user/Encounter.r?class=AMB",
            None,
        ),
    ],
)
def test_what_cannot_be_said_in_the_request_is_looked_for_in_the_answer(
    url: str, held: str, searchable: Searchable | None
) -> None:
    """SC-05."""
    permit = decided(url, held, searchable)

    assert permit.interaction.query == url.partition("?")[2]
    assert permit.checks is not None
    assert any(rule.filters for rule in permit.checks.rules)
    assert permit.rule.endswith("checked")


@pytest.mark.parametrize(
    ("url", "shape"),
    [
        ("Observation/1", "resource"),
        ("Observation/1/_history/2", "resource"),
        ("Observation/1/_history", "history"),
        ("Observation", "searchset"),
        (f"Patient/{ME}/Observation", "searchset"),
        ("?_type=Observation,Encounter", "searchset"),
        ("Observation/$lastn", "searchset"),
        (f"Patient/{ME}/$everything", "searchset"),
        (f"DocumentReference/$docref?patient={ME}", "searchset"),
        (Interaction("search-page", "GET", "Observation", "", needs=(Need("Observation", "s"),)), "searchset"),
    ],
)
def test_an_answer_is_looked_at_as_what_it_is(url: str | Interaction, shape: str) -> None:
    """SC-05, PX-07."""
    permit = decided(url, "user/*.rs?_tag=t|red", ())

    assert permit.checks is not None
    assert permit.checks.shape == shape


@pytest.mark.parametrize(
    ("method", "url", "held"),
    [
        ("GET", "Observation", "user/Observation.rs?date=gt2020"),
        ("GET", "Observation/1", "user/Observation.rs?date=gt2020"),
        ("GET", "Observation/1", "user/Observation.rs?category:in=x"),
        ("GET", "Observation/1", "user/Observation.rs?subject:Patient.name=x"),
        ("GET", "Observation/1", "user/Observation.rs?category=laboratory&date=gt2020"),
        ("GET", "Observation/1", "user/Observation.rs?_count=1"),
        ("GET", "Observation", "user/Observation.rs?_count=1"),
        ("GET", "Observation", "user/Observation.rs?_include=x"),
        ("GET", "Binary/1", "user/Binary.rs?_tag=x"),
        ("HEAD", "Observation/1", f"user/{LAB}"),
        ("GET", "Observation/1?_elements=category", f"user/{LAB}"),
        ("GET", "Observation/_history", f"user/{LAB}"),
        ("GET", "_history", "user/*.rs?_tag=x"),
        ("GET", "Encounter?_has:Observation:encounter:code=1", f"user/Encounter.rs user/{LAB}"),
        ("GET", "Observation?has-member:Observation.code=1", f"user/{LAB}"),
        ("POST", "Observation", "user/Observation.cruds?category=laboratory"),
        ("PUT", "Observation/1", "user/Observation.cruds?category=laboratory"),
        ("PATCH", "Observation/1", "user/Observation.cruds?category=laboratory"),
        ("DELETE", "Observation/1", "user/Observation.cruds?category=laboratory"),
        ("DELETE", "Observation?category=laboratory", "user/Observation.cruds?category=laboratory"),
    ],
)
def test_what_neither_can_show_is_refused(method: str, url: str, held: str) -> None:
    """SC-05, SC-06."""
    with pytest.raises(InsufficientScope):
        decided(ask(method, url), held)


@pytest.mark.parametrize(
    ("url", "held"),
    [
        ("Observation?code=x&_include=Observation:has-member:Observation", "user/Observation.s?category=x"),
        ("Observation?code=x&_include=Observation:has-member", "user/Observation.s?category=x"),
        ("Patient/p/$everything?_type=Observation", "user/Observation.s?category=x"),
        (f"Observation?patient={ME}&_include=Observation:has-member:Observation", "patient/Observation.s?category=x"),
    ],
)
def test_what_may_be_read_is_not_found_by_a_search_for_less(url: str, held: str) -> None:
    """SC-05: of each entry nobody knows whether it was searched or included."""
    with pytest.raises(InsufficientScope, match="more may be read than searched"):
        decided(url, f"{held} user/*.r", frozenset())
    assert decided(url, f"{held} user/*.s user/*.r", frozenset()).checks is None


def test_what_the_ehr_can_search_by_is_asked_only_where_that_matters() -> None:
    """SC-05."""
    with pytest.raises(SearchableWanted):
        decided("Observation", f"user/{LAB}", None)
    assert decided("Observation", f"user/{LAB} user/Observation.s", None).rule == "scope"


def test_what_is_added_binds_the_searched_type_and_not_what_comes_with_it() -> None:
    """SC-05: of two needs for one type only the search's own is restricted by its parameters."""
    held = "user/Observation.rs?category=laboratory"
    permit = decided("Observation?_include=Observation:has-member:Observation", held)

    assert permit.rule == "scope added checked"
    assert permit.checks is not None
    assert {rule.filters for rule in permit.checks.rules} == {((("category", "laboratory"),),)}


def test_what_an_include_may_add_of_the_searched_type_is_no_more_than_may_be_searched() -> None:
    """SC-05: an answer does not tell apart what was found and what came with it."""
    search = "user/Observation.s?category=laboratory patient/Observation.s?code=1"
    interaction = ask("GET", "Observation?_include=Observation:has-member:Observation")

    def decide_with(read: str) -> Permit:
        held, granted = f"{search} {read}", "user/*.rs patient/*.rs"
        return decide(handle(held), grant(granted), known(app(held)), interaction, None, ())

    assert decide_with("patient/Observation.r?code=1").rule == "patient-scope checked"
    with pytest.raises(InsufficientScope, match="more may be read than searched"):
        decide_with("patient/Observation.r?code=2")


def test_the_pages_of_a_search_that_was_added_to_need_what_it_needed() -> None:
    permit = decided("Observation", f"user/{LAB}")

    again = decided(f"Observation?{permit.interaction.query}", f"user/{LAB}", None)
    assert again.needs == permit.needs


def test_in_a_batch_nothing_is_added() -> None:
    """SC-09: it goes on as it came."""

    def batch(*urls: str) -> Interaction:
        entries = [{"request": {"method": "GET", "url": url}} for url in urls]
        body = json.dumps({"resourceType": "Bundle", "type": "batch", "entry": entries}).encode()
        return parse_interaction("POST", b"", b"", [(b"content-type", b"application/fhir+json")], body)

    assert decided(batch("Observation?category=laboratory"), f"user/{LAB}").rule == "scope filtered"
    permit = decided(batch("Observation/1", "Encounter/2"), f"user/{LAB} user/Encounter.r")
    assert permit.checks is not None
    assert permit.checks.shape == "batch"
    for refused in (["Observation"], ["Observation/1", "Observation?category=laboratory"]):
        with pytest.raises(InsufficientScope):
            decided(batch(*refused), f"user/{LAB}")


pairs = st.tuples(st.sampled_from(["category", "code"]), st.sampled_from(["a", "b", "c", "a,b"]))
groups = st.lists(pairs, min_size=1, max_size=3, unique=True).map(lambda group: tuple(sorted(group)))


def holds(found: dict[str, set[str]], group: tuple[tuple[str, str], ...]) -> bool:
    return all(found[name] & set(alternatives(value)) for name, value in group)


codes = st.sets(st.sampled_from(["a", "b", "c", "d"]))


@given(filters=st.lists(groups, min_size=1, max_size=3), category=codes, code=codes)
def test_what_a_search_says_for_several_scopes_finds_just_what_one_of_them_covers(
    filters: list[tuple[tuple[str, str], ...]], category: set[str], code: set[str]
) -> None:
    """SC-05: what is found has all pairs of some scope, and whatever has them is found."""
    said, found = as_search(filters), {"category": category, "code": code}
    if said is not None:
        assert holds(found, said) == any(holds(found, group) for group in filters)


@given(said=groups, asked=groups, category=codes, code=codes)
def test_a_search_that_says_it_finds_nothing_else(
    said: tuple[tuple[str, str], ...], asked: tuple[tuple[str, str], ...], category: set[str], code: set[str]
) -> None:
    """SC-05."""
    found = {"category": category, "code": code}
    if is_said(said, asked) and holds(found, asked):
        assert holds(found, said)


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        (["code=a"], "code=a"),
        (["code=a", "code=b"], "code=a,b"),
        (["code=a", "code=a&category=x"], "code=a"),
        (["code=a&category=x", "code=a&category=y"], "code=a&category=x,y"),
        (["code=a", "category=x"], None),
        (["code=a&category=x", "code=b&category=y"], None),
        (["_count=1"], None),
        (["category=x&_count=1"], None),
        (["category:in=x"], None),
        (["subject.name=x"], None),
    ],
)
def test_scopes_are_one_search_where_they_differ_in_one_value_at_most(filters: list[str], said: str | None) -> None:
    """SC-05, SC-06."""
    pairs = [tuple(sorted(parse_qsl(group))) for group in filters]
    found = as_search(pairs)
    assert (None if found is None else sorted(found)) == (None if said is None else sorted(parse_qsl(said)))


def test_a_search_has_to_say_every_pair() -> None:
    """SC-05."""
    assert is_said((("category", "x"), ("code", "a")), (("code", "a"), ("category", "x")))
    assert not is_said((("category", "x"), ("code", "a")), (("code", "a"),))


class Value(str):
    """Counts how often somebody takes it apart."""

    __slots__ = ("taken_apart",)

    def split(self, *separator: Any) -> list[str]:
        self.taken_apart = getattr(self, "taken_apart", 0) + 1
        return super().split(*separator)


def test_what_is_said_and_what_was_asked_are_taken_apart_once_each() -> None:
    """SC-05: others wait meanwhile."""
    said = [("category", Value(f"a,b{number}")) for number in range(8)]
    asked = [("category", Value(f"a,c{number}")) for number in range(8)]

    assert not is_said(tuple(said), tuple(asked))
    assert {value.taken_apart for _, value in said + asked} == {1}


def test_the_rules_of_many_needs_are_made_once_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """SC-05: each search is held against each read."""
    made: list[Rule] = []

    def counted(rule: Rule, **changes: Any) -> Rule:
        made.append(rule)
        return replace(rule, **changes)

    monkeypatch.setattr(deciding, "replace", counted)
    includes = "&".join(f"_include=Task:focus:{type_}&_revinclude={type_}:focus" for type_ in TYPES)

    permit = decided(f"Task?{includes}", "user/*.rs?_tag=x", ())

    assert permit.checks is not None
    assert len(made) == len(permit.needs) == 1 + 2 * len(TYPES)


@pytest.mark.parametrize("value", ["a\\", "a\\,b"])
def test_alternatives_with_escapes_are_not_joined(value: str) -> None:
    assert as_search([(("code", value),), (("code", "x"),)]) is None


def test_the_statement_lists_types_and_parameters() -> None:
    """DS-14: what an EHR wrote may be anything."""
    parameters = [{"name": "category"}, {"name": 1}, "x", {}]
    resources = [{"type": "Observation", "searchParam": parameters}, {"searchParam": parameters}, {"type": "X"}, None]
    server = {"mode": "server", "resource": resources, "searchParam": [{"name": "_tag"}]}
    client = {"mode": "client", "resource": [{"type": "Observation", "searchParam": [{"name": "code"}]}]}

    assert set(listed({"rest": [client, server]})) == {("Observation", "category"), ("*", "_tag")}
    odd: list[object] = [None, [], {"rest": {}}, {"rest": ["x"]}, {"rest": [{"mode": "server", "resource": {}}]}]
    assert [list(listed(statement)) for statement in odd] == [[]] * 5
