"""Reads the attempts in `corpus/`: a line each, under the name of the handle that it is made with.

    [mine]
    ! GET Observation?patient={other} -- another patient, by name
    ! POST Observation/_search ^Content-Type: text/plain << patient={me} -- a form of another kind
    ~ GET Observation/{otherobs} -- a resource of another patient, by its id
    + POST  << batch: GET Patient/{me} ;; GET Observation?patient={me} -- what is allowed

`!` has to be refused, and nothing may reach the EHR. `~` may be asked of the EHR, if what comes back is looked at
before it is passed on. `+` is allowed, so that the corpus can fail. Headers stand after `^`, a body after `<<`;
`\\xNN` is a byte, and `{me}` and the like are the stage's own ids and handles.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "corpus"
FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/fhir+json"
_LINE: Final = re.compile(r"([!~+]) ([A-Za-z]+) (\S*)((?: \^[^^]+?)*)(?: << (.*?))? -- (.+)")
_BYTE: Final = re.compile(r"\\x([0-9a-f]{2})")


@dataclass(frozen=True)
class Attempt:
    """One line."""

    place: str
    """File and line."""
    handle: str
    mark: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: str | None
    tries: str

    def headers_and_body(self, names: Mapping[str, str]) -> tuple[list[tuple[str, str]], bytes]:
        """Return what is sent beside method and target; a body says what it is, unless the line does."""
        headers = [(name, filled(value, names)) for name, value in self.headers]
        if self.body is None:
            return headers, b""
        text = filled(self.body, names)
        if found := re.fullmatch(r"(batch|transaction): (.*)", text):
            text = json.dumps(_bundle(found[1], found[2].split(" ;; ")))
        if "content-type" not in {name.lower() for name, _ in headers}:
            headers.append(("Content-Type", JSON if text[:1] in {"{", "["} else FORM))
        return headers, text.encode("latin-1")


def read_attempts() -> list[Attempt]:
    """Read every file."""
    return [attempt for path in sorted(FOLDER.glob("*.txt")) for attempt in _attempts(path)]


def filled(text: str, names: Mapping[str, str]) -> str:
    """Put names and bytes into a text."""
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return _BYTE.sub(lambda byte: chr(int(byte[1], 16)), text)


def _attempts(path: Path) -> Iterator[Attempt]:
    handle = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if line.startswith("["):
            handle = line.strip("[]")
        elif line and not line.startswith("#"):
            found = _LINE.fullmatch(line)
            assert found, f"{path.name}:{number}: {line}"
            mark, method, target, headers, body, tries = found.groups()
            listed = [header.partition(": ") for header in headers.split(" ^")[1:]]
            pairs = tuple((name, value) for name, _, value in listed)
            yield Attempt(f"{path.stem}:{number}", handle, mark, method, target, pairs, body, tries)


def _bundle(kind: str, lines: list[str]) -> dict[str, object]:
    return {"resourceType": "Bundle", "type": kind, "entry": [_entry(line) for line in lines]}


def _entry(line: str) -> dict[str, object]:
    """Write an entry; a write has the least resource of the type that its URL begins with."""
    method, _, url = line.partition(" ")
    request: dict[str, object] = {"request": {"method": method, "url": url}}
    if method in {"POST", "PUT", "PATCH"}:
        request["resource"] = {"resourceType": re.split(r"[/?]", url)[0]}
    return request
