"""Find the URLs that a client follows from page to page: `link.url` of the outermost Bundle, wherever that is (PX-02).

A client reads JSON, so it is read as JSON here: keys are decoded, other members may stand between, `link` may come
after the entries. What lies elsewhere is skipped, bracket by bracket. One pass, in bounded memory, whatever the chunks.
"""

import json
import re
from typing import Final, TypeAlias

LONGEST_URL: Final = 8192
"""Bytes as written, without the quotes."""
_LONGEST_KEY: Final = 64
"""Bytes as written: more than `link` and `url` take where each character is escaped."""
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TEXT: Final = rb'[^"{}\[\]]*+(?:' + _STRING + rb'[^"{}\[\]]*+)*+'
_TOKEN: Final = re.compile(rb'[^"{}\[\],:]*+(' + _STRING + rb"|[{}\[\],:])", re.DOTALL)
_FLAT: Final = re.compile(rb"%b(?:(?:\{%b\}|\[%b\])%b)*+" % (_TEXT, _TEXT, _TEXT, _TEXT), re.DOTALL)
"""Text, and what has brackets but none within."""
_STRING_REST: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_LINK_DEPTHS: Final = (2, 3)
"""Of the objects in `link`: it is a list of them; one alone is read likewise."""
Piece: TypeAlias = tuple[bytes, bool]
"""Text that passes; or (True) a URL as written, without its quotes. Of one that is longer than `LONGEST_URL`, one byte
more than that."""


class PageUrls:
    """Takes a JSON body apart as it passes. Feed it chunks, then call `finish`."""

    def __init__(self) -> None:
        self._held = b""
        self._depth = 0
        self._last = b""
        """The last string, as written; it was a key if a colon follows."""
        self._in_link = False
        self._url_depth = 0
        """How deep the object lies whose `url` is being read; 0 where none is."""
        self._in_string = False
        self._is_left_out = False
        """The string is a URL that is too long, and its rest does not pass."""

    def feed(self, chunk: bytes) -> list[Piece]:
        """Return what can be given out now; no more than a string of the length of a URL is held back."""
        window, self._held = self._held + chunk, b""
        pieces: list[Piece] = []
        start = position = 0
        while position < len(window) and not self._held:
            if self._in_string:
                position = self._pass_string(window, position)
                start = position if self._is_left_out else start
                self._is_left_out &= self._in_string
            elif self._depth > 1 and not self._in_link:
                position = self._skip(window, position)
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

    def _skip(self, window: bytes, position: int) -> int:
        """Go past text that is not looked at, and the bracket or the quote after it."""
        match = _FLAT.match(window, position)
        end = match.end() if match else position
        after = window[end : end + 1]
        if after == b'"':
            self._in_string = True
        elif after:
            self._nest(after)
        return end + 1

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
        return begin, end, window[begin + 1 : end] if self._is_left_out else None

    def _read(self, token: bytes) -> None:
        if token == b":":
            self._read_key(_decode(self._last))
        elif token == b",":
            self._url_depth = 0 if self._depth == self._url_depth else self._url_depth
        else:
            self._nest(token)

    def _read_key(self, key: str) -> None:
        if self._depth == 1:
            self._in_link, self._url_depth = key == "link", 0
        elif self._in_link and self._depth in _LINK_DEPTHS:
            self._url_depth = self._depth if key == "url" else 0

    def _nest(self, bracket: bytes) -> None:
        self._depth = max(0, self._depth + (1 if bracket in b"{[" else -1))
        if self._depth < self._url_depth:
            self._url_depth = 0


def _decode(written: bytes) -> str:
    """Return a key as a client compares it; some do not distinguish case."""
    try:
        return str(json.loads(b'"' + written + b'"', strict=False)).casefold()
    except ValueError:
        return ""
