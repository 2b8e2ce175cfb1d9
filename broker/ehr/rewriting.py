"""Turn the EHR's URLs into the broker's where a client follows them (PX-06).

`Bundle.link.url`, `fullUrl`, absolute references, `location` of a batch's answers, and URLs of Binaries, as attachments
have them: a client that follows the EHR's own sends its handle to the EHR's host. The body is not parsed: FHIR decimals
would not survive (`1.10` is not `1.1`), and a large Bundle would have to be held. Instead the links of the outermost
Bundle are found by `PageUrls`; elsewhere URLs are found by how they begin, and turned where the key before them says
that they are followed. What is not the EHR's passes as it is, except links: those are withheld.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from broker.ehr.members import LONGEST_KEY, Keys, Replaced, splice
from broker.ehr.page_urls import LONGEST_URL, PageUrls, Piece
from broker.ehr.spellings import Span, Spellings
from broker.ehr.url_map import UrlMap
from broker.errors import EhrMisbehaved
from broker.secret import Secret

_FOLLOWED: Final = Keys("fullUrl", "reference", "location")
_URL_KEY: Final = Keys("url")
_BINARY: Final = re.compile(rb"(?:\\?/)Binary(?:\\?/)")
"""What follows the base in the URL of content that is read. Other URLs below the base are names, as of extensions."""
_COLON: Final = rb"\s{0,64}:\s{0,64}"
_COMMA: Final = rb"\s{0,64},\s{0,64}"
_URL: Final = rb'"((?:[^"\\]|\\.){0,%d})"' % LONGEST_URL
_LINK: Final = re.compile(
    b"|".join(
        [
            rb'"relation"' + _COLON + rb'"[^"\\]{0,256}"' + _COMMA + rb'"url"' + _COLON + _URL,
            rb'"url"' + _COLON + _URL + _COMMA + rb'"relation"' + _COLON,
        ]
    )
)
_LONGEST_MEMBER: Final = 17 * 1024
_GATHERED: Final = 2 * _LONGEST_MEMBER
ExtendPage: TypeAlias = Callable[[str, str], str]
WITHHELD: Final = "urn:smart-token-broker:link-withheld"
"""Instead of a link that leaves the EHR's base: whoever followed it would send its handle there."""
REMOVED: Final = "[removed]"
_NEVER_FIRST: Final = frozenset(b"\x00\xfe\xff")
"""Among the first two bytes: JSON in UTF-16 or UTF-32 begins so, with a byte order mark or without (RFC 4627 §3)."""


