"""Next links that do not say what they search (PX-07): `{base}?_getpages=…`, `Observation?-pageContext=…`.

The broker adds to such a link what the search it goes on with needed, sealed for path, query and the app's
authorization. Following it needs the same scopes again; nobody else can use it, nobody can make one, and nobody can
read there what was searched: a search by POST keeps its values out of URLs, and so out of histories and others' logs.
"""

import base64
import json
from dataclasses import dataclass, replace
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.clock import Entropy
from broker.credentials import KeyedHash
from broker.errors import UninterpretableInteraction
from broker.interactions import Interaction, Need, parse_interaction, parse_page
from broker.policy import Permit

PARAMETER: Final = "_sbpage"
_PREFIX: Final = f"{PARAMETER}=".encode()
_NONCE_BYTES: Final = 12
LONGEST: Final = 4096
"""Characters. A link that would grow by more is left as it is: servers and proxies cut longer URLs off."""


@dataclass(frozen=True, slots=True)
class PageLinks:
    """Makes page links and reads them back."""

    keyed_hash: KeyedHash
    entropy: Entropy

    def extend(self, permit: Permit, path: str, query: str) -> str:
        """Return what to append to a link's query; nothing unless it goes on with a search that was just permitted.

        `path` is relative to the FHIR base. A link that says by itself what it needs is left as it is, and one that
        shows more than the search did is not the server's own.
        """
        search = permit.interaction
        try:
            page = parse_page("GET", path.encode(), query.encode(), ())
        except (UninterpretableInteraction, UnicodeEncodeError):
            return ""
        if not _goes_on(search, page) or _speaks_for_itself(search, page):
            return ""
        sealed = self._seal(_dump(search, permit.needs), permit.handle.family, page)
        return f"&{PARAMETER}={sealed}" if len(sealed) <= LONGEST else ""

    def take(self, raw_query: bytes) -> tuple[bytes, str | None]:
        """Separate the broker's parameter from a query, so that it is neither parsed nor forwarded."""
        if _PREFIX not in raw_query:
            return raw_query, None
        pairs = raw_query.split(b"&")
        ours = [pair for pair in pairs if pair.startswith(_PREFIX)]
        rest = b"&".join(pair for pair in pairs if not pair.startswith(_PREFIX))
        return rest, ours[0].removeprefix(_PREFIX).decode("ascii", "replace") if ours else ""

    def follow(self, page: Interaction, link: str, family: str) -> Interaction:
        """Give a page the needs and the code of its search, and what that had of parameters that FHIR does not define.

        Raises `UninterpretableInteraction` for a link that is not ours.
        """
        try:
            code, needs, unlisted = _load(self._open(link, family, page))
        except (ValueError, InvalidTag):
            raise UninterpretableInteraction(
                "a page link that was changed, or made for another authorization"
            ) from None
        return replace(page, needs=needs, continues=code, unlisted=unlisted)

    def _seal(self, needs: bytes, family: str, page: Interaction) -> str:
        nonce = self.entropy(_NONCE_BYTES)
        return _encode(nonce + self._cipher(family).encrypt(nonce, needs, _bound_to(family, page)))

    def _open(self, link: str, family: str, page: Interaction) -> bytes:
        sealed = base64.urlsafe_b64decode(link + "=" * (-len(link) % 4))
        if _encode(sealed) != link:
            raise ValueError("another spelling of the same bytes")
        nonce, body = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        return self._cipher(family).decrypt(nonce, body, _bound_to(family, page))

    def _cipher(self, family: str) -> AESGCM:
        """Return AES-256-GCM under a key of this authorization alone, for which random nonces are enough."""
        return AESGCM(bytes.fromhex(self.keyed_hash("page", family)))


def _encode(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


def _bound_to(family: str, page: Interaction) -> bytes:
    return f"{family}\0{page.path}?{page.query}".encode()


def _goes_on(search: Interaction, page: Interaction) -> bool:
    """Whether a page can be one of this search: at the base or the searched type, naming nothing that it did not."""
    return (
        (search.kind.startswith("search-") or search.kind == "operation")
        and page.type in {None, search.type}
        and set(page.needs) <= set(search.needs)
        and set(page.patients) <= set(search.patients)
    )


def _speaks_for_itself(search: Interaction, page: Interaction) -> bool:
    """Whether a link would be read as needing what the search needed."""
    try:
        own = parse_interaction("GET", page.path.encode(), page.query.encode(), (), None)
    except UninterpretableInteraction:
        return False
    return own.needs == search.needs


def _dump(search: Interaction, needs: tuple[Need, ...]) -> bytes:
    plain = [[need.type, need.letter, need.parameters, need.bound_to] for need in needs]
    return json.dumps([search.code, plain, search.unlisted], separators=(",", ":")).encode()


def _load(text: bytes) -> tuple[str, tuple[Need, ...], tuple[str, ...]]:
    code, plain, unlisted = json.loads(text)
    needs = tuple(
        Need(type_, letter, tuple((name, value) for name, value in pairs), bound_to)
        for type_, letter, pairs, bound_to in plain
    )
    return code, needs, tuple(unlisted)
