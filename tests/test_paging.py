"""Page links: what a next link may do that does not say it is what its search was allowed; nobody can make one."""

from collections.abc import Callable

import pytest

from broker.credentials import KeyedHash
from broker.errors import UninterpretableInteraction
from broker.interactions import Need, parse_page
from broker.paging import PARAMETER, PageLinks
from tests.test_policy import decided

LINKS = PageLinks(KeyedHash(b"k" * 32))
QUERY = "_getpages=abc-1&_getpagesoffset=20"


def followed(url: str, family: str = "f", method: str = "GET") -> tuple[Need, ...]:
    path, _, raw_query = url.rpartition("?")
    query, link = LINKS.take(raw_query.encode())
    assert link is not None
    return LINKS.follow(parse_page(method, path.encode(), query, ()), link, family).needs


def test_a_page_needs_what_its_search_needed() -> None:
    """PX-07."""
    permit = decided("GET", "Observation?category=x", held="user/Observation.s?category=x")

    assert followed(QUERY + LINKS.extend(permit, "", QUERY)) == permit.interaction.needs


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
