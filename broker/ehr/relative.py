"""What an app writes below the broker's base is relative at the EHR (PX-06): there it means the same resource.

In bodies, blanks take the place of the base: `"reference":"https://broker.example/fhir/general/Patient/1"` becomes
`"reference":                                    "Patient/1"`. So a body keeps its length, and is turned as it passes,
whatever its size. Only `fullUrl` cannot be relative; it stands in Bundles, which are read whole before they go on.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import SplitResult, urlsplit

from broker.ehr.members import LONGEST_KEY, Keys, Replaced, splice
from broker.ehr.url_map import UrlMap

_REFERENCES: Final = Keys("reference", "url")
_PATCHED: Final = Keys("reference", "url", "value")
"""In a JSON Patch, a reference may be the value itself."""
_FULL_URLS: Final = Keys("fullUrl")
_SLASH: Final = re.compile(rb"\\?/")
_CRITERIA: Final = re.compile(rb'("(?:url|ifNoneExist)"\s*+:\s*+")([^"\\]{1,8192})(?=")')


_LONGEST_MEMBER: Final = 4096


class RelativeUrls:
    """Makes URLs relative that lead to `here`, the broker's base for one EHR; `fhir_base` is the EHR's own."""

    def __init__(self, here: str, fhir_base: str) -> None:
        self._here = UrlMap(fhir_base, here)
        self._value = re.compile(rb"(=|,|%2[cC])" + _percent_encoded(urlsplit(here)) + rb"(?:/|%2[fF])")

    def query(self, raw: bytes) -> bytes:
        """Return a query or a form whose values, and those in lists of values, are relative."""
        return self._value.sub(rb"\1", raw) if b"://" in raw or b"%3" in raw else raw

    def bundle(self, body: bytes) -> bytes:
        """Return a batch or transaction as the EHR has to get it."""
        filtered = RelativeReferences(self)
        body = filtered.feed(body) + filtered.finish()
        body = _CRITERIA.sub(lambda found: found[1] + self.query(found[2]), body)
        theirs = b'"' + self._here.ours.encode()
        full_urls = (
            Replaced(begin, end, theirs, begin)
            for begin, end in self._here.find(body)
            if _FULL_URLS.stand_before(body, begin)
        )
        return splice(body, full_urls, len(body))[0]

    def references(self, text: bytes, keys: Keys) -> Iterator[Replaced]:
        """Find references that are written absolute, to the slash after the base."""
        for begin, end in self._here.find(text):
            slash = _SLASH.match(text, end)
            if slash is not None and keys.stand_before(text, begin):
                blanks = b" " * (slash.end() - begin - 1)
                yield Replaced(begin, slash.end(), blanks + b'"', begin - LONGEST_KEY)


class RelativeReferences:
    """Turns a JSON body as it passes; its length stays. Feed it chunks, then call `finish`."""

    def __init__(self, urls: RelativeUrls, *, is_patch: bool = False) -> None:
        self._urls = urls
        self._keys = _PATCHED if is_patch else _REFERENCES
        self._window = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return what can be given out now; at most 8 KiB are held back."""
        self._window += chunk
        return self._advance(len(self._window) - _LONGEST_MEMBER)

    def finish(self) -> bytes:
        """Return the rest."""
        return self._advance(len(self._window))

    def _advance(self, until: int) -> bytes:
        if until <= 0:
            return b""
        out, self._window = splice(self._window, self._urls.references(self._window, self._keys), until)
        return out


def _percent_encoded(base: SplitResult) -> bytes:
    """Return what matches a URL in a query, where any letter may be encoded; scheme and host are of any case."""
    return _letters(f"{base.scheme}://{base.netloc}", str.swapcase) + _letters(base.path, str)


def _letters(text: str, other_case: Callable[[str], str]) -> bytes:
    return b"".join(
        b"(?:" + b"|".join(_spellings(byte) for byte in sorted({*letter.encode(), *other_case(letter).encode()})) + b")"
        for letter in text
    )


def _spellings(byte: int) -> bytes:
    return re.escape(bytes([byte])) + b"|(?i:%%%02x)" % byte
