"""What an EHR can be searched by, as its CapabilityStatement lists it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from broker.errors import EhrError
from broker.flows.describe_ehr import DescribeEhr
from broker.granular import Searchable


@dataclass(frozen=True, slots=True)
class SearchableParameters:
    """Reads the statement that is kept for `metadata`; each one once."""

    describe_ehr: DescribeEhr
    read: dict[str, tuple[bytes, Searchable]] = field(default_factory=dict)
    """By EHR: the statement, and what it lists."""

    async def __call__(self, ehr_id: str) -> Searchable:
        """Return types and names of parameters; nothing where the EHR does not say. Then nothing is relied upon."""
        try:
            statement = await self.describe_ehr.metadata(ehr_id)
        except EhrError:
            return frozenset()
        known, searchable = self.read.get(ehr_id, (b"", frozenset()))
        if known is not statement:
            searchable = frozenset(listed(json.loads(statement)))
            self.read[ehr_id] = statement, searchable
        return searchable


def listed(statement: Any) -> Iterator[tuple[str, str]]:
    """Yield the type and the name of each search parameter; type `*` for those of every type."""
    for part in _objects(statement, "rest"):
        if part.get("mode") != "server":
            continue
        yield from _names("*", part)
        for resource in _objects(part, "resource"):
            yield from _names(resource.get("type"), resource)


def _names(type_: Any, described: Any) -> Iterator[tuple[str, str]]:
    for parameter in _objects(described, "searchParam"):
        name = parameter.get("name")
        if isinstance(type_, str) and isinstance(name, str):
            yield type_, name


def _objects(described: Any, member: str) -> Iterator[dict[str, Any]]:
    """Yield the objects in a list: what an EHR wrote may be anything."""
    found = described.get(member) if isinstance(described, dict) else None
    yield from (one for one in found if isinstance(one, dict)) if isinstance(found, list) else ()
