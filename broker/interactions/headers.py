"""The request headers that change what a request means; no other header does."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from broker.interactions.syntax import refuse

_OVERRIDES: Final = frozenset(
    {"x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"}
)
_SINGLE: Final = ("content-type", "content-encoding", "if-none-exist", "if-none-match")
_MEANINGFUL: Final = frozenset(name.encode() for name in (*_OVERRIDES, *_SINGLE, "prefer"))

_RETURNS: Final = {
    "return=representation": "representation",
    "return=operationoutcome": "OperationOutcome",
    "return=minimal": "minimal",
}
_NOISE: Final = str.maketrans("", "", ' \t"')


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """What the request, or an entry of a Bundle, says beside its URL."""

    media_type: str | None
    """Of the body, in lower case, without parameters; the body is UTF-8 and not compressed."""
    if_none_exist: str | None
    """The criteria of a conditional create."""
    if_none_match: bool
    returns: str | None
    """What `Prefer: return` wants a write to be answered with, as FHIR spells it; of several what shows most."""
    responds_async: bool = False
    """`Prefer: respond-async`: of an export, the only interaction that may ask for it."""
    separate_status: bool = False
    """`Prefer: separate-export-status`: the status of an export is told in a header of its own (BD-04)."""

    @classmethod
    def read(cls, headers: Iterable[tuple[bytes, bytes]], *, may_be_async: bool = False) -> "RequestHeaders":
        """Refuses method and path overrides, a meaningful header that is repeated, and asynchronous answers.

        Those it takes where `may_be_async`.
        """
        values: defaultdict[str, list[str]] = defaultdict(list)
        for raw_name, value in headers:
            if (name := raw_name.lower()) in _MEANINGFUL:
                values[name.decode("latin-1")].append(value.decode("latin-1").strip(" \t"))
        if not values:
            return _SILENT
        if not _OVERRIDES.isdisjoint(values):
            refuse("a header that overrides the method or the path")
        if any(len(values[name]) > 1 for name in _SINGLE if name in values):
            refuse("a header that may be sent once is repeated")
        single = {name: values[name][0] for name in _SINGLE if name in values}
        preferences = _preferences(values.get("prefer", []))
        if "respond-async" in preferences and not may_be_async:
            refuse("only an export is answered asynchronously")
        return cls(
            media_type=_media_type(single.get("content-type"), single.get("content-encoding", "identity")),
            if_none_exist=single.get("if-none-exist"),
            if_none_match="if-none-match" in single,
            returns=next((value for word, value in _RETURNS.items() if word in preferences), None),
            responds_async="respond-async" in preferences,
            separate_status="separate-export-status" in preferences,
        )

    @property
    def returns_stored(self) -> bool:
        """Whether the answer to a write shows the resource as it is stored."""
        return self.returns == "representation"


_SILENT: Final = RequestHeaders(media_type="", if_none_exist=None, if_none_match=False, returns=None)
"""What most requests say."""


def _preferences(values: Iterable[str]) -> frozenset[str]:
    """Split `Prefer` (RFC 7240), reading more into it rather than less: case, blanks and quotes do not hide a word."""
    words = _plain(",".join(values)).replace(";", ",").split(",")
    return frozenset(word.partition("=")[0] if word.startswith("respond-async") else word for word in words)


def _media_type(content_type: str | None, encoding: str) -> str | None:
    """Return None for a body that is compressed or in another charset: such a body is not interpretable."""
    media_type, *parameters = (content_type or "").lower().split(";")
    charsets = {part for part in map(_plain, parameters) if part.startswith("charset")}
    return media_type.strip() if charsets <= {"charset=utf-8"} and encoding.lower() == "identity" else None


def _plain(text: str) -> str:
    return text.lower().translate(_NOISE)
