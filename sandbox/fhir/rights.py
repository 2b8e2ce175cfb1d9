"""What an access token may do to which resource. Empty means no."""

from functools import cached_property

from sandbox.access import Access
from sandbox.fhir.compartment import SHARED_TYPES, patient_of
from sandbox.fhir.matching import matches
from sandbox.fhir.outcome import FhirError, forbidden
from sandbox.fhir.query import Criterion, parse_condition
from sandbox.fhir.scopes import Permission, parse_permissions
from sandbox.population.elements import Resource

_VERBS = {"c": "create", "r": "read", "u": "update", "d": "delete", "s": "search"}


class Rights:
    """The decisions that follow from one Access."""

    def __init__(self, access: Access) -> None:
        self.access = access

    @cached_property
    def _permissions(self) -> tuple[Permission, ...]:
        """Without a launch patient, `patient/` scopes open nothing."""
        permissions = parse_permissions(self.access.scopes)
        return tuple(p for p in permissions if p.level != "patient" or self.access.patient)

    def cover(self, letter: str, type_: str) -> bool:
        """Tell whether some resource of the type might be open to this interaction."""
        return bool(self._for(letter, type_))

    def require(self, letter: str, type_: str) -> None:
        """Raise FhirError (403) when no resource of the type is open to this interaction."""
        if not self.cover(letter, type_):
            raise forbidden(f"The access token has no scope to {_VERBS[letter]} {type_}.")

    def allow(self, letter: str, resource: Resource) -> bool:
        """Tell whether this resource is open to this interaction."""
        return any(self._admits(p, letter, resource) for p in self._for(letter, resource["resourceType"]))

    def require_for(self, letter: str, resource: Resource) -> None:
        """Raise FhirError (403) when this resource is not open to this interaction."""
        type_ = resource["resourceType"]
        self.require(letter, type_)
        if not self.allow(letter, resource):
            raise forbidden(f"The access token's scopes do not let it {_VERBS[letter]} this {type_}.")

    def confined_to(self, letter: str, type_: str) -> str | None:
        """Return the launch patient when nothing of this type outside that chart is open; None when more is."""
        levels = {permission.level for permission in self._for(letter, type_)}
        return self.access.patient if levels == {"patient"} and type_ not in SHARED_TYPES else None

    def _for(self, letter: str, type_: str) -> list[Permission]:
        return [p for p in self._permissions if p.type in {"*", type_} and letter in p.letters]

    def _admits(self, permission: Permission, letter: str, resource: Resource) -> bool:
        if permission.level == "patient" and patient_of(resource) != self.access.patient:
            shared = resource["resourceType"] in SHARED_TYPES and letter in "rs"
            if not shared:
                return False
        return all(_satisfies(resource, name, value) for name, value in permission.filters)


def _satisfies(resource: Resource, name: str, value: str) -> bool:
    """Tell whether a scope's filter holds; one that cannot be evaluated admits nothing (SC-06)."""
    try:
        condition = parse_condition(resource["resourceType"], name, value)
        if not isinstance(condition, Criterion):
            return False
        return any(matches(condition.parameter, condition.modifier, v, resource) for v in condition.values)
    except FhirError:
        return False
