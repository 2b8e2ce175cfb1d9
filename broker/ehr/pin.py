"""What was found first stays in use: a later document that names another host waits for an operator (DS-15). Pure.

Where an EHR's documents are answered by somebody else (a stolen name, a captive portal, a proxy's mistake), what they
say must not decide where client secrets, codes and refresh tokens are sent (RFC 9700 §4.4).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from broker.ehr.endpoints import Endpoints
from broker.origins import origin

_LONGEST_DOCUMENT: Final = 64 * 1024
_DEEPEST_DOCUMENT: Final = 32
_HOST: Final = re.compile(r"[A-Za-z0-9.\-\[\]:]{1,260}")


@dataclass(frozen=True, slots=True)
class Move:
    """A member that names another place than the one in use."""

    member: str
    pinned: str | None
    """An origin, or for `issuer` the issuer; None where there was none."""
    found: str | None

    def __str__(self) -> str:
        return f"{self.member}: {shown(self.pinned)} -> {shown(self.found)}"


@dataclass(frozen=True, slots=True)
class Pin:
    """The endpoints in use, and those that wait for an operator."""

    endpoints: Endpoints
    answered_at: float
    """Seconds: when the EHR last answered discovery, whatever it said."""
    quarantined: Endpoints | None = None

    def meet(self, found: Endpoints, now: float) -> "Pin":
        """Return what is known after the EHR said `found`: taken if its places are the same, else quarantined.

        A CapabilityStatement says less than the smart-configuration that it stands in for, so what that one said stays.
        """
        if moves(self.endpoints, found):
            return replace(self, answered_at=now, quarantined=found)
        return Pin(self.endpoints if _says_less(found, self.endpoints) else found, now)

    def approve(self) -> "Pin":
        """Return it with what was quarantined in use. Without a quarantine, the same."""
        return Pin(self.quarantined, self.answered_at) if self.quarantined is not None else self

    @property
    def moves(self) -> tuple[Move, ...]:
        """What the quarantined endpoints have otherwise."""
        return moves(self.endpoints, self.quarantined) if self.quarantined is not None else ()

    def encode(self) -> bytes:
        """Return the record."""
        waiting = _bounded(self.quarantined) if self.quarantined is not None else None
        return json.dumps(asdict(replace(self, endpoints=_bounded(self.endpoints), quarantined=waiting))).encode()

    @classmethod
    def decode(cls, record: bytes) -> "Pin":
        """Read what `encode` wrote."""
        members: dict[str, Any] = json.loads(record)
        waiting = members["quarantined"]
        return cls(_endpoints(members["endpoints"]), members["answered_at"], _endpoints(waiting) if waiting else None)


def moves(pinned: Endpoints, found: Endpoints) -> tuple[Move, ...]:
    """Return what `found` has at another origin than `pinned`, or another issuer.

    A member that was not there before may lie at any origin that is in use already; one that is gone moves nothing,
    since nothing is sent there. The issuer is compared exactly (ID-03), and losing it counts.
    """
    before, after = pinned.urls(), found.urls()
    in_use = {origin(url) for url in before.values()} - {""}
    moved = [
        Move(name, origin(before[name]) if name in before else None, origin(url))
        for name, url in after.items()
        if not origin(url) or origin(url) not in ({origin(before[name])} if name in before else in_use)
    ]
    same = pinned.issuer == found.issuer or (found.issuer is None and _says_less(found, pinned))
    if not same and (pinned.issuer or origin(str(found.issuer)) not in in_use):
        moved.append(Move("issuer", pinned.issuer, found.issuer))
    return tuple(moved)


def shown(place: str | None) -> str:
    """Return the host of an origin or issuer for people, logs and the audit trail: nothing else, and no odd letters."""
    if place is None:
        return "none"
    try:
        host = urlsplit(place).netloc
    except ValueError:
        host = ""
    return host if _HOST.fullmatch(host) else "a name that cannot be shown"


def _says_less(found: Endpoints, pinned: Endpoints) -> bool:
    return (pinned.source, found.source) == ("smart-configuration", "metadata")


def _bounded(endpoints: Endpoints) -> Endpoints:
    """Leave a document out that is large or deeply nested; what was read from it stays."""
    document = dict(endpoints.document)
    fits = _is_flat(document) and len(json.dumps(document)) <= _LONGEST_DOCUMENT
    return endpoints if fits else replace(endpoints, document={})


def _is_flat(document: object) -> bool:
    """Whether it is nested so little that it can be written and read again wherever that happens."""
    level = [document]
    for _ in range(_DEEPEST_DOCUMENT):
        level = [
            inner
            for value in level
            if isinstance(value, (dict, list))
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    return not level


def _endpoints(members: Mapping[str, Any]) -> Endpoints:
    fields: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in members.items()}
    return Endpoints(**fields)
