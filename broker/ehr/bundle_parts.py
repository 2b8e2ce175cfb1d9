"""Take a Bundle apart as it passes: its members, and its entries one by one, each with the text as it was written.

Whoever puts the texts together again has the same bytes: FHIR decimals do not survive being read and written (`1.10` is
not `1.1`). One part is held at a time, whatever the chunks. What has two readings (a member twice, another encoding,
more after the end) is the EHR's mistake: `EhrMisbehaved`.
"""

import codecs
import json
import re
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, NoReturn, TypeAlias

from broker.errors import EhrMisbehaved
from broker.json_values import MOST_VALUES, has_too_many_values

MOST_CHARACTERS: Final = 8 << 20
"""Most that one entry, or one other member, may have. At most twice that is held."""
_TOO_MANY: Final = f"has an entry of more than {MOST_VALUES} values"
_MOST_MEMBERS: Final = 1000
"""Of the Bundle itself, which has a dozen: their names are kept."""
_SPACE: Final = re.compile(r"[ \t\r\n]*")
Kind: TypeAlias = Literal["begin", "member", "open", "entry", "close", "end"]


class Part(NamedTuple):
    """A piece of the body. `open` and `close` are the brackets around the entries."""

    kind: Kind
    text: str
    """As written, with the white space around it; the commas between parts are in none."""
    name: str = ""
    """Of a member."""
    value: Any = None
    """Of a member or an entry; its numbers are text."""


class _Ambiguous(ValueError):
    """The value has a member twice, or a number that JSON does not have."""


class BundleParts:
    """Feed it chunks, then call `finish`."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("strict").decode
        self._text = ""
        self._at = 0
        """Up to where the text has been given out."""
        self._waiting: list[str] = []
        self._waiting_length = self._enough = 0
        """What has come since, and how much of it makes another attempt worth its while: as much as was there."""
        self._names: set[str] = set()
        self._is_first = True
        self._step: Callable[[], Part | bool] = self._begin
        """Returns a part, or whether it went on; else more is needed."""

    def feed(self, chunk: bytes) -> list[Part]:
        """Return the parts that are complete now. Raises `EhrMisbehaved`."""
        self._take_in(chunk)
        return self._go_on() if self._waiting_length >= self._enough else []

    def finish(self) -> list[Part]:
        """Return the last parts. Raises `EhrMisbehaved` unless the object is complete."""
        self._take_in(b"", is_last=True)
        parts = self._go_on()
        if self._step != self._rest:
            _refuse("is not one JSON object, or not a whole one")
        return parts

    def _take_in(self, chunk: bytes, *, is_last: bool = False) -> None:
        try:
            text = self._decode(chunk, is_last)
        except UnicodeDecodeError:
            text = None  # left behind here: the error would hold the bytes
        if text is None:
            _refuse("is not UTF-8")
        self._waiting.append(text)
        self._waiting_length += len(text)

    def _go_on(self) -> list[Part]:
        self._text = "".join([self._text[self._at :], *self._waiting])
        self._at, self._waiting, self._waiting_length = 0, [], 0
        if has_too_many_values(self._text):
            _refuse(_TOO_MANY)
        parts: list[Part] = []
        while went := self._step():
            if isinstance(went, Part):
                parts.append(went)
        self._enough = len(self._text) - self._at
        if self._enough > MOST_CHARACTERS:
            _refuse(f"has an entry of more than {MOST_CHARACTERS} characters")
        return parts

    def _begin(self) -> Part | bool:
        return self._take_bracket("begin", "{", self._member)

    def _member(self) -> Part | bool:
        if self._is_first and (empty := self._take_bracket("end", "}", self._rest)):
            return empty
        is_named = self._text.startswith('"', self._past_space(self._at))
        name, colon = self._read(self._at)
        if not is_named or not self._text.startswith(":", colon):
            return False
        if name == "entry" and self._text.startswith("[", self._past_space(colon + 1)):
            self._note(name)
            self._is_first, self._step = True, self._entry
            return self._take("open", self._past_space(colon + 1) + 1, name)
        value, end = self._read(colon + 1)
        if not self._text.startswith((",", "}"), end):
            return False
        self._note(name)
        self._is_first, self._step = False, self._after_member
        return self._take("member", end, name, value)

    def _after_member(self) -> Part | bool:
        return self._take_comma(self._member) or self._take_bracket("end", "}", self._rest)

    def _entry(self) -> Part | bool:
        if self._is_first and (close := self._close()):
            return close
        value, end = self._read(self._at)
        if not self._text.startswith((",", "]"), end):
            return False
        self._is_first, self._step = False, self._after_entry
        return self._take("entry", end, value=value)

    def _after_entry(self) -> Part | bool:
        return self._take_comma(self._entry) or self._close()

    def _close(self) -> Part | bool:
        at = self._past_space(self._at)
        end = self._past_space(at + 1)
        if not self._text.startswith("]", at) or not self._text.startswith((",", "}"), end):
            return False
        self._step = self._after_member
        return self._take("close", end)

    def _rest(self) -> Part | bool:
        if self._past_space(self._at) < len(self._text):
            _refuse("goes on after its end")
        return self._at < len(self._text) and self._take("end", len(self._text))

    def _take_bracket(self, kind: Kind, bracket: str, then: Callable[[], Part | bool]) -> Part | bool:
        at = self._past_space(self._at)
        if not self._text.startswith(bracket, at):
            return False
        self._step = then
        return self._take(kind, at + 1)

    def _take_comma(self, then: Callable[[], Part | bool]) -> bool:
        if not self._text.startswith(",", self._at):
            return False
        self._at, self._step = self._at + 1, then
        return True

    def _take(self, kind: Kind, end: int, name: str = "", value: Any = None) -> Part:
        text, self._at = self._text[self._at : end], end
        return Part(kind, text, name, value)

    def _read(self, at: int) -> tuple[Any, int]:
        """Return the value that begins there, and where what follows it and its white space begins.

        Past the end where it is not whole yet; what never can be waits for the end, too.
        """
        try:
            value, end = _READER.raw_decode(self._text, self._past_space(at))
        except (_Ambiguous, RecursionError):
            value, end = None, None
        except ValueError:
            return None, len(self._text) + 1
        if end is None:
            _refuse("has a member twice, or is nested too deep")
        return value, self._past_space(end)

    def _past_space(self, at: int) -> int:
        found = _SPACE.match(self._text, at)
        return found.end() if found else at

    def _note(self, name: str) -> None:
        """Some clients do not distinguish case, so neither does a repetition."""
        if name.casefold() in self._names:
            _refuse("has a member twice")
        if len(self._names) == _MOST_MEMBERS:
            _refuse(f"has more than {_MOST_MEMBERS} members")
        self._names.add(name.casefold())


def read_whole(body: bytes) -> Any:
    """Return what a body says that is held whole. Raises `EhrMisbehaved`."""
    try:
        text = body.decode()
        is_whole = not has_too_many_values(text)
        value = _READER.decode(text) if is_whole else None
    except (ValueError, RecursionError):  # left behind here: their text would hold the body
        value, is_whole = None, False
    return value if is_whole else _refuse(f"is not one unambiguous JSON text in UTF-8 of at most {MOST_VALUES} values")


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Ambiguous
    return members


def _no_constant(_: str) -> NoReturn:
    raise _Ambiguous


_READER: Final = json.JSONDecoder(
    object_pairs_hook=_unambiguous, parse_int=str, parse_float=str, parse_constant=_no_constant
)


def _refuse(why: str) -> NoReturn:
    raise EhrMisbehaved(f"an answer that has to be checked {why}")
