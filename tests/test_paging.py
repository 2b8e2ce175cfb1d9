"""Page links: what a next link may do that does not say it is what its search was allowed; nobody can make one."""

import base64
from collections.abc import Callable
from dataclasses import replace

import pytest

from broker.clock import system_entropy
from broker.credentials import KeyedHash
from broker.deciding import SearchableWanted
from broker.errors import InsufficientScope, UninterpretableInteraction
from broker.granular import Searchable
from broker.interactions import Interaction, Need, parse_page
from broker.limits import Limits
from broker.membership import Patient
from broker.paging import LONGEST, PARAMETER, PageLinks
from broker.policy import Permit, decide
from broker.release import Rule
from tests.test_policy import ME, app, ask, decided, grant, handle, known
from tests.test_policy_narrowed import batch, form

LINKS = PageLinks(KeyedHash(b"k" * 32), system_entropy)
QUERY = "_getpages=abc-1&_getpagesoffset=20"
ALL = "patient/*.rs user/*.rs"


def page_behind(url: str, family: str = "f", method: str = "GET") -> Interaction:
    path, _, raw_query = url.rpartition("?")
    query, link = LINKS.take(raw_query.encode())
    assert link is not None
    return LINKS.follow(parse_page(method, path.encode(), query, ()), link, family)


def followed(url: str, family: str = "f", method: str = "GET") -> tuple[Need, ...]:
    return page_behind(url, family, method).needs


def test_a_page_needs_what_its_search_needed() -> None:
    """PX-07."""
    permit = decided("GET", "Observation?category=x", held="user/Observation.s?category=x")

    assert followed(QUERY + LINKS.extend(permit, "", QUERY)) == permit.interaction.needs


@pytest.mark.parametrize(
    ("search", "code"),
    [
        ("Observation?code=1", "search-type"),
        ("?_type=Observation", "search-system"),
        (f"Patient/{ME}/Observation", "search-compartment"),
        (f"Patient/{ME}/$everything", "$everything"),
    ],
)
def test_a_page_and_the_one_after_it_say_what_they_go_on_with(search: str, code: str) -> None:
    """PX-07, HB-02: a handle may be limited to some interactions."""
    permit = decided("GET", search, held=ALL)

    page = page_behind(QUERY + LINKS.extend(permit, "", QUERY))
    permit_again = decide(handle(ALL), grant(ALL), known(app(ALL)), page)
    after = QUERY.replace("20", "40")

    assert (page.kind, page.code) == ("search-page", code)
    assert page_behind(after + LINKS.extend(permit_again, "", after)).code == code


@pytest.mark.parametrize(
    "link",
    [
        "Observation?sessionID=9-A1B2",
        "Observation?-pageContext=a%2Bb%3D&-pageDirection=NEXT",
        "Observation?category=x&-pageContext=a&_count=2",
        "Observation?ct=W3sidG9rZW4i&_count=2",
        "Observation?category=x&patient=pat-1&cursor=c",
        "Observation?-pageContext=a&_include=Observation:subject:Patient",
        "?_page_token=x",
        "?_getpages=x&_bundletype=searchset",
    ],
)
def test_a_page_is_what_its_search_was_however_the_server_writes_the_link(link: str) -> None:
    """(PX-07) (NC-17)."""
    search = "Observation?category=x&patient=pat-1&_include=Observation:subject:Patient"
    permit = decided("GET", search, held="user/Observation.s?category=x user/Patient.r")
    path, _, query = link.rpartition("?")

    added = LINKS.extend(permit, path, query)

    assert added.startswith(f"&{PARAMETER}=")
    assert followed(link + added) == permit.interaction.needs


@pytest.mark.parametrize(
    "link",
    [
        "Observation?category=x&patient=pat-1&_count=5",
        "Condition?-pageContext=a",
        "Observation/1?-pageContext=a",
        "Patient/pat-1/Observation?-pageContext=a",
        "Observation?-pageContext=a&patient=pat-2",
        "Observation?-pageContext=a&subject=Patient/pat-2",
        "Observation?-pageContext=a&_include=Observation:subject:Patient",
        "Observation?-pageContext=a&_has:Provenance:target:agent=x",
        "Observation?-pageContext=a&subject:Patient.name=x",
        "Observation?-pageContext=a;b",
        "Observation?-pageContext",
        "Observation?-pageContext=\u00e9",
        "Observation?-pageContext=%zz",
        "Observation?-pageContext=a&_format=json&_format=xml",
        "../Observation?-pageContext=a",
    ],
)
def test_a_link_that_needs_no_help_or_shows_more_than_the_search_is_left_as_it_is(link: str) -> None:
    """(PX-07)."""
    permit = decided("GET", "Observation?category=x&patient=pat-1", held="user/Observation.s")
    path, _, query = link.rpartition("?")

    assert LINKS.extend(permit, path, query) == ""


