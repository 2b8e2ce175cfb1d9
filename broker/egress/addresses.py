"""Which addresses the broker connects to: the public Internet, and what the operator has named (DS-15). Pure.

IPv4 has a table of what is not public, from IANA's special-purpose registry; of IPv6 only global unicast is public, and
of that not what tunnels to an IPv4 address that was not looked at.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_NOT_PUBLIC_4: Final = {
    IPv4Network(network): kind
    for network, kind in {
        "0.0.0.0/8": "unspecified",
        "10.0.0.0/8": "private",
        "100.100.100.200/32": "metadata",  # Alibaba's
        "100.64.0.0/10": "shared (RFC 6598)",
        "127.0.0.0/8": "loopback",
        "168.63.129.16/32": "metadata",  # Azure's, in the middle of public space
        "169.254.0.0/16": "link-local",  # with 169.254.169.254, the metadata of most clouds
        "172.16.0.0/12": "private",
        "192.0.0.192/32": "metadata",  # Oracle's
        "192.0.0.0/24": "reserved",
        "192.0.2.0/24": "documentation",
        "192.88.99.0/24": "6to4 relay",
        "192.168.0.0/16": "private",
        "198.18.0.0/15": "benchmarking",
        "198.51.100.0/24": "documentation",
        "203.0.113.0/24": "documentation",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "reserved",
    }.items()
}
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_SAME_AS_4: Final = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
"""Another way to write an IPv4 address, and the way that NAT64 reaches one by (RFC 4291 §2.5.5.2, RFC 6052 §2.1)."""
_NOT_PUBLIC_6: Final = {
    IPv6Network(network): kind
    for network, kind in {
        "::/128": "unspecified",
        "::1/128": "loopback",
        "::/96": "IPv4-compatible",
        "::ffff:0:0:0/96": "IPv4-translated",
        "fd00:42::42/128": "metadata",  # Scaleway's
        "fd00:c1::a9fe:a9fe/128": "metadata",  # Oracle's
        "fd00:ec2::254/128": "metadata",  # Amazon's
        "fd20:ce::254/128": "metadata",  # Google's
        "64:ff9b:1::/48": "NAT64",  # a network's own (RFC 8215)
        "fc00::/7": "private",
        "fe80::/10": "link-local",
        "ff00::/8": "multicast",
        "2001::/32": "Teredo",
        "2001::/23": "reserved",
        "2001:db8::/32": "documentation",
        "2002::/16": "6to4",
        "3fff::/20": "documentation",
    }.items()
}
_ISATAP: Final = frozenset({0x5EFE, 0x200_5EFE})
"""What stands before the IPv4 address that such an address tunnels to, in any prefix (RFC 5214 §6.1)."""
_TUNNELS: Final = frozenset({"IPv4-compatible", "IPv4-translated", "NAT64", "6to4", "Teredo", "ISATAP"})
"""What may lead on to an IPv4 address that it holds."""
_NEVER: Final = frozenset({"unspecified", "link-local", "metadata", "multicast"})
"""What no host of an EHR is at, whoever names it: clouds hand out credentials there."""


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """What the operator has named: `allow_private_hosts`, and loopback where plain http to it is allowed."""

    names: frozenset[str] = frozenset()
    addresses: frozenset[Address] = frozenset()
    loopback: bool = False

    @classmethod
    def of(cls, hosts: Collection[str], *, loopback: bool = False) -> "AllowedHosts":
        """Read names and addresses."""
        parsed = {host: literal(host) for host in hosts}
        return cls(
            frozenset(host_name(host) for host, address in parsed.items() if address is None),
            frozenset(address for address in parsed.values() if address is not None),
            loopback,
        )

    def refusal(self, host: str, address: Address) -> str | None:
        """Say why `address`, which `host` resolved to, is not connected to; None if it may be."""
        kind = kind_of(address)
        if kind is None:
            return None
        named = host_name(host) in self.names or address in self.addresses
        own = self.loopback and kind == "loopback" and host_name(host) in LOOPBACK_HOSTS
        if own or (named and kind not in _NEVER):
            return None
        fix = "" if kind in _NEVER else "; allow_private_hosts does not name it"
        return f"a host has a {kind} address{fix} (DS-15)"


def kind_of(address: Address) -> str | None:
    """Say what an address is if it is not a public one; None for a public one.

    One that is another way to write an IPv4 address is what that one is; one that tunnels to what is never connected to
    is that, too.
    """
    if isinstance(address, IPv4Address):
        return _listed(address, _NOT_PUBLIC_4)
    if any(address in network for network in _SAME_AS_4):
        return kind_of(_last_32_bits(address))
    kind = _listed(address, _NOT_PUBLIC_6) or ("ISATAP" if int(address) >> 32 & 0xFFFFFFFF in _ISATAP else None)
    kind = kind or (None if address in _GLOBAL_UNICAST else "reserved")
    inner = kind_of(_carried(address)) if kind in _TUNNELS else None
    return inner if inner in _NEVER else kind


def _listed(address: Address, table: Mapping[IPv4Network, str] | Mapping[IPv6Network, str]) -> str | None:
    return next((kind for network, kind in table.items() if address in network), None)


def _carried(address: IPv6Address) -> IPv4Address:
    return address.sixtofour or (address.teredo[1] if address.teredo else _last_32_bits(address))


def _last_32_bits(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFFFFFF)


def literal(host: str) -> Address | None:
    """Return the address that a URL's host is written as; None for a name."""
    try:
        return ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def host_name(host: str) -> str:
    """Return the name as names are compared: small letters, no dot at the end."""
    return host.lower().removesuffix(".")
