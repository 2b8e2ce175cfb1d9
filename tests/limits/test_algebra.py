"""Limits meet: nothing that comes out is wider than what went in (HB-05)."""

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.limits import Address, Limits, Network, canonical, meet, plain_address, read_network
from broker.limits.networks import is_within, overlap

TYPES = ("Condition", "Observation", "Patient")
INTERACTIONS = ("$everything", "read", "search-type")
FOUR_BITS = range(16)


def subset(words: tuple[str, ...]) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(words))


@st.composite
def small_networks(draw: st.DrawFn) -> Network:
    """Of the sixteen addresses 10.0.0.0/28 or 2001:db8::/124, so that they overlap often."""
    version, bits = draw(st.sampled_from([4, 6])), draw(st.integers(0, 4))
    host = draw(st.sampled_from(FOUR_BITS)) >> bits << bits
    return ip_network(f"10.0.0.{host}/{32 - bits}" if version == 4 else f"2001:db8::{host:x}/{128 - bits}")


networks = st.lists(small_networks(), max_size=4).map(canonical)
limits = st.builds(
    Limits,
    types=st.none() | subset(TYPES),
    interactions=st.none() | subset(INTERACTIONS),
    not_before=st.none() | st.integers(0, 9),
    max_count=st.none() | st.integers(1, 9),
    read_only=st.booleans(),
    network=st.none() | networks,
)
ADDRESSES: list[Address] = [
    *(IPv4Address(f"10.0.0.{host}") for host in FOUR_BITS),
    *(IPv6Address(f"2001:db8::{host:x}") for host in FOUR_BITS),
]


def allowed(one: Limits) -> set[tuple[object, ...]]:
    """Write out what limits allow in a small world, by the plainest reading of each."""
    return {
        ("types", type_) for type_ in TYPES if one.types is None or type_ in one.types
    } | {
        ("interactions", name) for name in INTERACTIONS if one.interactions is None or name in one.interactions
    } | {
        ("not_before", at) for at in range(10) if one.not_before is None or at >= one.not_before
    } | {
        ("max_count", count) for count in range(1, 10) if one.max_count is None or count <= one.max_count
    } | {
        ("writes", write) for write in (False, True) if not (write and one.read_only)
    } | {
        ("network", address)
        for address in ADDRESSES
        if one.network is None or any(address in network for network in one.network)
    }  # fmt: skip


@given(limits, limits)
def test_the_meet_allows_what_both_allow_and_nothing_else(one: Limits, other: Limits) -> None:
    assert allowed(one.narrowed(other)) == allowed(one) & allowed(other)


@given(limits, limits)
def test_the_meet_is_commutative(one: Limits, other: Limits) -> None:
    assert one.narrowed(other) == other.narrowed(one)


@given(limits, limits, limits)
def test_the_meet_is_associative(one: Limits, other: Limits, third: Limits) -> None:
    assert one.narrowed(other).narrowed(third) == one.narrowed(other.narrowed(third))


@given(limits)
def test_the_meet_is_idempotent_and_no_limit_takes_nothing_away(one: Limits) -> None:
    assert one.narrowed(one) == one.narrowed(Limits()) == Limits().narrowed(one) == one


@given(st.lists(st.none() | limits, max_size=4))
def test_the_meet_of_several_is_that_of_those_that_limit(several: list[Limits | None]) -> None:
    found = meet(several)

    if found is None:
        assert set(several) <= {None}
    else:
        assert allowed(found) == set.intersection(*(allowed(one) for one in several if one is not None))


@given(limits)
def test_limits_are_kept_as_they_are(one: Limits) -> None:
    assert Limits.of_members(one.members()) == one
    assert one.names.split() == list(one.members())


def test_what_is_not_limited_is_not_kept() -> None:
    assert Limits().members() == {}
    one = Limits(types=frozenset({"Patient", "Condition"}), max_count=3, read_only=True, network=canonical([]))
    assert one.members() == {"types": "Condition Patient", "max_count": 3, "read_only": True, "network": ""}


@pytest.mark.parametrize("members", [{"purpose": "billing"}, {"read_only": True, "types_": "Patient"}])
def test_a_limit_that_this_broker_does_not_know_is_not_passed_over(members: dict[str, str | bool]) -> None:
    """A newer replica wrote it: the handle does not work here, rather than without its limit."""
    with pytest.raises(ValueError, match="unknown limits"):
        Limits.of_members(members)


@given(limits)
def test_a_limit_that_leaves_nothing_is_named(one: Limits) -> None:
    nothing = {name for name in ("types", "interactions", "network") if getattr(one, name) in (frozenset(), ())}

    assert (one.empty in nothing) if nothing else (one.empty is None)


@given(networks, networks)
def test_networks_overlap_in_the_addresses_of_both(ours: tuple[Network, ...], theirs: tuple[Network, ...]) -> None:
    found = overlap(ours, theirs)

    assert found == canonical(found)
    for address in ADDRESSES:
        assert is_within(address, found) is (is_within(address, ours) and is_within(address, theirs))


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("203.0.113.7", "203.0.113.7/32"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("2001:DB8:0::1", "2001:db8::1/128"),
        ("::ffff:203.0.113.0/120", "203.0.113.0/24"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:cb00:7107", "203.0.113.7/32"),
        ("::/0", "::/0"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("203.0.113.0/255.255.255.0", "203.0.113.0/24"),
    ],
)
def test_a_network_is_read_in_one_way(text: str, network: str) -> None:
    assert str(read_network(text)) == network


@pytest.mark.parametrize(
    "text",
    ["", "203.0.113.7/24", "203.0.113.0/33", "203.0.113", "example.org", "fe80::%eth0/64", "2001:db8::1/32", "*"],
)
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be an address or a network"):
        read_network(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("::FFFF:CB00:7107", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::203.0.113.7", "::cb00:7107"),
        ("64:ff9b::203.0.113.7", "64:ff9b::cb00:7107"),
    ],
)
def test_an_ipv4_address_is_one_however_the_socket_shows_it(text: str, address: str) -> None:
    assert str(plain_address(text)) == address


@pytest.mark.parametrize("text", ["", "unknown", "203.0.113.7:443", "[2001:db8::1]", "_hidden", "203.0.113.07", "1"])
def test_what_is_no_address_is_nobody_s(text: str) -> None:
    assert plain_address(text) is None


@pytest.mark.parametrize("network", ["::/0", "::fffe:0:0/95"])
def test_a_network_of_ipv6_holds_no_caller_by_ipv4(network: str) -> None:
    address = plain_address("::ffff:203.0.113.7")
    assert address is not None

    assert not is_within(address, [read_network(network)])
