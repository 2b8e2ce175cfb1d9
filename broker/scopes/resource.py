"""One resource scope: level, type, letters, search parameters."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from urllib.parse import quote

LETTERS: Final = "cruds"
LEVELS: Final = ("patient", "user", "system")

Parameters: TypeAlias = tuple[tuple[str, str], ...]
Place: TypeAlias = tuple[str, str, Parameters]


@dataclass(frozen=True, slots=True)
class ResourceScope:
    """Access to one FHIR type, or to every type now and later (`*`, SC-08), at one level.

    `letters` is a subset of `cruds` in that order. `parameters` are decoded search pairs, sorted: all must hold.
    """

    level: str
    type: str
    letters: str
    parameters: Parameters = field(default=(), repr=False)

    def __str__(self) -> str:
        pairs = "&".join(f"{_encode(name)}={_encode(value)}" for name, value in self.parameters)
        return f"{self.level}/{self.type}.{self.letters}" + (f"?{pairs}" if pairs else "")

    @property
    def place(self) -> Place:
        """Everything but the letters."""
        return self.level, self.type, self.parameters

    def includes(self, other: "ResourceScope") -> bool:
        """Whether whatever `other` matches is matched by this one too, letters apart."""
        return (
            self.level == other.level
            and self.type in ("*", other.type)
            and set(self.parameters) <= set(other.parameters)
        )

    def meet(self, other: "ResourceScope") -> "ResourceScope | None":
        """Return what both allow, under the restrictions of both, or None."""
        type_ = other.type if self.type == "*" else self.type
        if self.level != other.level or other.type not in ("*", type_):
            return None
        letters = in_order(set(self.letters) & set(other.letters))
        parameters = sorted_pairs(self.parameters + other.parameters)
        return ResourceScope(self.level, type_, letters, parameters) if letters else None


def in_order(letters: Collection[str]) -> str:
    """Return the letters as SMART writes them, each once."""
    return "".join(letter for letter in LETTERS if letter in letters)


def sorted_pairs(pairs: Iterable[tuple[str, str]]) -> Parameters:
    """Return the pairs as they are compared: sorted, each once."""
    return tuple(sorted(set(pairs)))


def _encode(text: str) -> str:
    return quote(text, safe="/:|,")  # as SMART's own examples write them, and EHRs compare them
