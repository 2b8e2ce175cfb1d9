"""The EHR's manifest, taken apart into its files and all else, and the broker's made of it (BD-08, BD-17). Pure."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite
from typing import Any, Final, NoReturn
from urllib.parse import urljoin

from broker.errors import EhrMisbehaved
from broker.json_values import has_too_many_values

MOST_FILES: Final = 50_000
"""Of one job."""
MOST_MANIFESTS: Final = 1000
"""Of one job, from link to link."""
MANIFEST_BYTES: Final = 16 << 20
"""Most that a manifest may be: 335 bytes for each of 50,000 files, or for each of 16,000 a kilobyte, as signed URLs
take. An export that needs more has a manifest in parts (BD-17)."""
MOST_VALUES: Final = 10 * MOST_FILES
"""Most that it may hold, in all. It is read in a thread, but others get no turn while a value is made."""
MOST_LEVELS: Final = 32
"""Most that it may be nested."""
HEAD_BYTES: Final = 64 << 10
"""Most that it may say beside its files: that is kept in the job's record."""
SECTIONS: Final = ("output", "deleted", "error", "outcome")
"""What lists files; `outcome` is what 4.0 calls `error`."""
_CONTINUES: Final = "continuesInFile"
_LONGEST_URL: Final = 8192
_LONGEST_NUMBER: Final = 64
_PIECES: Final = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class ListedFile:
    """One file of a manifest."""

    section: str
    url: str = field(repr=False)
    needs_token: bool
    """What the manifest says: `requiresAccessToken` (BD-09, BD-10)."""
    rest: dict[str, Any]
    """All other members of its entry; a file that it continues in by its number."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest, taken apart."""

    head: str
    """JSON: everything but the lists of files and the links."""
    files: tuple[ListedFile, ...]
    next_url: str | None
    shape: str
    """A hash of what is listed, in its order, without URLs: EHRs sign those anew each time."""


def parse_manifest(body: bytes, url: str) -> Manifest:
    """Take the manifest that was found at `url` apart. Raises `EhrMisbehaved`.

    A long one takes a second: call this in a thread.
    """
    document = _document(body)
    needs_token = _needs_token(document.get("requiresAccessToken"))
    files = tuple(islice(_files(document, url, needs_token=needs_token), MOST_FILES + 1))
    if len(files) > MOST_FILES:
        raise EhrMisbehaved(f"the manifest lists more than {MOST_FILES} files")
    head = {name: value for name, value in document.items() if name not in {*SECTIONS, "link"}}
    head |= {name: [] for name in SECTIONS if name in document}  # so that an empty list stays one
    files = _numbered(files)
    return Manifest(_written(head), files, _next(document.get("link"), url), _shape(files))


def render_manifest(
    head: str,
    files: Iterable[tuple[int, ListedFile]],
    *,
    request: str,
    file_url: Callable[[int], str],
    next_url: str | None,
) -> bytes:
    """Return the manifest for the app: its files and pages are the broker's, and so is whoever asks for the token."""
    document: dict[str, Any] = json.loads(head)
    document["requiresAccessToken"] = True
    if "request" in document:
        document["request"] = request
    for number, file in files:
        entry = {"url": file_url(number), **file.rest}
        if _CONTINUES in entry:
            entry[_CONTINUES] = file_url(entry[_CONTINUES])
        document.setdefault(file.section, []).append(entry)
    if next_url is not None:
        document["link"] = [{"relation": "next", "url": next_url}]
    return json.dumps(document, separators=(",", ":")).encode()


