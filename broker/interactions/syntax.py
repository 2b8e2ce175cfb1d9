"""The letters of a request: path segments, query pairs, types and ids, as strictly as FHIR allows."""

import re
from collections.abc import Iterable
from typing import Final, NoReturn
from urllib.parse import quote, unquote_to_bytes

from broker.errors import UninterpretableInteraction
from broker.interactions.interaction import Pairs

LONGEST_PATH: Final = 2048
LONGEST_QUERY: Final = 8192
LONGEST_FORM: Final = 256 << 10
MOST_PAIRS: Final = 256

_PATH: Final = re.compile(rb"[A-Za-z0-9\-._$*/]*")
_QUERY: Final = re.compile(rb"[!\"$-:<-~]*")  # printable ASCII without # and ;
_TYPE: Final = re.compile(r"[A-Z][A-Za-z]{1,63}")
_ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_NOT_TYPES: Final = frozenset({"resource", "domainresource", "metadata"})
"""Abstract ones may be every type to a server; the last is no type to one that folds case."""


def refuse(why: str) -> NoReturn:
    """Raise `UninterpretableInteraction`. `why` never quotes the request: what is malformed may hold PHI."""
    raise UninterpretableInteraction(why)


def split_path(raw: bytes) -> tuple[str, ...]:
    """Return the segments of a path relative to the FHIR base; the base itself has none."""
    if len(raw) > LONGEST_PATH:
        refuse("the path is too long")
    if not _PATH.fullmatch(raw):
        refuse("the path has a character that no FHIR path needs, or an encoded one")
    segments = tuple(raw.decode("ascii").split("/")) if raw else ()
    if not all(segment.strip(".") for segment in segments):
        refuse("the path has an empty or a dot segment")
    return segments


def decode_query(raw: bytes) -> Pairs:
    """Return the decoded pairs of a URL's query, in order; at most 8192 bytes."""
    if len(raw) > LONGEST_QUERY:
        refuse("the query is too long")
    return decode_pairs(raw)


def decode_form(raw: bytes) -> Pairs:
    """Return the decoded pairs of a search by POST, in order; at most 256 KiB, since other requests wait meanwhile."""
    if len(raw) > LONGEST_FORM:
        refuse("the form is too long")
    return decode_pairs(raw)


def decode_pairs(raw: bytes) -> Pairs:
    """Return the decoded `name=value` pairs of a query or form, in order: UTF-8, `+` is a space, `;` is refused."""
    if not raw:
        return ()
    if not _QUERY.fullmatch(raw):
        refuse("the query or form has a character that must be encoded")
    pairs = raw.decode("ascii").split("&", MOST_PAIRS)
    if len(pairs) > MOST_PAIRS:
        refuse("the query or form has too many parameters")
    return tuple(_decode_pair(pair) for pair in pairs)


def encode_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    """Return the canonical text of pairs, which `decode_pairs` reads as the same pairs."""
    return "&".join(f"{quote(name, safe=':')}={quote(value, safe=':/,$')}" for name, value in pairs)


def resource_type(text: str) -> str:
    """Return `text` if it is shaped like a concrete FHIR type. Some servers fold case, so `PATIENT` is none."""
    if not _TYPE.fullmatch(text) or text.lower() in _NOT_TYPES or (text.lower() == "patient" and text != "Patient"):
        refuse("not a resource type")
    return text


def resource_id(text: str) -> str:
    """Return `text` if it is a FHIR id."""
    if not is_id(text):
        refuse("not a resource id")
    return text


def is_id(text: str) -> bool:
    """Whether `text` is a FHIR id: 1 to 64 of `A-Za-z0-9-.`, and not dots alone, which paths give another meaning."""
    return bool(_ID.fullmatch(text) and text.strip("."))


def _decode_pair(pair: str) -> tuple[str, str]:
    name, _, value = pair.partition("=")
    if not name or not value:
        refuse("a parameter without a name or without a value")
    return _decode(name), _decode(value)


def _decode(text: str) -> str:
    if _BAD_ESCAPE.search(text):
        refuse("a malformed percent-encoding")
    try:
        decoded = unquote_to_bytes(text.replace("+", " ")).decode()
    except UnicodeDecodeError:
        decoded = "\0"
    if _CONTROL.search(decoded):
        refuse("a parameter that is not printable UTF-8")
    return decoded
