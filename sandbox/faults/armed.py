"""Which faults are armed, and which of them strikes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.faults.fault import FOREVER, Fault
from sandbox.faults.table import FAULTS

_BY_NAME = {fault.name: fault for fault in FAULTS}


class FaultError(ValueError):
    """A fault that cannot be armed; the text says what to change."""


@dataclass(slots=True)
class Armed:
    """A fault that waits to strike, for one client or for any."""

    fault: Fault
    left: int
    client_id: str | None
    parameters: Mapping[str, Any]
    struck: int = 0

    def matches(self, point: str, client_id: str | None) -> bool:
        """Say whether it would strike here and now."""
        return self.left != 0 and self.fault.point == point and self.client_id in {None, client_id}

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "name": self.fault.name,
            "left": self.left,
            "struck": self.struck,
            "client_id": self.client_id,
            **self.parameters,
        }


class Faults:
    """The armed faults, in the order they were armed."""

    def __init__(self) -> None:
        self._armed: list[Armed] = []

    def arm(self, document: Any) -> Armed:
        """Arm what `{name, times?, client_id?, …parameters}` asks for, or raise `FaultError`."""
        if not isinstance(document, dict) or document.get("name") not in _BY_NAME:
            raise FaultError(f"name is one of {', '.join(sorted(_BY_NAME))}")
        fault = _BY_NAME[document["name"]]
        given = {name: value for name, value in document.items() if name not in {"name", "times", "client_id"}}
        for name, value in given.items():
            if name not in fault.parameters:
                raise FaultError(f"{fault.name} takes {', '.join(fault.parameters) or 'no parameters'}, not {name}")
            if not _same_type(value, fault.parameters[name]):
                raise FaultError(f"{name} must be like {fault.parameters[name]!r}")
        times, client_id = document.get("times", fault.times), document.get("client_id")
        if type(times) is not int or (times < 1 and times != FOREVER):
            raise FaultError(f"times is a positive number, or {FOREVER} for until it is deleted")
        if not isinstance(client_id, str | None):
            raise FaultError("client_id is a string")
        armed = Armed(fault, times, client_id, {**fault.parameters, **given})
        self._armed.append(armed)
        return armed

    def next(self, point: str, client_id: str | None = None) -> Armed | None:
        """Let the first fault waiting at this point strike, and return it."""
        return next(self._strike(point, client_id), None)

    def all(self, point: str, client_id: str | None = None) -> list[Armed]:
        """Let every fault waiting at this point strike once, and return them."""
        return list(self._strike(point, client_id))

    def listing(self) -> list[dict[str, Any]]:
        """Return the faults still waiting, as JSON."""
        return [armed.document() for armed in self._armed if armed.left != 0]

    def clear(self) -> None:
        """Disarm everything."""
        self._armed.clear()

    def _strike(self, point: str, client_id: str | None) -> Iterator[Armed]:
        for armed in self._armed:
            if armed.matches(point, client_id):
                armed.struck += 1
                armed.left -= armed.left > 0
                yield armed


def edit(document: Mapping[str, Any], struck: Armed) -> dict[str, Any]:
    """Return a document with the members an `edit` fault sets and without those it drops."""
    kept = {name: value for name, value in document.items() if name not in struck.parameters["drop"]}
    return {**kept, **struck.parameters["set"]}


def _same_type(value: Any, default: Any) -> bool:
    number = (int, float)
    if isinstance(default, number) and not isinstance(default, bool):
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, type(default))
