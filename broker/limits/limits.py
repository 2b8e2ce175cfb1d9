"""What limits a handle beside its scopes: one value, and what is left of two of them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from ipaddress import ip_network
from typing import TypeAlias, TypeVar

from broker.limits.networks import Network, overlap

T = TypeVar("T")
Member: TypeAlias = str | int | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a handle is held to; None limits nothing. `Limits()` is no limit at all."""

    types: frozenset[str] | None = None
    """The FHIR types that may be read, searched or written, in whatever way an interaction reaches them."""
    interactions: frozenset[str] | None = None
    """`Interaction.code` of those that it may do; of a Bundle, of each entry."""
    not_before: int | None = None
    """Seconds since 1970. When it ends is no limit of its own: it is the end of the handle."""
    max_count: int | None = None
    """The most matches that one page of a search may be asked for."""
    read_only: bool = False
    network: tuple[Network, ...] | None = None
    """Where the caller's address must be; canonical."""

    def narrowed(self, by: "Limits") -> "Limits":
        """Return what both allow: the meet, in which nothing is wider than in either."""
        return Limits(
            types=_of_both(frozenset.intersection, self.types, by.types),
            interactions=_of_both(frozenset.intersection, self.interactions, by.interactions),
            not_before=_of_both(max, self.not_before, by.not_before),
            max_count=_of_both(min, self.max_count, by.max_count),
            read_only=self.read_only or by.read_only,
            network=_of_both(overlap, self.network, by.network),
        )

    def members(self) -> dict[str, Member]:
        """Return those that limit, as they are kept and told: by the names of the parameters, lists as sorted text."""
        members: dict[str, Member | None] = {
            "types": _text(self.types),
            "interactions": _text(self.interactions),
            "not_before": self.not_before,
            "max_count": self.max_count,
            "read_only": self.read_only or None,
            "network": None if self.network is None else " ".join(map(str, self.network)),
        }
        return {name: member for name, member in members.items() if member is not None}

    @classmethod
    def of_members(cls, members: Mapping[str, Member]) -> "Limits":
        """Return the limits that `members` gave. Raises `ValueError` for one that is not known: it cannot be kept."""
        if unknown := members.keys() - {field.name for field in fields(cls)}:
            raise ValueError(f"unknown limits: {', '.join(sorted(unknown))}")
        read = {"types": _words, "interactions": _words, "network": _networks}
        return cls(**{name: read[name](str(member)) if name in read else member for name, member in members.items()})  # type: ignore[arg-type]  # by name

    @property
    def names(self) -> str:
        """Which limits there are, for the audit record: no values."""
        return " ".join(self.members())

    @property
    def empty(self) -> str | None:
        """Return the name of a limit that leaves nothing at all; None where there is none."""
        lists = {"types": self.types, "interactions": self.interactions, "network": self.network}
        return next((name for name, listed in lists.items() if listed is not None and not listed), None)


def meet(limits: Iterable[Limits | None]) -> Limits | None:
    """Return what all of them allow; None where nothing is limited."""
    left = None
    for one in limits:
        left = _of_both(Limits.narrowed, left, one)
    return left


def _of_both(meet_of: Callable[[T, T], T], ours: T | None, theirs: T | None) -> T | None:
    if ours is None:
        return theirs
    return ours if theirs is None else meet_of(ours, theirs)


def _text(words: frozenset[str] | None) -> str | None:
    return None if words is None else " ".join(sorted(words))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(map(ip_network, text.split()))
