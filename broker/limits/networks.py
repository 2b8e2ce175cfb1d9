"""Networks that a caller must be in, each network written in one way only, so that sets of them can be compared.

An IPv4 address that is written as an IPv6 one (`::ffff:203.0.113.7`, RFC 4291 §2.5.5.2) is the IPv4 address: a socket
that takes both shows it like that. So `::/0` is every caller by IPv6, and no caller by IPv4.
"""

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_MAPPED_BITS: Final = 96


def read_network(text: str) -> Network:
    """Return the network that `text` names: an address, or one with a prefix length. Raises `ValueError`."""
    try:
        network = ip_network(text)
    except ValueError:
        network = None
    if network is None or "%" in text:
        raise ValueError("must be an address or a network, such as 203.0.113.0/24 or 2001:db8::/32, without host bits")
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    return network if mapped is None else IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def plain_address(text: str) -> Address | None:
    """Return the address of a caller, IPv4 where it is that; None for what is no address."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Whether a plain address is in one of the networks."""
    return any(address in network for network in networks)


def canonical(networks: Iterable[Network]) -> tuple[Network, ...]:
    """Return the one shortest list of networks that holds the same addresses."""
    listed = list(networks)
    fours = collapse_addresses(network for network in listed if isinstance(network, IPv4Network))
    sixes = collapse_addresses(network for network in listed if isinstance(network, IPv6Network))
    return (*fours, *sixes)


def overlap(ours: Iterable[Network], theirs: Iterable[Network]) -> tuple[Network, ...]:
    """Return the addresses that both have. Of two networks one holds the other, or they have nothing in common."""
    others = list(theirs)
    return canonical(
        max(one, other, key=lambda network: network.prefixlen)
        for one in ours
        for other in others
        if one.overlaps(other)
    )