def test_only_a_search_or_an_operation_has_pages() -> None:
    """(PX-07)."""
    permit = decided("GET", "Observation/1", held="user/Observation.r")

    assert LINKS.extend(permit, "Observation", "-pageContext=a") == ""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_page_is_only_got(method: str) -> None:
    """(PX-07)."""
    permit = decided("GET", "Observation", held="user/Observation.s")
    link = "Observation?-pageContext=a"

    with pytest.raises(UninterpretableInteraction):
        followed(link + LINKS.extend(permit, "Observation", "-pageContext=a"), method=method)


MIXED = "patient/*.rs user/Practitioner.rs"


def turned(permit: Permit, *, held: str, granted: str, patient: str = ME, narrowed: str | None = None) -> Permit:
    """Follow a link that says nothing, as the same app."""
    added = LINKS.extend(permit, "", QUERY)
    page = LINKS.follow(parse_page("GET", b"", QUERY.encode(), ()), added.removeprefix(f"&{PARAMETER}="), "f")
    return decide(handle(held, narrowed), grant(granted, patient), known(app(ALL)), page)


@pytest.mark.parametrize("granted", [MIXED, ALL])
@pytest.mark.parametrize("url", [f"Patient/{ME}/$everything", f"Patient/{ME}/Observation", f"Observation?patient={ME}"])
def test_the_pages_of_a_bound_search_are_bound_though_their_links_do_not_say_so(url: str, granted: str) -> None:
    """(PX-07) (PX-14): page after page, where the EHR's token reaches beyond the patient."""
    page = decided("GET", url, held="patient/*.rs", granted=granted, policy=ALL)

    for _ in range(3):
        page = turned(page, held="patient/*.rs", granted=granted)
        assert page.needs == page.interaction.needs


def test_a_page_of_one_patients_search_is_not_one_of_anothers() -> None:
    """(PX-14) (CX-11)."""
    everything = decided("GET", f"Patient/{ME}/$everything", held="patient/*.rs", granted=ALL, policy=ALL)

    with pytest.raises(InsufficientScope, match="another patient"):
        turned(everything, held="patient/*.rs", granted=ALL, patient="pat-2")


def test_a_page_of_a_search_that_nothing_bound_is_not_turned_by_a_narrowed_handle() -> None:
    """(PX-14): the wider handle that it was exchanged for may turn it."""
    everybody = decided("GET", "Observation", held="user/*.rs", granted=ALL, policy=ALL)

    assert turned(everybody, held="user/*.rs", granted=ALL).needs == everybody.needs
    with pytest.raises(InsufficientScope, match="reaches beyond"):
        turned(everybody, held="user/*.rs", granted=ALL, narrowed=ME)


def test_what_an_include_adds_is_not_bound_by_the_search_it_comes_with() -> None:
    """(PX-14)."""
    search = f"Observation?patient={ME}&_include=Observation:encounter:Encounter"
    wide = decided("GET", search, held="patient/Observation.rs user/Encounter.rs", granted=ALL, policy=ALL)

    assert [need.bound_to for need in wide.needs] == [ME, None]
    page = turned(wide, held="user/*.rs", granted=ALL, narrowed=ME)
    assert page.checks is not None
    assert {(rule.type, rule.patient) for rule in page.checks.rules} == {
        (type_, Patient(ME, "https://ehr.example/R4")) for type_ in ("Observation", "Encounter")
    }


def test_a_page_link_does_not_show_what_was_searched() -> None:
    """(PX-07): whoever searches by POST keeps the values out of URLs; two links of one search differ, too."""
    search = form("Patient/_search", "birthdate=1950-01-01&family=Shaw")
    permit = decide(handle("user/*.rs"), grant("user/*.rs"), known(app("user/*.rs")), search)
    links = {LINKS.extend(permit, "", QUERY) for _ in range(2)}

    assert len(links) == 2
    for added in links:
        text = added.removeprefix(f"&{PARAMETER}=")
        shown = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        assert not any(word in shown for word in (b"birthdate", b"1950", b"Shaw", b"Patient"))
        assert followed(QUERY + added) == permit.interaction.needs


