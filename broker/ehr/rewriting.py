"""Turn the EHR's base URL into the broker's where a client follows it: `Bundle.link.url` and `fullUrl` (PX-06).

A client that follows an unrewritten `next` link sends its handle to the EHR's host. The body is not parsed: FHIR
decimals would not survive (`1.10` is not `1.1`), and a large Bundle would have to be held. Instead the links of the
outermost Bundle are found by `PageUrls`, and elsewhere, where apps write, the members are recognised by what stands
around them, over a window that slides across chunk borders, in bounded memory.
"""

import json
import re
from collections.abc import Callable
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from broker.ehr.page_urls import LONGEST_URL, PageUrls
from broker.secret import Secret

_COLON: Final = rb"\s{0,64}:\s{0,64}"
_COMMA: Final = rb"\s{0,64},\s{0,64}"
_URL: Final = rb'"((?:[^"\\]|\\.){0,%d})"' % LONGEST_URL
_MEMBERS: Final = re.compile(
    b"|".join(
        [
            rb'"fullUrl"' + _COLON + _URL,
            rb'"relation"' + _COLON + rb'"[^"\\]{0,256}"' + _COMMA + rb'"url"' + _COLON + _URL,
            rb'"url"' + _COLON + _URL + _COMMA + rb'"relation"' + _COLON,
        ]
    )
)
_FULL_URL: Final = 1
ExtendPage: TypeAlias = Callable[[str, str], str]
_LONGEST_MEMBER: Final = 17 * 1024
WITHHELD: Final = "urn:smart-token-broker:link-withheld"
"""Instead of a link that leaves the EHR's base: whoever followed it would send its handle there."""
REMOVED: Final = "[removed]"


class UrlRewriter:
    """Rewrites a JSON body as it passes. Feed it chunks, then call `finish`.

    `extend_page` is given a link's path below the base and its query, and returns what to append to it (PX-07); it is
    asked for links of the outermost Bundle only. What stands in entries may have been written by an app, and must not
    be made a page link.
    """

    def __init__(self, ehr_base: str, broker_base: str, extend_page: ExtendPage = lambda _path, _query: "") -> None:
        self._ehr_base = ehr_base
        self._broker_base = broker_base
        self._extend_page = extend_page
        self._page_urls = PageUrls()
        self._window = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return what can be given out now; at most 42 KiB are held back, so that none is looked at often."""
        return b"".join(
            b"".join((self._flush(), b'"', self._turn_page_url(piece), b'"')) if is_url else self._pass(piece)
            for piece, is_url in self._page_urls.feed(chunk)
        )

    def finish(self) -> bytes:
        """Return the rest."""
        self._window += self._page_urls.finish()
        return self._flush()

    def _pass(self, text: bytes) -> bytes:
        self._window += text
        if len(self._window) < 2 * _LONGEST_MEMBER:
            return b""
        return self._advance(len(self._window) - _LONGEST_MEMBER)

    def _flush(self) -> bytes:
        return self._advance(len(self._window))

    def _advance(self, until: int) -> bytes:
        """Give out everything before `until`, and to its end a member that begins before it."""
        if until <= 0:
            return b""
        pieces, position, end = [], 0, until
        for match in _MEMBERS.finditer(self._window):
            if match.start() >= until:
                break
            kind = match.lastindex or 0
            turned = self._turn(match[kind], is_followed=kind != _FULL_URL)
            pieces += [self._window[position : match.start(kind)], turned]
            position, end = match.end(kind), max(until, match.end())
        pieces.append(self._window[position:end])
        self._window = self._window[end:]
        return b"".join(pieces)

    def _turn_page_url(self, written: bytes) -> bytes:
        if len(written) > LONGEST_URL:
            return WITHHELD.encode()
        return self._turn(written, is_followed=True, extend_page=self._extend_page)

    def _turn(self, written: bytes, *, is_followed: bool, extend_page: ExtendPage = lambda _path, _query: "") -> bytes:
        try:
            url = str(json.loads(b'"' + written + b'"'))
        except ValueError:
            return WITHHELD.encode()
        turned = rewrite_url(url, self._ehr_base, self._broker_base)
        if turned is None:
            return WITHHELD.encode() if is_followed and _is_absolute(url) else written
        path, mark, query = turned.removeprefix(self._broker_base).partition("?")
        if mark:
            turned += extend_page(path.removeprefix("/"), query)
        return json.dumps(turned)[1:-1].encode()


def _is_absolute(url: str) -> bool:
    """Whether a client that follows it may leave this server; URL parsers drop blanks, and take a backslash for `/`."""
    plain = re.sub(r"[^!-~]", "", url)
    return "\\" in plain or plain.startswith("//") or ":" in re.split("[/?#]", plain, maxsplit=1)[0]


def rewrite_url(url: str, ehr_base: str, broker_base: str) -> str | None:
    """Map a URL under the EHR's base to the broker's; None for any other, which must not reach the app."""
    for base in _spellings(ehr_base):
        if url == base or url.startswith((f"{base}/", f"{base}?")):
            return broker_base + url[len(base) :]
    return None


def _spellings(base: str) -> tuple[str, ...]:
    """Return the base without and with its scheme's own port: an EHR behind a proxy may write either (PX-06)."""
    parts = urlsplit(base)
    port = 443 if parts.scheme == "https" else 80
    if parts.port not in {None, port}:
        return (base,)
    host = parts.netloc.removesuffix(f":{port}")
    return tuple(f"{parts.scheme}://{netloc}{parts.path}" for netloc in (host, f"{host}:{port}"))


class SecretRemover:
    """Takes a token out of an answer that echoes it, also when it is split over chunks (HB-07)."""

    def __init__(self, token: Secret) -> None:
        self._text = token.reveal()
        self._token = self._text.encode()
        self._escaped = self._token.replace(b"/", rb"\/")
        self._held = b""

    def __repr__(self) -> str:
        return "SecretRemover()"

    def text(self, value: str) -> str:
        """Return a header's value without the token."""
        return value.replace(self._text, REMOVED)

    def feed(self, chunk: bytes) -> bytes:
        """Return what can be given out now; as much as could be the beginning of the token is held back."""
        window = (self._held + chunk).replace(self._token, REMOVED.encode())
        held = _overlap(window, self._token)
        if self._escaped != self._token:
            window = window.replace(self._escaped, REMOVED.encode())
            held = max(_overlap(window, self._token), _overlap(window, self._escaped))
        self._held = window[len(window) - held :]
        return window[: len(window) - held]

    def finish(self) -> bytes:
        """Return the rest."""
        rest, self._held = self._held, b""
        return rest


def _overlap(window: bytes, token: bytes) -> int:
    """Return how many bytes at the end of `window` are the beginning of `token`."""
    start = max(0, len(window) - len(token) + 1)
    position = window.find(token[:1], start)
    while position != -1:
        if token.startswith(window[position:]):
            return len(window) - position
        position = window.find(token[:1], position + 1)
    return 0
