"""Release of an EHR's answer what the permit's checks allow, as it passes (PX-14, SC-05).

What is released is released as it was written, without the white space between entries. What is not leaves nothing
behind that depends on it: each page of a search ends with the same OperationOutcome, whether something was withheld or
not; `total` and the link to the last page, which would count it, are left out of every Bundle. One resource that may
not be released makes the whole answer a refusal, before a byte of it went out.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from broker.ehr.bundle_parts import MOST_CHARACTERS, BundleParts, Part, read_whole
from broker.errors import AnswerWithheld, EhrMisbehaved
from broker.release import Checks

_KEPT: Final = frozenset({"id", "implicitRules", "language", "resourceType", "type"})
"""Members of a Bundle that say nothing of what was withheld; and `link`, in part."""
_TELLING_HEADERS: Final = frozenset({"etag", "last-modified"})
"""Of a Bundle they may be those of what was withheld."""
_KEPT_LINKS: Final = frozenset({"self", "first", "previous", "prev", "next"})


def _outcome(severity: str) -> dict[str, Any]:
    details = {
        "coding": [{"system": "urn:smart-token-broker:error", "code": AnswerWithheld.code}],
        "text": "What the access token does not cover is not shown.",
    }
    issue = {"severity": severity, "code": "suppressed", "details": details}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


_NOTICE: Final = json.dumps({"resource": _outcome("information"), "search": {"mode": "outcome"}})
"""The last entry of each page of a search. *Suppressed* means that something was or might have been (FHIR R4)."""
_REFUSED: Final = json.dumps({"response": {"status": "403 Forbidden", "outcome": _outcome("error")}})
"""What stands in a batch's answer for an entry that may not be released: there, places count."""


class Checker(Protocol):
    """A stage that the body passes through."""

    def feed(self, chunk: bytes) -> bytes:
        """Return what may go on now. Raises `AnswerWithheld`, `EhrMisbehaved`."""

    def finish(self) -> bytes:
        """Return the rest. Raises likewise."""


def checker(checks: Checks, status: int) -> Checker:
    """Return the stage for an answer of this status: one that is an error has to be an OperationOutcome."""
    if status >= 400:
        return CheckedResource(replace(checks, shape="resource", rules=()))
    return CheckedResource(checks) if checks.shape == "resource" else CheckedBundle(checks)


def harmless(headers: Mapping[str, str], checks: Checks) -> dict[str, str]:
    """Return the headers that say nothing of what was withheld."""
    is_all = checks.shape == "resource"
    return {name: value for name, value in headers.items() if is_all or name not in _TELLING_HEADERS}


class CheckedResource:
    """Holds one resource until it is whole."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._body = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """Hold it."""
        self._body += chunk
        if len(self._body) > MOST_CHARACTERS:
            raise EhrMisbehaved(f"a resource that has to be checked has more than {MOST_CHARACTERS} bytes")
        return b""

    def finish(self) -> bytes:
        """Return it whole. Raises `AnswerWithheld`."""
        body = bytes(self._body)
        if body and not self._checks.allow(read_whole(body)):
            raise AnswerWithheld("the resource is not one that the handle may read")
        return body


class CheckedBundle:
    """Lets the entries pass that may. Nothing goes out before it is known to be a Bundle."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._parts = BundleParts()
        self._is_bundle = False
        self._held: list[str] = []
        self._held_length = 0
        self._has_members = self._has_entries = False

    def feed(self, chunk: bytes) -> bytes:
        """Return what may go on now."""
        return self._pass(self._parts.feed(chunk))

    def finish(self) -> bytes:
        """Return the rest."""
        return self._pass(self._parts.finish())

    def _pass(self, parts: list[Part]) -> bytes:
        self._held.append("".join(map(self._write, parts)))
        self._held_length += len(self._held[-1])
        if not self._is_bundle:
            if self._held_length > MOST_CHARACTERS:
                raise EhrMisbehaved("an answer that has to be checked does not say that it is a Bundle")
            return b""
        text, self._held, self._held_length = "".join(self._held), [], 0
        return text.encode()

    def _write(self, part: Part) -> str:
        match part.kind:
            case "begin":
                return "{"
            case "member":
                return self._member(part)
            case "entry":
                return self._entry(part)
            case "close":
                return self._close() if self._has_entries else ""
            case "end":
                return self._end() if part.text.strip() else ""
        return ""

    def _member(self, part: Part) -> str:
        if part.name == "resourceType":
            self._is_bundle = part.value == "Bundle"
        if part.name == "link":
            return self._separate(_kept_links(part))
        return self._separate(part.text.strip()) if part.name in _KEPT else ""

    def _separate(self, member: str) -> str:
        comma, self._has_members = "," if self._has_members else "", True
        return comma + member

    def _entry(self, part: Part) -> str:
        if self._checks.allow_entry(part.value):
            return self._add(part.text.strip())
        return self._add(_REFUSED) if self._checks.shape == "batch" else ""

    def _add(self, entry: str) -> str:
        before, self._has_entries = "," if self._has_entries else self._separate('"entry":['), True
        return before + entry

    def _close(self) -> str:
        return (self._add(_NOTICE) if self._checks.shape == "searchset" else "") + "]"

    def _end(self) -> str:
        """Where nothing was released there are no brackets yet: they stand where they do when nothing was found."""
        if not self._is_bundle:
            raise EhrMisbehaved("an answer that has to be checked is not a Bundle")
        is_missing = self._checks.shape == "searchset" and not self._has_entries
        return (self._close() if is_missing else "") + "}"


def _kept_links(part: Part) -> str:
    """Return the member without links by which the withheld could be counted, as written where there are none."""
    links = part.value if isinstance(part.value, list) else []
    kept = [link for link in links if isinstance(link, dict) and str(link.get("relation")) in _KEPT_LINKS]
    return part.text.strip() if kept == part.value else '"link":' + json.dumps(kept)