def _document(body: bytes) -> dict[str, Any]:
    """Read it; what would be long to read, or to write again, is refused before that."""
    try:
        text = body.decode("utf-8-sig")  # bytes would be read in any encoding (HB-07)
        if has_too_many_values(text, MOST_VALUES):
            raise EhrMisbehaved(f"the manifest holds more than {MOST_VALUES} values")
        document = json.loads(text, parse_int=_whole_number, parse_float=_decimal, parse_constant=_no_number)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise EhrMisbehaved("the manifest is not a JSON object (BD-08)")
    level: list[Any] = [document]
    for _ in range(MOST_LEVELS):
        level = [inner for value in level for inner in _within(value) if isinstance(inner, (dict, list))]
    if level:
        raise EhrMisbehaved(f"the manifest is nested deeper than {MOST_LEVELS} levels")
    return document


def _whole_number(digits: str) -> int:
    return int(_short(digits))


def _decimal(digits: str) -> float:
    number = float(_short(digits))
    return number if isfinite(number) else _no_number(digits)


def _no_number(_said: str) -> NoReturn:
    """NaN and infinity are no JSON (RFC 8259 §6), and an app could not read what is written of them."""
    raise ValueError


def _short(digits: str) -> str:
    """Numbers of thousands of digits take as long as thousands of numbers. Raises `ValueError`."""
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError
    return digits


def _within(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _needs_token(said: object) -> bool:
    """Read `requiresAccessToken`, also as a string (§21 case 7). Where it says neither, a token is taken to be needed.

    That sends none to a host that may not have it.
    """
    return not (said is False or (isinstance(said, str) and said.strip().lower() == "false"))


def _files(document: dict[str, Any], base: str, *, needs_token: bool) -> Iterator[ListedFile]:
    for section in SECTIONS:
        listed = document.get(section)
        if listed is None:
            continue
        if not isinstance(listed, list):
            raise EhrMisbehaved("the manifest lists files as something that is no list (BD-08)")
        for entry in listed:
            url = _url(entry, base)
            yield ListedFile(section, url, needs_token, {name: entry[name] for name in entry if name != "url"})


def _numbered(files: tuple[ListedFile, ...]) -> tuple[ListedFile, ...]:
    """Name a file that another one continues in by its number; one that is not listed here is not named."""
    if not any(_CONTINUES in file.rest for file in files):
        return files
    numbers = {file.url: number for number, file in enumerate(files)}
    return tuple(
        ListedFile(file.section, file.url, file.needs_token, dict(_continued(file.rest, numbers))) for file in files
    )


def _continued(rest: dict[str, Any], numbers: dict[str, int]) -> Iterator[tuple[str, Any]]:
    for name, value in rest.items():
        if name != _CONTINUES:
            yield name, value
        elif isinstance(value, str) and value in numbers:
            yield name, numbers[value]


def _written(head: dict[str, Any]) -> str:
    """Write it, no further than it may be."""
    pieces, left = [], HEAD_BYTES
    for piece in _PIECES.iterencode(head):
        pieces.append(piece)
        left -= len(piece)
        if left < 0:
            raise EhrMisbehaved(f"the manifest says more than {HEAD_BYTES} bytes beside its files")
    return "".join(pieces)


def _shape(files: tuple[ListedFile, ...]) -> str:
    hashed = hashlib.sha256()
    for file in files:  # one by one: what is written at once holds the interpreter up
        hashed.update(json.dumps([file.section, file.rest], sort_keys=True).encode())
    return hashed.hexdigest()


def _next(links: object, base: str) -> str | None:
    """Return where the next manifest lies. Other links are left out: whoever followed one would leave the broker."""
    listed = links if isinstance(links, list) else [links]
    found = [link for link in listed if isinstance(link, dict) and link.get("relation") == "next"]
    return _url(found[0], base) if found else None


def _url(entry: Any, base: str) -> str:
    url = entry.get("url") if isinstance(entry, dict) else None
    if not isinstance(url, str) or not 0 < len(url) <= _LONGEST_URL:
        raise EhrMisbehaved("the manifest has an entry without a URL that can be used (BD-08)")
    try:
        return urljoin(base, url)
    except ValueError:
        raise EhrMisbehaved("the manifest has a URL that cannot be read") from None
