"""SMART resource scopes, v1 and v2, as permissions (SC-01 to SC-07). Other scopes open no resource."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl

_SCOPE = re.compile(r"(patient|user|system)/(\*|[A-Z][A-Za-z]+)\.([a-zA-Z*]+)(?:\?(.+))?")
_V1 = {"read": "rs", "write": "cud", "*": "cruds"}
_V2 = re.compile(r"c?r?u?d?s?")


@dataclass(frozen=True, slots=True)
class Permission:
    """One granted resource scope."""

    level: str
    type: str
    """A resource type, or `*`."""
    letters: frozenset[str]
    """Of c, r, u, d, s (SC-02)."""
    filters: tuple[tuple[str, str], ...] = ()
    """Search parameters a resource must satisfy (SC-05)."""


def parse_permission(scope: str) -> Permission | None:
    """Return the permission a scope gives; None when it is not a well-formed resource scope."""
    matched = _SCOPE.fullmatch(scope)
    if matched is None:
        return None
    level, type_, verb, query = matched.groups()
    letters = _V1.get(verb.lower()) or (verb if _V2.fullmatch(verb) else "")
    filters = tuple(parse_qsl(query or "", keep_blank_values=True))
    if not letters or bool(filters) != bool(query):
        return None
    return Permission(level, type_, frozenset(letters), filters)


def parse_permissions(scopes: Iterable[str]) -> tuple[Permission, ...]:
    """Every permission the scopes give."""
    return tuple(permission for scope in sorted(scopes) if (permission := parse_permission(scope)))
