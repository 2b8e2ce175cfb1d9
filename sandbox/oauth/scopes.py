"""What is granted when a client asks: what it asked for, cut down to what it was registered for."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Self

from sandbox.settings import DialectRule, Settings

CONTEXT_SCOPES = ("launch", "launch/patient", "launch/encounter")
IDENTITY_SCOPES = ("openid", "fhirUser")
REFRESH_SCOPES = ("offline_access", "online_access")

_CLINICAL = re.compile(
    r"(?P<level>patient|user|system)/(?P<kind>\*|[A-Z][A-Za-z]+)"
    r"\.(?P<verbs>read|write|\*|(?=[cruds])c?r?u?d?s?)(?:\?(?P<query>\S+))?"
)
_V1 = {"read": "rs", "write": "cud", "*": "cruds"}


@dataclass(frozen=True, slots=True)
class ClinicalScope:
    """One clinical scope (SC-01); the verbs of version 1 are kept as written and compared by meaning (SC-03)."""

    level: str
    kind: str
    verbs: str
    query: str | None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the scope, or None when the text is not a clinical scope."""
        match = _CLINICAL.fullmatch(text)
        return match and cls(match["level"], match["kind"], match["verbs"], match["query"])

    @property
    def letters(self) -> str:
        """The interactions in the letters of version 2."""
        return _V1.get(self.verbs, self.verbs)

    def cut_to(self, other: Self) -> Self | None:
        """Return what both allow, in this scope's dialect where it can say it, or None when that is nothing."""
        kinds = {self.kind, other.kind} - {"*"}
        queries = {self.query, other.query} - {None}
        letters = "".join(letter for letter in self.letters if letter in other.letters)
        if self.level != other.level or len(kinds) > 1 or len(queries) > 1 or not letters:
            return None
        return replace(
            self,
            kind=kinds.pop() if kinds else "*",
            verbs=self.verbs if letters == self.letters else letters,
            query=queries.pop() if queries else None,
        )

    def split(self) -> tuple[str, ...]:
        """Return the same as one scope for each letter."""
        return tuple(str(replace(self, verbs=letter)) for letter in self.letters)

    def spoken(self, dialect: DialectRule) -> str:
        """Return the scope in a version of SMART, with all it says and no more, or as it is where v1 cannot say it."""
        if dialect == "v2":
            return str(replace(self, verbs=self.letters))
        verbs = next((verb for verb, letters in _V1.items() if letters == self.letters), self.verbs)
        return str(replace(self, verbs=verbs)) if dialect == "v1" and self.query is None else str(self)

    def __str__(self) -> str:
        return f"{self.level}/{self.kind}.{self.verbs}" + (f"?{self.query}" if self.query else "")


def understood(asked: Iterable[str], settings: Settings) -> list[str]:
    """Return what a server can make sense of: not each knows wildcards (OR-06), or version 2 (Q9)."""
    return [scope for scope in asked if not (parsed := ClinicalScope.parse(scope)) or _is_understood(parsed, settings)]


def _is_understood(scope: ClinicalScope, settings: Settings) -> bool:
    if settings.refuse_wildcards and "*" in {scope.kind, scope.verbs}:
        return False
    return scope.verbs in _V1 or not settings.refuse_v2_scopes


def grant(asked: Iterable[str], allowed: Iterable[str]) -> tuple[str, ...]:
    """Return asked ∩ allowed, in the order asked, each scope once (TR-04).

    A wildcard covers every type, so `patient/*.rs` asked of a client registered for two types gives those two.
    """
    allowed = tuple(allowed)
    return tuple(dict.fromkeys(granted for scope in asked for granted in _grant_one(scope, allowed)))


def _grant_one(scope: str, allowed: tuple[str, ...]) -> Iterator[str]:
    # A role hint (`launch/patient?role=…`) belongs to the context scope before it (AL-19).
    if scope in allowed or (scope.startswith("launch/") and scope.partition("?")[0] in allowed):
        yield scope
        return
    wanted = ClinicalScope.parse(scope)
    limits = filter(None, map(ClinicalScope.parse, allowed)) if wanted else ()
    for limit in limits:
        if wanted and (common := wanted.cut_to(limit)):
            yield str(common)


def in_dialect(scopes: Iterable[str], dialect: DialectRule) -> list[str]:
    """Return scopes with the clinical ones written in a version of SMART (Q9)."""
    parts = [(scope, ClinicalScope.parse(scope)) for scope in scopes]
    return [parsed.spoken(dialect) if parsed else scope for scope, parsed in parts]


def needs_patient(scopes: Iterable[str]) -> bool:
    """Say whether these scopes oblige the EHR to name a patient (AL-07, CX-10)."""
    return any(scope.startswith(("launch/patient", "patient/")) for scope in scopes)
