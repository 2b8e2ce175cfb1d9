"""Find the URLs that a client follows from page to page: `link.url` of the outermost Bundle, wherever that is (PX-02).

A client reads JSON, so `link` is read as JSON here: keys are decoded, other members may stand between, it may come
after the entries. All else is skipped: of it only how deep brackets are nested is counted, and that only where it
makes a difference, since most answers come in one piece and have one `link`. One pass, in bounded memory; and links
without end are refused, since reading takes many times longer than skipping.
"""

import json
import re
from collections.abc import Iterator
from typing import Final, TypeAlias

from broker.errors import EhrMisbehaved

LONGEST_URL: Final = 8192
"""Bytes as written, without the quotes."""
_LONGEST_KEY: Final = 64
"""Bytes as written: more than `link` and `url` take where each character is escaped."""
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TOKEN: Final = re.compile(rb'[^"{}\[\],:]*+(' + _STRING + rb"|[{}\[\],:])", re.DOTALL)
_WHOLE_STRING: Final = re.compile(_STRING, re.DOTALL)
_STRING_REST: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_ESCAPED_LETTER: Final = re.compile(rb"\\u(?:00[46][9bceBCE]|212[aA])")
_KELVIN_SIGN: Final = "\u212a".encode()
_ESCAPED_LINK: Final = re.compile(
    rb'"(?:[lL]|\\u00[46][cC])(?:[iI]|\\u00[46]9)(?:[nN]|\\u00[46][eE])(?:[kK]|\\u00[46][bB]|\\u212[aA]|\xe2\x84\xaa)"'
)
"""The key, in whatever case, for those clients that do not distinguish it; one sign is a `k` to them, too."""
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'"{}[]'))
_BACKSLASH: Final = ord("\\")
_MOST_TOKENS: Final = 100_000
"""Most that is read token by token, for some tenths of a second: links of several thousands."""
_LINK_DEPTHS: Final = (2, 3)
"""Of the objects in `link`: it is a list of them; one alone is read likewise."""
Piece: TypeAlias = tuple[bytes, bool]
"""Text that passes; or (True) a URL as written, without its quotes. Of one that is longer than `LONGEST_URL`, one byte
more than that."""