@pytest.mark.parametrize(("length", "is_extended"), [(2000, True), (4000, False)])
def test_a_link_that_would_get_too_long_is_left_as_it_is(length: int, *, is_extended: bool) -> None:
    """(PX-07)."""
    permit = decided("GET", f"Observation?category={'x' * length}", held="user/Observation.s")
    added = LINKS.extend(permit, "", QUERY)

    assert bool(added) is is_extended
    assert len(added) <= LONGEST + len(f"&{PARAMETER}=")


def test_our_parameter_is_not_forwarded() -> None:
    permit = decided("GET", "Observation", held="user/Observation.s")
    query, _ = LINKS.take((QUERY + LINKS.extend(permit, "", QUERY)).encode())

    assert query.decode() == QUERY


@pytest.mark.parametrize(
    "change",
    [
        lambda link: link.replace("abc-1", "abc-2"),
        lambda link: link.replace("offset=20", "offset=40"),
        lambda link: link[:-1] + ("0" if link[-1] != "0" else "1"),
        lambda link: link.replace(f"{PARAMETER}=", f"{PARAMETER}=W1siKiIsInMiLFtdXV0"),
        lambda link: link + "=",
        lambda link: link + "&_count=1",
        lambda _: QUERY + f"&{PARAMETER}=",
        lambda _: QUERY + f"&{PARAMETER}=%00.%ff",
    ],
)
def test_a_changed_page_link_is_refused(change: Callable[[str], str]) -> None:
    """PX-07."""
    permit = decided("GET", "Observation", held="user/Observation.s")
    link = change(QUERY + LINKS.extend(permit, "", QUERY))

    with pytest.raises(UninterpretableInteraction):
        followed(link)


def test_a_page_link_of_another_authorization_is_refused() -> None:
    """PX-07."""
    permit = decided("GET", "Observation", held="user/Observation.s")

    with pytest.raises(UninterpretableInteraction):
        followed(QUERY + LINKS.extend(permit, "", QUERY), family="another")


@pytest.mark.parametrize("path", ["Patient", "Observation", "Observation/1"])
def test_a_page_link_is_good_for_its_own_path_alone(path: str) -> None:
    """(PX-07)."""
    permit = decided("GET", "Observation", held="user/Observation.s")

    with pytest.raises(UninterpretableInteraction):
        followed(f"{path}?{QUERY}" + LINKS.extend(permit, "", QUERY))


def test_a_page_still_names_the_patients_that_its_link_names() -> None:
    """(PX-07) (PX-14): a handle that was narrowed since may not turn it."""
    page = parse_page("GET", b"Observation", b"patient=pat-1&-pageContext=a&subject=Patient/pat-2", ())

    assert page.patients == ("pat-1", "pat-2")


LABORATORY = "user/Observation.rs?category=laboratory"
LISTED = frozenset({("Observation", "mine"), ("Observation", "category"), ("*", "everywhere")})


def own(request: str | Interaction, held: str, granted: str = "", searchable: Searchable | None = ()) -> Permit:
    interaction = request if isinstance(request, Interaction) else ask("GET", request)
    return decide(handle(held), grant(granted or held), known(app(held)), interaction, None, searchable)


@pytest.mark.parametrize(
    ("url", "held", "granted", "types"),
    [
        ("Patient?sessionID=C", f"user/Patient.rs {LABORATORY}", "", {"Patient"}),
        ("Patient?sessionID=C&_count=1", "patient/Patient.rs", "", {"Patient"}),
        ("Patient?ct=C&name=x", "system/Patient.rs", "", {"Patient"}),
        ("Patient?sessionID:exact=C", "system/Patient.rs", "", {"Patient"}),
        ("Patient?sessionID.name=C", "system/Patient.rs system/*.s", "", set()),
        ("Observation?category=laboratory&sessionID=C", LABORATORY, "", {"Observation"}),
        ("Practitioner?sessionID=C", MIXED, ALL, {"Practitioner"}),
        (f"Observation?patient={ME}&sessionID=C", "patient/*.rs", ALL, {"Observation"}),
        (f"Observation?patient={ME}&sessionID=C", "patient/*.rs", MIXED, {"Observation"}),
        (f"Patient/{ME}/Observation?sessionID=C", "patient/Observation.rs", "", {"Observation"}),
        ("?_type=Patient&sessionID=C", "system/Patient.rs", "", {"Patient"}),
        ("Observation/$lastn?code=x&sessionID=C", "user/Observation.rs", "", {"Observation"}),
        ("Patient?sessionID=C&_revinclude=Observation:patient", "system/Patient.s system/Observation.s", "", None),
    ],
)
def test_what_may_be_a_page_of_another_search_shows_no_more_than_the_handle_holds(
    url: str, held: str, granted: str, types: set[str] | None
) -> None:
    """(PX-07) (SC-05) (PX-14): cut out of a next link, a place in the results of whatever was searched."""
    checks = own(url, held, granted).checks

    if not types and types is not None:
        assert checks is None
    else:
        assert checks is not None
        assert {rule.type for rule in checks.rules} == (types or {"Patient", "Observation"})


