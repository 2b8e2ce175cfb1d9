"""Page links: what a next link without a type may do is what its search was allowed, and nobody can make one."""

from collections.abc import Callable

import pytest

from broker.credentials import KeyedHash
from broker.errors import UninterpretableInteraction
from broker.interactions import Need, parse_interaction
from broker.paging import PARAMETER, PageLinks
from tests.test_policy import decided

LINKS = PageLinks(KeyedHash(b"k" * 32))
QUERY = "_getpages=abc-1&_getpagesoffset=20"


def followed(raw_query: str, family: str = "f") -> tuple[Need, ...]:
    query, link = LINKS.take(raw_query.encode())
    return LINKS.restore(parse_interaction("GET", b"", query, (), None), link, family).needs


def test_a_page_needs_what_its_search_needed() -> None:
    permit = decided("GET", "Observation?category=x", held="user/Observation.s?category=x")

    assert followed(QUERY + LINKS.extend(permit, QUERY)) == permit.interaction.needs


def test_a_page_without_our_parameter_needs_every_type() -> None:
    assert followed(QUERY) == (Need("*", "s"),)


def test_our_parameter_is_not_forwarded() -> None:
    permit = decided("GET", "Observation", held="user/Observation.s")
    query, _ = LINKS.take((QUERY + LINKS.extend(permit, QUERY)).encode())

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
    permit = decided("GET", "Observation", held="user/Observation.s")
    link = change(QUERY + LINKS.extend(permit, QUERY))

    with pytest.raises(UninterpretableInteraction):
        followed(link)


def test_a_page_link_of_another_authorization_is_refused() -> None:
    permit = decided("GET", "Observation", held="user/Observation.s")

    with pytest.raises(UninterpretableInteraction):
        followed(QUERY + LINKS.extend(permit, QUERY), family="another")


def test_a_page_parameter_on_anything_but_a_page_is_refused() -> None:
    permit = decided("GET", "Observation", held="user/Observation.s")
    _, link = LINKS.take((QUERY + LINKS.extend(permit, QUERY)).encode())

    with pytest.raises(UninterpretableInteraction):
        LINKS.restore(parse_interaction("GET", b"Patient", b"", (), None), link, "f")