class UrlRewriter:
    """Rewrites a JSON body as it passes. Feed it chunks, then call `finish`.

    `extend_page` is given a link's path below the base and its query, and returns what to append to it (PX-07); it is
    asked for links of the outermost Bundle only. What stands in entries may have been written by an app, and must not
    be made a page link.
    """

    def __init__(self, urls: UrlMap, extend_page: ExtendPage = lambda _path, _query: "") -> None:
        self._urls = urls
        self._ours = b'"' + urls.ours.encode()
        self._extend_page = extend_page
        self._page_urls = PageUrls()
        self._is_begun = False
        self._gathered: list[bytes] = []
        self._size = 0
        self._window = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return what can be given out now; at most 60 KiB are held back, so that none is looked at often.

        Raises `EhrMisbehaved` for a body in another encoding than UTF-8, before any of it is given out, and for links
        without end.
        """
        self._gathered.append(chunk)
        self._size += len(chunk)
        if self._size < _GATHERED:
            return b""
        return self._take(self._page_urls.feed(self._gather()), hold=_LONGEST_MEMBER)

    def finish(self) -> bytes:
        """Return the rest. Raises as `feed`."""
        pieces = self._page_urls.feed(self._gather())
        return self._take([*pieces, (self._page_urls.finish(), False)], hold=0)

    def _gather(self) -> bytes:
        chunk = b"".join(self._gathered)
        self._gathered, self._size = [], 0
        if not (self._is_begun or may_be_utf_8(chunk)):
            raise EhrMisbehaved("the EHR answered JSON that is not UTF-8 (RFC 8259 §8.1)")
        self._is_begun = True
        return chunk

    def _take(self, pieces: list[Piece], *, hold: int) -> bytes:
        """Turn pieces of the body, but for as many bytes at the end as a member may have."""
        out = []
        for piece, is_url in pieces:
            if is_url:
                out += [self._advance(len(self._window)), b'"', self._turn_page_url(piece), b'"']
            else:
                self._window += piece
        out.append(self._advance(len(self._window) - hold))
        return b"".join(out)

    def _advance(self, until: int) -> bytes:
        """Give out everything before `until`, and to its end a member that begins before it."""
        if until <= 0:
            return b""
        out, self._window = splice(self._window, (*self._followed(self._window), *self._links(self._window)), until)
        return out

    def _followed(self, window: bytes) -> Iterator[Replaced]:
        """Find what begins with one of the EHR's bases, and is followed."""
        for begin, end in self._urls.find(window):
            if _FOLLOWED.stand_before(window, begin) or self._is_binary(window, begin, end):
                yield Replaced(begin, end, self._ours, begin - LONGEST_KEY)

    def _is_binary(self, window: bytes, begin: int, end: int) -> bool:
        is_content = self._urls.attachments and _BINARY.match(window, end) is not None
        return is_content and _URL_KEY.stand_before(window, begin)

    def _links(self, window: bytes) -> Iterator[Replaced]:
        """Find links of Bundles within."""
        if b'"relation"' in window:
            for found in _LINK.finditer(window):
                begin, end = found.span(found.lastindex or 0)
                yield Replaced(begin, end, self._turn(found[found.lastindex or 0]), found.start())

    def _turn_page_url(self, written: bytes) -> bytes:
        if len(written) > LONGEST_URL:
            return WITHHELD.encode()
        return self._turn(written, self._extend_page)

    def _turn(self, written: bytes, extend_page: ExtendPage = lambda _path, _query: "") -> bytes:
        try:
            url = str(json.loads(b'"' + written + b'"'))
        except ValueError:
            return WITHHELD.encode()
        turned = self._urls.at_broker(url)
        if turned is None:
            return WITHHELD.encode() if _is_absolute(url) else written
        path, mark, query = turned.removeprefix(self._urls.ours).partition("?")
        if mark:
            turned += extend_page(path.removeprefix("/"), query)
        return json.dumps(turned)[1:-1].encode()


def _is_absolute(url: str) -> bool:
    """Whether a client that follows it may leave this server; URL parsers drop blanks, and take a backslash for `/`."""
    plain = re.sub(r"[^!-~]", "", url)
    return "\\" in plain or plain.startswith("//") or ":" in re.split("[/?#]", plain, maxsplit=1)[0]


def may_be_utf_8(body: bytes) -> bool:
    """Whether JSON that begins so is UTF-8: many readers tell by its beginning, whatever its Content-Type says."""
    return _NEVER_FIRST.isdisjoint(body[:2])


class SecretRemover:
    """Takes a token out of an answer that echoes it, in any spelling, also when it is split over chunks (HB-07)."""

    def __init__(self, token: Secret) -> None:
        self._spellings = Spellings(token.reveal().encode())
        self._held = b""

    def __repr__(self) -> str:
        return "SecretRemover()"

    def text(self, value: str) -> str:
        """Return a header's value, which is ASCII, without the token."""
        found = self._spellings.find(value.encode())
        return _without(value.encode(), found, len(value))[0].decode() if found else value

    def feed(self, chunk: bytes) -> bytes:
        """Return what can be given out now; as much as could be the beginning of the token is held back."""
        window = self._held + chunk
        found, held = self._spellings.look(window)
        if not found and not held:
            self._held = b""
            return window
        out, self._held = _without(window, found, len(window) - held)
        return out

    def finish(self) -> bytes:
        """Return the rest."""
        rest, self._held = self._held, b""
        return rest


def _without(window: bytes, found: list[Span], until: int) -> tuple[bytes, bytes]:
    return splice(window, (Replaced(begin, end, REMOVED.encode(), begin) for begin, end in found), until)
