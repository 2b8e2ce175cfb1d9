"""Replace values of members in JSON text that is not parsed, window by window: which key stands before, what is cut."""

from collections.abc import Iterable
from typing import Final, NamedTuple

LONGEST_KEY: Final = 11 + 64 + 1 + 64
"""Bytes of a key, and of the colon and the blanks between it and its value."""
_BLANKS: Final = b" \t\r\n"


class Replaced(NamedTuple):
    """A part of a window."""

    begin: int
    end: int
    by: bytes
    member: int
    """Where its member can begin at the earliest."""


class Keys:
    """Keys whose values are looked at."""

    def __init__(self, *names: str) -> None:
        self._keys = tuple(f'"{name}"'.encode() for name in names)
        self._as_usual = tuple(key + colon for key in self._keys for colon in (b":", b": "))

    def stand_before(self, text: bytes, begin: int) -> bool:
        """Whether one of them is the key of the value that begins there, with at most 64 blanks around its colon."""
        if text.endswith(self._as_usual, 0, begin):
            return True
        before = text[max(0, begin - LONGEST_KEY) : begin].rstrip(_BLANKS)
        return before.endswith(b":") and before[:-1].rstrip(_BLANKS).endswith(self._keys)


def splice(window: bytes, parts: Iterable[Replaced], until: int) -> tuple[bytes, bytes]:
    """Replace what lies before `until`, and to its end what begins before it; return that text, and what is left."""
    pieces, position = [], 0
    for begin, end, by, member in sorted(parts):
        if begin >= position and member < until:
            pieces += [window[position:begin], by]
            position = end
    rest = max(until, position)
    pieces.append(window[position:rest])
    return b"".join(pieces), window[rest:]
