"""What of an EHR's answer may be released, where the request alone does not say it. Pure.

A permit has checks where the EHR answers more than the handle may have: it was asked with a token that reaches beyond
the handle's patient, or under a scope with search parameters that the request does not say. A resource is released if
one of the rules allows it; what cannot be told is not released.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from broker.membership import Patient, is_shared, may_be_owned
from broker.scopes import Parameters
from broker.token_parameters import can_evaluate, satisfies

Shape: TypeAlias = Literal["resource", "searchset", "history", "batch"]
_OUTCOME: Final = "OperationOutcome"
_HOLDERS: Final = frozenset({"Bundle", "Parameters"})
"""Types that hold resources of any other type; within an answer, nobody looks into them."""
_UNREADABLE: Final = frozenset({"Binary", *_HOLDERS})
_ENTRY: Final = frozenset({"fullUrl", "id", "link", "request", "resource", "response", "search"})


@dataclass(frozen=True, slots=True)
class Rule:
    """What one need of the interaction opens: resources of one type, or with `*` of every."""

    type: str
    filters: tuple[Parameters, ...] = field(repr=False)
    """Search pairs, one group of which the resource has to have; without groups, any resource will do (SC-05)."""
    patient: Patient | None = field(default=None, repr=False)
    """Whose it has to be; None where the EHR sees to that, or where it may be anybody's."""
    with_shared: bool = False
    """What is nobody's is released, too."""

    def can_allow(self) -> bool:
        """Whether there are resources of which this can be told."""
        own = self.patient is None or self.type == "*" or may_be_owned(self.type)
        if self.type in _UNREADABLE or not (own or (self.with_shared and is_shared(self.type))):
            return False
        return not self.filters or any(
            all(can_evaluate(self.type, name, value) for name, value in pairs) for pairs in self.filters
        )

    def allows(self, type_: str, resource: Mapping[str, Any]) -> bool:
        """Whether it opens this resource."""
        if self.type not in {"*", type_}:
            return False
        if self.patient and not ((self.with_shared and is_shared(type_)) or self.patient.owns(resource)):
            return False
        return not self.filters or satisfies(resource, self.filters)


@dataclass(frozen=True, slots=True)
class Checks:
    """What must hold of an answer."""

    shape: Shape
    """A Bundle of one of three kinds, or one resource."""
    rules: tuple[Rule, ...]

    def allow(self, resource: Any) -> bool:
        """Whether a resource may be released.

        An OperationOutcome is the EHR's word on the request. A Bundle or Parameters within the answer is not; nor a
        resource that contains others, unless those are nobody's, since no rule opens them by themselves.
        """
        type_ = resource.get("resourceType") if isinstance(resource, dict) else None
        if not isinstance(type_, str) or type_ in _HOLDERS or not _is_plain(resource):
            return False
        return type_ == _OUTCOME or any(rule.allows(type_, resource) for rule in self.rules)

    def allow_entry(self, entry: Any) -> bool:
        """Whether an entry of the Bundle may be released. One without a resource tells of one that is hidden.

        Not in the answer to a batch: what was asked for there is known to who asked.
        """
        if not isinstance(entry, dict) or not _ENTRY.issuperset(entry):
            return False
        response = entry.get("response", {})
        if not isinstance(response, dict) or not self._is_outcome(response.get("outcome")):
            return False
        if "resource" in entry:
            return self.allow(entry["resource"])
        return self.shape == "batch" and _is_error(response)

    def _is_outcome(self, outcome: Any) -> bool:
        return outcome is None or (
            isinstance(outcome, dict) and outcome.get("resourceType") == _OUTCOME and _is_plain(outcome)
        )


def _is_error(response: dict[str, Any]) -> bool:
    """Whether it says that nothing is answered, and no more. *Not modified* tells of what may not be read."""
    status = response.get("status")
    return isinstance(status, str) and status[:1] in {"4", "5"} and response.keys() <= {"id", "outcome", "status"}


def _is_plain(resource: dict[str, Any]) -> bool:
    """Whether it reads the same without regard to case, and contains nothing but what is nobody's."""
    if len({name.casefold() for name in resource}) != len(resource):
        return False
    contained = resource.get("contained", [])
    return isinstance(contained, list) and all(map(_is_nobodys, contained))


def _is_nobodys(contained: Any) -> bool:
    if not isinstance(contained, dict) or "contained" in contained:
        return False
    type_ = contained.get("resourceType")
    return isinstance(type_, str) and is_shared(type_)
