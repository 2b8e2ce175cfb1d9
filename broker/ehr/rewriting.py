"""Turn the EHR's base URL into the broker's where a client follows it: `Bundle.link.url` and `fullUrl` (PX-06).

A client that follows an unrewritten `next` link sends its handle to the EHR's host. The body is not parsed: FHIR
decimals would not survive (`1.10` is not `1.1`), and a large Bundle would have to be held. Instead each occurrence of
the base is looked at with what stands around it, over a window that slides across chunk borders, in bounded memory.
"""

import json
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from broker.secret import Secret

_BEFORE: Final = re.compile(
    rb'"fullUrl"\s{0,64}:\s{0,64}"\Z|"relation"\s{0,64}:\s{0,64}"[^"\\]{0,256}"\s{0,64},\s{0,64}"url"\s{0,64}:\s{0,64}"\Z'
)
_URL_KEY: Final = re.compile(rb'"url"\s{0,64}:\s{0,64}"\Z')
_RELATION_AFTER: Final = re.compile(rb'[^"]{0,8192}"\s{0,64},\s{0,64}"relation"\s{0,64}:')
_OPAQUE_TAIL: Final = re.compile(
    rb'((?:\\?/)?\?)(?=[^"]{1,8192}")((?:[ !#-\[\]-~]|\\[/\\]|\\u00[2-7][0-9a-fA-F])+)(?=")'
)
_LOOK_BEHIND: Final = 1024
_LOOK_AHEAD: Final = 9216
_ENDS_BASE: Final = frozenset(b'/"?\\')
REMOVED: Final = "[removed]"


class UrlRewriter:
    """Rewrites a JSON body as it passes. Feed it chunks, then call `finish`.

    `extend_page` is given the query of a link to the bare base, and returns what to append to it (PX-07).
    """

    def __init__(self, ehr_base: str, broker_base: str, extend_page: Callable[[str], str] = lambda _: "") -> None:
        self._extend_page = extend_page
        plain = dict.fromkeys(_spellings(ehr_base), broker_base)
        escaped = {base.replace("/", "\\/"): broker_base.replace("/", "\\/") for base in plain}
        self._replacements = {base.encode(): ours.encode() for base, ours in {**plain, **escaped}.items()}
        self._base = re.compile(b"|".join(map(re.escape, self._replacements)))
        self._window = b""
        self._done = 0
        """How much of the window has been given out already; it stays only to be looked back at."""

    def feed(self, chunk: bytes) -> bytes:
        """Return what can be given out now; at most 10 KiB are held back."""
        self._window += chunk
        return self._advance(len(self._window) - _LOOK_AHEAD)

    def finish(self) -> bytes:
        """Return the rest."""
        return self._advance(len(self._window))

    def _advance(self, until: int) -> bytes:
        if until <= self._done:
            return b""
        pieces, position = [], self._done
        for match in self._base.finditer(self._window, self._done):
            if match.start() >= until:
                break
            if match.start() >= position and self._is_link(match):
                end, tail = self._opaque_tail(match.end())
                pieces += [self._window[position : match.start()], self._replacements[match[0]], tail]
                position = end
        end = max(until, position)
        pieces.append(self._window[position:end])
        keep_from = max(0, end - _LOOK_BEHIND)
        self._window, self._done = self._window[keep_from:], end - keep_from
        return b"".join(pieces)

    def _opaque_tail(self, start: int) -> tuple[int, bytes]:
        """Return where a link to the bare base ends and how it goes on; for any other link, nothing is taken."""
        opaque = _OPAQUE_TAIL.match(self._window, start)
        if opaque is None:
            return start, b""
        query = json.loads(b'"' + opaque[2] + b'"')
        return opaque.end(), opaque[0] + self._extend_page(query).encode()

    def _is_link(self, match: re.Match[bytes]) -> bool:
        following = self._window[match.end() : match.end() + 1]
        if following and following[0] not in _ENDS_BASE:
            return False
        before = self._window[max(0, match.start() - _LOOK_BEHIND) : match.start()]
        if _BEFORE.search(before):
            return True
        return bool(_URL_KEY.search(before) and _RELATION_AFTER.match(self._window, match.end()))


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
