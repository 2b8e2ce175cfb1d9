r"""Where a token stands, in whatever spelling JSON and URLs may give it (HB-07).

A letter may stand as it is, as `\u0041`, as `%41`, or behind a backslash. Text is read for that only where there is
what may be the token's beginning: its first letters as they are, or one of them escaped, as they seldom are elsewhere.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import Final, TypeAlias

_ESCAPED: Final = re.compile(rb'(?:\\u00|%)([2-7][0-9a-fA-F])|\\(["/\\])|(?:\\(?:u(?:0(?:0[2-7]?)?)?)?|%[2-7]?)\Z')
"""The code of a letter, or the letter; or neither, where it goes on behind the end."""
_LETTERS: Final = {f"{code:{case}}".encode(): bytes([code]) for code in range(0x20, 0x80) for case in ("02x", "02X")}
_UNRESERVED: Final = b"-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
_NEEDLESS: Final = rb"(?:2[dDeE]|3[0-9]|[46][1-9a-fA-F]|5[0-9aAfF]|7[0-9aAeE])"
"""Their codes: neither JSON nor a URL (RFC 3986 §2.3) needs them, so hardly anybody writes them."""
_IN_JSON: Final = re.compile(rb"\\u00" + _NEEDLESS)
_IN_URL: Final = re.compile(b"%" + _NEEDLESS)
_FIRST: Final = 16
"""Letters of the token that are looked for: so many stand nowhere else, and are looked for fast."""
_TAIL: Final = 64
"""Bytes at the end of text that may hold some of the first letters, and an escape that goes on behind it."""
_BEGINNING: Final = 4
"""Letters of a beginning that are looked for: one alone is found everywhere."""
_ATTEMPTS: Final = 256
"""At what may be a beginning: then it is taken for one, so that no token makes it slow."""
Span: TypeAlias = tuple[int, int]


class Spellings:
    """Looks for one token."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._first = text[:_FIRST]
        self._escaped = [form for letter in self._first.translate(None, _UNRESERVED) for form in _escapes(letter)]

    def __repr__(self) -> str:
        return "Spellings()"

    def find(self, text: bytes) -> list[Span]:
        """Return where the token stands. No spelling of it is shorter than itself."""
        is_near = len(text) >= len(self._text) and self._may_begin_in(text)
        return self._read(_Reading(text)) if is_near else []

    def look(self, window: bytes) -> tuple[list[Span], int]:
        """Return where the token stands, and how many bytes at the end may be the beginning of another one."""
        if not self._may_begin_in(window):
            tail = window[-_TAIL:]
            is_plain = b"%" not in tail and b"\\" not in tail
            return [], beginning(tail, self._text) if is_plain else self._unfinished(_Reading(tail))
        reading = _Reading(window)
        found = self._read(reading)
        return found, self._unfinished(_Reading(window[found[-1][1] :]) if found else reading)

    def _may_begin_in(self, window: bytes) -> bool:
        if self._first in window:
            return True
        in_url, in_json = b"%" in window, b"\\" in window
        return (
            (in_url and _IN_URL.search(window) is not None)
            or (in_json and _IN_JSON.search(window) is not None)
            or ((in_url or in_json) and any(escape in window for escape in self._escaped))
        )

    def _read(self, reading: "_Reading") -> list[Span]:
        spelt = [(reading.place(begin), reading.place(end)) for begin, end in _spans(reading.text, self._text)]
        found: list[Span] = []
        for span in sorted([*spelt, *_spans(reading.written, self._text)]):
            if not found or span[0] >= found[-1][1]:
                found.append(span)
        return found

    def _unfinished(self, reading: "_Reading") -> int:
        read = len(reading.text) - beginning(reading.text, self._text)
        return max(beginning(reading.written, self._text), len(reading.written) - reading.place(read))


class _Reading:
    """Text with letters in place of their escapes. One at the end that is not whole yet is left out."""

    def __init__(self, written: bytes) -> None:
        self.written = written
        self._escapes: list[int] = []
        """Where in the text that is read a letter was escaped."""
        self._longer: list[int] = []
        """By how many bytes what was written up to there is longer."""
        pieces, at, longer = [], 0, 0
        for found in _ESCAPED.finditer(written):
            begin, end = found.span()
            code, letter = found.groups()
            pieces.append(written[at:begin])
            at = end
            if code or letter:
                pieces.append(letter or _LETTERS.get(code, b"\0"))
                self._escapes.append(begin - longer)
                longer += end - begin - 1
                self._longer.append(longer)
        pieces.append(written[at:])
        self.text = b"".join(pieces)

    def place(self, read: int) -> int:
        """Return where in what was written that begins which is at `read` in the text."""
        before = bisect_left(self._escapes, read)
        return read + (self._longer[before - 1] if before else 0)


def _escapes(letter: int) -> list[bytes]:
    codes = {f"{letter:02x}".encode(), f"{letter:02X}".encode()}
    return [b"\\" + bytes([letter]), *(sign + code for code in codes for sign in (b"%", rb"\u00"))]


def _spans(text: bytes, token: bytes) -> Iterator[Span]:
    begin = text.find(token)
    while begin != -1:
        yield begin, begin + len(token)
        begin = text.find(token, begin + len(token))


def beginning(window: bytes, token: bytes) -> int:
    """Return how many bytes at the end of `window` are the beginning of `token`, as it is; or more."""
    position = window.find(token[:_BEGINNING], max(0, len(window) - len(token) + 1))
    attempts = 0
    while position != -1:
        attempts += 1
        if attempts > _ATTEMPTS or token.startswith(window[position:]):
            return len(window) - position
        position = window.find(token[:_BEGINNING], position + 1)
    return next((length for length in range(_BEGINNING - 1, 0, -1) if window.endswith(token[:length])), 0)
