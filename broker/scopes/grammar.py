"""The grammar of scope words: v2 with search parameters, v1, and what is neither (SC-01, SC-03, SC-05, SC-14)."""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from broker.errors import InvalidScope
from broker.scopes.measure import require_few_alternatives
from broker.scopes.resource import Parameters, ResourceScope, sorted_pairs

V1_LETTERS: Final = {"read": "rs", "write": "cud", "*": "cruds"}
_WORD: Final = re.compile(r"[!#-\[\]-~]+")  # RFC 6749 §3.3, scope-token
_SMART_LIKE: Final = re.compile(r"(?:patient|user|system|launch)/.*", re.IGNORECASE)
_RESOURCE: Final = re.compile(r"(patient|user|system)/(\*|[A-Z][A-Za-z]*)\.([A-Za-z]+|\*)(?:\?(.+))?")
_V2_VERB: Final = re.compile(r"(?=.)c?r?u?d?s?")
_CONTEXT: Final = re.compile(r"launch/[a-z]+(?:\?role=[^&?]+)?")
_PARAMETER_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]*")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

_SMART_URI: Final = "http://smarthealthit.org/fhir/scopes/"
_V1_SHOUTED: Final = re.compile(
    rf"((?:{re.escape(_SMART_URI)})?(?:patient|user|system)/(?:\*|[A-Z][A-Za-z]*)\.)((?i:read|write))"
)
_OPENID_URI: Final = "http://openid.net/specs/openid-connect-core-1_0#"
_SMART_WORDS: Final = frozenset({"launch", "fhirUser", "online_access", "offline_access"})
_OPENID_WORDS: Final = frozenset({"openid", "profile", "offline_access", "email", "address", "phone"})


def read_word(word: str) -> ResourceScope | str:
    """Return a resource scope, or the short form of any other word. Raises `InvalidScope`."""
    if not _WORD.fullmatch(word):
        raise _malformed(word)
    short = _short_form(word)
    if found := _RESOURCE.fullmatch(short):
        level, type_, verb, query = found.groups()
        return ResourceScope(level, type_, _letters(verb, word, has_query=query is not None), _parameters(query, word))
    if _SMART_LIKE.fullmatch(short) and not _CONTEXT.fullmatch(short):
        raise _malformed(word)
    return short


def read_word_leniently(word: str) -> ResourceScope | str | None:
    """Return what a word means, or None: also `.Read` and `.WRITE`, as Epic answers them (SC-16)."""
    if found := _V1_SHOUTED.fullmatch(word):
        word = found[1] + found[2].lower()
    try:
        return read_word(word)
    except InvalidScope:
        return None


def _short_form(word: str) -> str:
    """Turn a URI form into the word it stands for (SC-14); any other word is itself."""
    if word.startswith(_SMART_URI):
        rest = word.removeprefix(_SMART_URI)
        return rest if rest in _SMART_WORDS or _SMART_LIKE.fullmatch(rest) else word
    rest = word.removeprefix(_OPENID_URI)
    return rest if rest in _OPENID_WORDS else word


def _letters(verb: str, word: str, *, has_query: bool) -> str:
    if verb in V1_LETTERS and not has_query:  # v1 has no search parameters
        return V1_LETTERS[verb]
    if not _V2_VERB.fullmatch(verb):
        raise _malformed(word)
    return verb


def _parameters(query: str | None, word: str) -> Parameters:
    if query is None:
        return ()
    pairs = [tuple(_decode(part, word) for part in pair.split("=")) for pair in query.split("&")]
    if not all(len(pair) == 2 and _PARAMETER_NAME.fullmatch(pair[0]) and pair[1] for pair in pairs):
        raise _malformed(word)
    parameters = sorted_pairs((name, value) for name, value in pairs)
    require_few_alternatives(parameters)
    return parameters


def _decode(text: str, word: str) -> str:
    if "+" in text or _BAD_ESCAPE.search(text):  # a bare plus is a space to some and a plus to others
        raise _malformed(word)
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise _malformed(word) from None
    if _CONTROL.search(decoded):
        raise _malformed(word)
    return decoded


def _malformed(word: str) -> InvalidScope:
    return InvalidScope(f"malformed scope {word[:100]!r}")
