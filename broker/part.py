"""One interaction, or one entry of a Bundle, while it is decided; and what the handle holds that it is decided by."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from broker.interactions import Interaction, Need
from broker.interactions.restrict import restrict
from broker.membership import Patient
from broker.release import Rule, Shape
from broker.scopes import Parameters, Scopes

WIDE: Final = ("user", "system")
OWN: Final = ("patient",)
"""Levels of scopes: for many patients, and for the one in context."""
_ANYTHING: Final = Need("*", "s")
_SHAPES: Final[Mapping[str, Shape]] = {
    "read": "resource",
    "vread": "resource",
    "history-instance": "history",
    "search-type": "searchset",
    "search-compartment": "searchset",
    "search-system": "searchset",
    "search-page": "searchset",
}
_REWRITTEN: Final = frozenset({"search-type", "search-compartment"})
_OPERATIONS: Final = frozenset({"$docref", "$everything", "$lastn"})
"""Those that answer a Bundle of what they found."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a handle holds, and of whom."""

    scopes: Scopes
    """Of the handle, its grant and the policies together."""
    granted: Scopes
    """What the EHR's token opens."""
    in_context: str | None = field(repr=False)
    only: str | None = field(repr=False)
    """The one patient that the handle was narrowed to."""
    fhir_base: str
    of_any_type: bool
    """No limit keeps it to some types."""

    def covers(self, need: Need, levels: tuple[str, ...]) -> bool:
        """Whether scopes allow it as the request is, their parameters said."""
        return self.scopes.covers(need.type, need.letter, parameters=need.parameters, levels=levels)

    def is_filter(self, need: Need) -> bool:
        """Whether what covers it does so for its parameters' sake."""
        return bool(need.parameters) and not self.scopes.covers(need.type, need.letter)

    def reaches_further(self, need: Need) -> bool:
        """Whether the EHR's token opens anything of this need beyond the patient; filters do not make it narrower."""
        return any(
            scope.level in WIDE
            and need.letter in scope.letters
            and (scope.type in {"*", need.type} or need.type == "*")
            for scope in self.granted.resources
        )

    @property
    def is_everything(self) -> bool:
        """Whether the handle may be shown whatever the EHR's token opens."""
        is_own = self.covers(_ANYTHING, OWN) and not self.reaches_further(_ANYTHING)
        return self.of_any_type and (is_own or self.covers(_ANYTHING, WIDE))

    def rules(self, need: Need) -> tuple[Rule, ...]:
        """Return what opens resources to this need, whatever the request says."""
        further = self.reaches_further(need)
        rules = []
        for levels, patient in ((WIDE, self.only), (OWN, self.only or self.in_context)):
            groups = self.scopes.filters(need.type, need.letter, levels)
            if groups and (patient or levels == WIDE):
                whose = Patient(patient, self.fhir_base) if patient and further else None
                rules.append(Rule(need.type, () if () in groups else groups, whose, with_shared=levels == WIDE))
        return tuple(rules)


@dataclass(slots=True)
class Part:
    """What is decided of one interaction, while it is decided."""

    held: Held
    interaction: Interaction
    rewritable: bool
    """It goes on by itself, not in a Bundle that is passed on as it came."""
    patient: str | None = None
    bound: list[int] = field(default_factory=list)
    """Needs, by number, that can only be about the patient, as the request is or will be."""
    unsaid: list[int] = field(default_factory=list)
    """Needs of which each resource in the answer has to be checked."""
    is_filtered: bool = False
    """The search says the parameters of a scope."""
    is_added_to: bool = False
    """The broker has made it say more."""
    rules: tuple[Rule, ...] = ()
    """What opens resources of the answer; empty where it need not be looked at."""
    by: str = field(init=False)
    """Which kind of scope covers it, by name."""

    @property
    def reason(self) -> str:
        """What allowed it, in codes (`docs/operations.md` says what they mean)."""
        codes = {"bound": self.bound, "filtered": self.is_filtered, "added": self.is_added_to, "checked": self.rules}
        return " ".join([self.by, *(code for code, holds in codes.items() if holds)])

    @property
    def relies_on_search(self) -> bool:
        """Whether it counts on the EHR honouring a search parameter, so that it must be told not to ignore one."""
        return bool(self.bound) or self.is_filtered or self.is_added_to

    @property
    def needs(self) -> tuple[Need, ...]:
        """The needs; those that can only be about the patient say so."""
        return tuple(
            replace(need, bound_to=self.patient) if number in self.bound else need
            for number, need in enumerate(self.interaction.needs)
        )

    @property
    def shape(self) -> Shape | None:
        """What an answer looks like that can be looked at."""
        part = self.interaction
        if part.kind == "operation":
            return "searchset" if part.operation in _OPERATIONS else None
        return _SHAPES.get(part.kind)

    def add(self, pairs: Parameters, *, patient: str | None = None) -> None:
        """Let the search say more."""
        part = self.interaction
        self.interaction = restrict(part, part.needs[0], pairs, patient=patient)
        self.is_added_to = True

    def may_add(self, number: int) -> bool:
        """Whether a search's own parameters restrict this need, and it is not that of a `_revinclude`, too."""
        part = self.interaction
        is_own = number == 0 and part.kind in _REWRITTEN
        is_alone = bool(part.needs[0].parameters) or not any(name.startswith("_rev") for name, _ in part.parameters)
        return self.rewritable and is_own and is_alone

    def can_check(self, number: int) -> bool:
        """Whether the need is about what is answered, and about nothing that only the EHR looks at (chains, `_has`)."""
        part = self.interaction
        is_answered = part.needs[number].letter == "r" or not any(is_about_others(name) for name, _ in part.parameters)
        return is_answered and self.shape is not None


def is_about_others(parameter: str) -> bool:
    """Whether a search parameter asks about resources beside those that are answered."""
    return parameter.partition(":")[0] == "_has" or "." in parameter
