"""Every resource with every version it had, in memory, indexed by patient."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from sandbox.fhir.compartment import PATIENT_ELEMENT, patient_of
from sandbox.fhir.outcome import FhirError
from sandbox.population.elements import Population, Resource, instant

Key = tuple[str, str]
"""Type and id."""


@dataclass(frozen=True, slots=True)
class Version:
    """One entry of an instance's history; `resource` is None where it was deleted."""

    number: int
    method: str
    updated: str
    resource: Resource | None


class Repository:
    """The store. What it hands out is its own: callers read it and never change it."""

    def __init__(self, population: Population, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._current = {type_: dict(resources) for type_, resources in population.items()}
        self._past: dict[Key, tuple[Version, ...]] = {}
        self._charts: dict[Key, dict[str, None]] = {}
        for resources in self._current.values():
            for resource in resources.values():
                self._index(resource)

    def copy(self, clock: Callable[[], float]) -> "Repository":
        """Return one that begins as this one is, and goes its own way; who is in whose chart is not found out again."""
        other = Repository({}, clock)
        other._current = {type_: dict(resources) for type_, resources in self._current.items()}
        other._past = dict(self._past)
        other._charts = {key: dict(ids) for key, ids in self._charts.items()}
        return other

    def get(self, key: Key) -> Resource | None:
        """Return the current version, or None when there is none."""
        return self._current.get(key[0], {}).get(key[1])

    def read(self, key: Key) -> Resource:
        """Return the current version; raises FhirError 404, or 410 when it was deleted."""
        resource = self.get(key)
        if resource is not None:
            return resource
        if key in self._past:
            raise FhirError(410, "deleted", f"{key[0]}/{key[1]} was deleted.")
        raise FhirError(404, "not-found", f"There is no {key[0]}/{key[1]}.")

    def versions(self, key: Key) -> tuple[Version, ...]:
        """All versions, oldest first; raises FhirError 404 when there never was one."""
        return self._past[key] if key in self._past else (_first_version(self.read(key)),)

    def every(self, type_: str, patient: str | None = None) -> Iterator[Resource]:
        """All current resources of a type, or those of one patient's chart, in order of creation."""
        resources = self._current.get(type_, {})
        if patient is None:
            yield from resources.values()
        else:
            yield from (resources[id_] for id_ in self._charts.get((type_, patient), ()))

    def chart(self, patient: str) -> Iterator[Resource]:
        """Return the patient and everything in the patient's compartment."""
        for type_ in ("Patient", *PATIENT_ELEMENT):
            yield from self.every(type_, patient)

    def put(self, resource: Resource, method: str) -> Resource:
        """Store the next version of `resource` (whose type and id are set) and answer it as stored."""
        key = resource["resourceType"], resource["id"]
        earlier = self._history(key)
        number = earlier[-1].number + 1 if earlier else 1
        meta = {**resource.get("meta", {}), "versionId": str(number), "lastUpdated": self._now()}
        stored = {"resourceType": key[0], "id": key[1], "meta": meta, **_body(resource)}
        self._unindex(key)
        self._current.setdefault(key[0], {})[key[1]] = stored
        self._index(stored)
        self._past[key] = (*earlier, Version(number, method, meta["lastUpdated"], stored))
        return stored

    def delete(self, key: Key) -> None:
        """End a resource; its history stays."""
        earlier = self._history(key)
        self._unindex(key)
        del self._current[key[0]][key[1]]
        self._past[key] = (*earlier, Version(earlier[-1].number + 1, "DELETE", self._now(), None))

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Undo every change made inside when the block raises."""
        current = {type_: dict(resources) for type_, resources in self._current.items()}
        past = dict(self._past)
        charts = {key: dict(ids) for key, ids in self._charts.items()}
        try:
            yield
        except BaseException:
            self._current, self._past, self._charts = current, past, charts
            raise

    def _history(self, key: Key) -> tuple[Version, ...]:
        current = self.get(key)
        return self._past.get(key) or ((_first_version(current),) if current else ())

    def _index(self, resource: Resource) -> None:
        patient = patient_of(resource)
        if patient is not None:
            self._charts.setdefault((resource["resourceType"], patient), {})[resource["id"]] = None

    def _unindex(self, key: Key) -> None:
        current = self.get(key)
        patient = patient_of(current) if current else None
        if patient is not None:
            self._charts[key[0], patient].pop(key[1], None)

    def _now(self) -> str:
        return instant(datetime.fromtimestamp(self._clock(), UTC))


def _first_version(resource: Resource) -> Version:
    return Version(1, "POST", resource["meta"]["lastUpdated"], resource)


def _body(resource: Resource) -> Resource:
    return {name: value for name, value in resource.items() if name not in {"resourceType", "id", "meta"}}