class PageUrls:
    """Takes a JSON body apart as it passes. Feed it chunks, then call `finish`."""

    def __init__(self) -> None:
        self._held = b""
        self._uncounted = b""
        """Text before what comes next, whose brackets are counted only if something comes."""
        self._depth = 0
        self._in_string = False
        self._reading = False
        """Token by token: from what may be the key `link`, to the end of its value."""
        self._tokens = 0
        self._last = b""
        """The last string, as written; it was a key if a colon follows."""
        self._in_link = False
        self._url_depth = 0
        """How deep the object lies whose `url` is being read; 0 where none is."""
        self._is_left_out = False
        """The string is a URL that is too long, and its rest does not pass."""

    def feed(self, chunk: bytes) -> list[Piece]:
        """Return what can be given out now; no more than a string of the length of a URL is held back.

        Raises `EhrMisbehaved` where `link` has no end.
        """
        window, self._held = self._held + chunk, b""
        if self._uncounted:  # else it may go on in a long string, which is not counted
            self._count(self._uncounted)
        self._uncounted, links = b"", _links(window)
        pieces: list[Piece] = []
        start = position = 0
        while position < len(window) and not self._held:
            if self._in_string:
                position = self._pass_string(window, position)
                start = position if self._is_left_out else start
                self._is_left_out &= self._in_string
            elif not self._reading:
                position = self._skip(window, position, links)
            else:
                begin, position, url = self._take(window, position)
                if url is not None:
                    pieces += [(window[start:begin], False), (url[: LONGEST_URL + 1], True)]
                    start = position
        pieces.append((window[start : len(window) - len(self._held)], False))
        return pieces

    def finish(self) -> bytes:
        """Return the rest: the beginning of a string, which no client can read."""
        rest, self._held = self._held, b""
        return rest

    def _skip(self, window: bytes, position: int, links: Iterator[int]) -> int:
        """Go to the next key `link` of the outermost object, or to the end."""
        found = next((link for link in links if link >= position), -1)
        if found == -1:
            self._held = _beginning_of_key(window, position)
            self._uncounted = window[position : len(window) - len(self._held)]
            return len(window)
        opening = self._count(window[position:found])
        if opening is not None:  # it stands in a string, or ends one
            return position + opening + 1
        if self._depth == 1:
            self._reading = True
            return found
        string = _WHOLE_STRING.match(window, found)
        return string.end() if string else found + 1

    def _count(self, text: bytes) -> int | None:
        """Count the brackets of text that begins outside a string; return where a string begins that does not end."""
        plain = text.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in text else text
        between = plain.translate(None, _NOT_STRUCTURE).split(b'"')
        outside = b"".join(between[::2])
        self._depth += outside.count(b"{") + outside.count(b"[") - outside.count(b"}") - outside.count(b"]")
        self._in_string = len(between) % 2 == 0
        return _last_quote(text) if self._in_string else None

    def _pass_string(self, window: bytes, position: int) -> int:
        """Go to the end of a string that was begun; a backslash waits for what it escapes."""
        end = self._string_end(window, position)
        if window[end : end + 1] != b'"':
            return end
        self._in_string = False
        return end + 1

    def _string_end(self, window: bytes, position: int) -> int:
        match = _STRING_REST.match(window, position)
        end = match.end() if match else position
        if window[end : end + 1] == b"\\":
            self._held = window[end:]
        return end

    def _take(self, window: bytes, position: int) -> tuple[int, int, bytes | None]:
        """Read the next token; return where it lies, and its text if it is a URL."""
        self._tokens += 1
        if self._tokens > _MOST_TOKENS:
            raise EhrMisbehaved("the EHR answered a link that has no end")
        token = _TOKEN.match(window, position)
        if token is None:
            return self._take_beginning(window, position)
        begin, end = token.span(1)
        if window[begin : begin + 1] == b'"':
            self._last = window[begin + 1 : end - 1] if end - begin <= _LONGEST_KEY else b""
            return begin, end, window[begin + 1 : end - 1] if self._url_depth else None
        self._read(token[1])
        return begin, end, None

    def _take_beginning(self, window: bytes, position: int) -> tuple[int, int, bytes | None]:
        """Hold the beginning of a string back, or take it for a long one."""
        begin = window.find(b'"', position)
        if begin == -1:
            return position, len(window), None
        if len(window) - begin - 1 <= LONGEST_URL:
            self._held = window[begin:]
            return begin, len(window), None
        self._last, self._in_string, self._is_left_out = b"", True, self._url_depth > 0
        end = self._string_end(window, begin + 1)
        return begin, end, window[begin + 1 : begin + LONGEST_URL + 2] if self._is_left_out else None

    def _read(self, token: bytes) -> None:
        if token == b":":
            self._read_key(_decode(self._last))
        elif token == b",":
            self._url_depth = 0 if self._depth == self._url_depth else self._url_depth
            self._reading = self._depth > 1
        else:
            self._nest(token)

    def _read_key(self, key: str) -> None:
        if self._depth == 1:
            self._reading = self._in_link = key == "link"
            self._url_depth = 0
        elif self._in_link and self._depth in _LINK_DEPTHS:
            self._url_depth = self._depth if key == "url" else 0

    def _nest(self, bracket: bytes) -> None:
        self._depth += 1 if bracket in b"{[" else -1
        self._reading = self._depth > 0
        if self._depth < self._url_depth:
            self._url_depth = 0


def _links(window: bytes) -> Iterator[int]:
    """Give where strings stand that a client may read as the key `link`."""
    if (b"\\" in window and _ESCAPED_LETTER.search(window)) or (not window.isascii() and _KELVIN_SIGN in window):
        yield from (found.start() for found in _ESCAPED_LINK.finditer(window))
        return
    lowered = window.lower()
    found = lowered.find(b'"link"')
    while found != -1:
        yield found
        found = lowered.find(b'"link"', found + 1)


def _beginning_of_key(window: bytes, position: int) -> bytes:
    """Return the end of a window that has to wait for more: what may begin a key, or a backslash alone."""
    begin = window.rfind(b'"', max(position, len(window) - _LONGEST_KEY))
    if begin != -1 and (begin == position or window[begin - 1 : begin] != b"\\"):
        return window[begin:]
    backslashes = len(window) - len(window.rstrip(b"\\"))
    return window[-1:] if backslashes % 2 else b""


def _last_quote(text: bytes) -> int:
    """Return where the last quote stands that is not escaped."""
    quote = len(text)
    while True:
        quote = backslashes = text.rfind(b'"', 0, quote)
        while backslashes > 0 and text[backslashes - 1] == _BACKSLASH:
            backslashes -= 1
        if (quote - backslashes) % 2 == 0:
            return quote


def _decode(written: bytes) -> str:
    """Return a key as a client compares it; some do not distinguish case."""
    try:
        text = written.decode()
        return (str(json.loads(f'"{text}"', strict=False)) if "\\" in text else text).casefold()
    except ValueError:
        return ""