def test_of_what_may_be_a_page_each_resource_is_held_against_the_scopes_filters_and_the_patient() -> None:
    """(PX-07) (SC-05) (PX-14)."""
    filtered = own("Observation?category=laboratory&sessionID=C", LABORATORY).checks
    bound = own(f"Observation?patient={ME}&sessionID=C", "patient/*.rs", ALL).checks

    whose = Patient(ME, "https://ehr.example/R4")
    assert filtered is not None
    assert filtered.rules == (Rule("Observation", ((("category", "laboratory"),),), None, with_shared=True),)
    assert bound is not None
    assert bound.rules == (Rule("Observation", (), whose, with_shared=False),)


def test_a_handle_that_is_limited_to_some_types_is_shown_no_others_by_a_page() -> None:
    """(PX-07) (HB-02): though its scopes have all types."""
    limited = replace(handle("system/*.rs"), limits=Limits(types=frozenset({"Patient"})))
    page = ask("GET", "Patient?sessionID=C")

    checks = decide(limited, grant("system/*.rs"), known(app("system/*.rs")), page, None, ()).checks

    assert checks is not None
    assert [rule.type for rule in checks.rules] == ["Patient"]


@pytest.mark.parametrize(
    ("url", "held"),
    [
        ("Observation?sessionID=C", "system/*.rs"),
        ("Observation?sessionID=C", "patient/*.s"),
        (f"Patient/{ME}/Condition?sessionID=C", "patient/*.rs"),
    ],
)
def test_who_may_be_shown_all_that_the_token_opens_may_turn_any_page(url: str, held: str) -> None:
    """(PX-07): nor is the EHR asked what it lists."""
    assert own(url, held, searchable=None).checks is None


@pytest.mark.parametrize(
    "url",
    [
        "Observation?category=laboratory&code=x&value-quantity=gt5&_lastUpdated=gt2020&_count=5",
        "Observation?subject:Patient.name=x&_has:Provenance:target:agent=y",
        "Observation?patient.name=x",
        "Observation?category:not=x&_sort=-date&_include=Observation:encounter&_summary=true",
    ],
)
def test_parameters_that_fhir_defines_are_filters_whatever_the_ehr_lists(url: str) -> None:
    """(PX-07): also in a Bundle, for which the EHR is not asked."""
    held = "user/Observation.rs user/Patient.s user/Provenance.s user/Encounter.r user/*.r"

    assert own(url, held, searchable=None).checks is None
    assert own(batch(url), held, searchable=None).checks is None


@pytest.mark.parametrize(
    ("name", "is_listed"), [("mine", True), ("everywhere", True), ("mine:exact", True), ("yours", False)]
)
def test_a_parameter_that_the_ehr_lists_is_a_filter(name: str, *, is_listed: bool) -> None:
    """(PX-07): what it lists is asked only where it makes a difference."""
    url = f"Observation?{name}=x"

    with pytest.raises(SearchableWanted):
        own(url, "user/Observation.rs", searchable=None)
    assert (own(url, "user/Observation.rs", searchable=LISTED).checks is None) == is_listed


@pytest.mark.parametrize(
    "interaction", [ask("HEAD", "Patient?sessionID=C"), ask("GET", "Patient?sessionID=C&_elements=id"),
                    batch("Patient?sessionID=C")], ids=["head", "elements", "batch"]
)  # fmt: skip
def test_what_may_be_a_page_and_cannot_be_checked_is_refused(interaction: Interaction) -> None:
    """(PX-07)."""
    with pytest.raises(InsufficientScope):
        own(interaction, "system/Patient.rs")


@pytest.mark.parametrize(("searchable", "is_checked"), [((), True), (LISTED, False)])
def test_the_pages_after_what_may_be_another_searchs_are_checked_as_it_was(
    searchable: Searchable, *, is_checked: bool
) -> None:
    """(PX-07): though the broker's own link says that the scope's filter was said."""
    first = own("Observation?category=laboratory&mine=C", LABORATORY, searchable=searchable)

    for _ in range(2):
        added = LINKS.extend(first, "", QUERY)
        page = LINKS.follow(parse_page("GET", b"", QUERY.encode(), ()), added.removeprefix(f"&{PARAMETER}="), "f")
        first = own(page, LABORATORY, searchable=None)
        assert (first.checks is not None) == is_checked
