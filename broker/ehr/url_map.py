"""Which URLs are an EHR's, and what each of them is at the broker (PX-03, PX-06).

An EHR is known under its FHIR base and its aliases: the same base as proxies and its own machines spell it. Scheme and
host are compared without case, the scheme's own port may be written or not; the path is compared to the letter.
"""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

_PORTS: Final = {"https": 443, "http": 80}
_ENDS: Final = rb'(?=["/?]|\\/|\\u00(?:2[fF]|3[fF]))'
"""What may follow a base in JSON: the end of the text, a path, a query; a slash and a question mark may be escaped."""
_ESCAPED: Final = re.compile(rb"\\(?:/|u00(?:2[d-fD-F]|3[0-9aA]|[4-7]))")
"""A letter of a URL that JSON need not escape."""


class UrlMap:
    """Finds URLs below the bases of one EHR."""

    def __init__(self, ours: str, fhir_base: str, aliases: Iterable[str] = (), *, attachments: bool = True) -> None:
        """`ours` is the broker's base for this EHR. Without `attachments`, apps get URLs of Binaries as they are."""
        self.ours = ours
        self.attachments = attachments
        self._fhir_base = fhir_base
        bases = [urlsplit(base) for base in dict.fromkeys((fhir_base, *aliases))]
        any_of_them = "|".join(map(_any_case, bases))
        self._url = re.compile(rf"(?:{any_of_them})(?=[/?]|\Z)")
        self._named = re.compile(rf'(?:{any_of_them})(?=["/?#])')
        self._plain = tuple((_in_lower_case(base), base.path.encode()) for base in bases)
        self._escaped = re.compile(rb'"(?:' + b"|".join(map(_as_json, bases)) + rb")" + _ENDS)

    def at_broker(self, url: str) -> str | None:
        """Return what a URL is at the broker; None for one that is not the EHR's, which must not reach an app."""
        found = self._url.match(url)
        return None if found is None else self.ours + url[found.end() :]

    def location_at_broker(self, location: str, path: str) -> str | None:
        """Return what the location is that an answer names; it may be relative to the path that was asked for."""
        try:
            return self.at_broker(urljoin(f"{self._fhir_base}/{path}", location))
        except ValueError:
            return None

    def name_broker(self, text: str) -> str:
        """Return JSON text with the broker's base wherever one of the EHR's is named."""
        return self._named.sub(lambda _: self.ours, text)

    def find(self, text: bytes) -> list[tuple[int, int]]:
        """Return where in JSON texts begin with a base: from the quote to the end of the base.

        Without escapes, which few servers need, letters are looked for as they are: many times faster.
        """
        if b"\\" in text and _ESCAPED.search(text):
            return [found.span() for found in self._escaped.finditer(text)]
        lowered, spans = text.lower(), []
        for pattern, path in self._plain:
            spans += [found.span() for found in pattern.finditer(lowered) if text.endswith(path, 0, found.end())]
        return spans


def _has_own_port(base: SplitResult) -> bool:
    return base.port in {None, _PORTS[base.scheme]}


def _authority(base: SplitResult) -> str:
    """Return host and port, without the scheme's own one."""
    host = base.netloc.lower()
    return host.removesuffix(f":{_PORTS[base.scheme]}") if _has_own_port(base) else host


def _in_lower_case(base: SplitResult) -> re.Pattern[bytes]:
    """Return what finds a base in JSON that was put into lower case; its path has to be compared then."""
    port = f"(?::{_PORTS[base.scheme]})?" if _has_own_port(base) else ""
    start, path = re.escape(f'"{base.scheme}://{_authority(base)}'), re.escape(base.path.lower())
    return re.compile(f"{start}{port}{path}".encode() + _ENDS)


def _any_case(base: SplitResult) -> str:
    port = f"(?::{_PORTS[base.scheme]})?" if _has_own_port(base) else ""
    return f"(?i:{base.scheme}://{re.escape(_authority(base))}){port}{re.escape(base.path)}"


def _as_json(base: SplitResult) -> bytes:
    """Return what matches a base however JSON may spell it: any letter may be escaped."""
    port = _PORTS[base.scheme]
    optional = b"(?:" + _letters(f":{port}") + b")?" if _has_own_port(base) else b""
    return _letters(f"{base.scheme}://{_authority(base)}", any_case=True) + optional + _letters(base.path)


def _letters(text: str, *, any_case: bool = False) -> bytes:
    return b"".join(_letter({letter.lower(), letter.upper()} if any_case else {letter}) for letter in text)


def _letter(cases: set[str]) -> bytes:
    if not all(case.isascii() for case in cases):
        return re.escape("".join(sorted(cases)[:1]).encode())
    plain = b"|".join(re.escape(case.encode()) for case in sorted(cases))
    escaped = b"|".join(b"".join(_hexadecimal(digit) for digit in f"{ord(case):04x}") for case in sorted(cases))
    slash = rb"|\\/" if "/" in cases else b""
    return rb"(?:" + plain + slash + rb"|\\u(?:" + escaped + rb"))"


def _hexadecimal(digit: str) -> bytes:
    return f"[{digit}{digit.upper()}]".encode() if digit.isalpha() else digit.encode()
