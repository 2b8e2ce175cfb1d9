"""Next links that do not say what they search (PX-07): `{base}?_getpages=…`, `Observation?-pageContext=…`.

The broker adds to such a link what the search it goes on with needed, under a keyed hash that binds it to path, query
and the app's authorization. Following it needs the same scopes again; nobody else can use it, and nobody can make one.
"""

import base64
import hmac
import json
from dataclasses import dataclass, replace
from typing import Final

from broker.credentials import KeyedHash
from broker.errors import UninterpretableInteraction
from broker.interactions import Interaction, Need, parse_interaction, parse_page
from broker.policy import Permit

PARAMETER: Final = "_sbpage"
_PREFIX: Final = f"{PARAMETER}=".encode()
_MAC_LENGTH: Final = 32


@dataclass(frozen=True, slots=True)
class PageLinks:
    """Makes page links and reads them back."""

    keyed_hash: KeyedHash

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
        needs = _dump_needs(search.needs)
        return f"&{PARAMETER}={needs}.{self._mac(permit.handle.family, needs, page)}"

    def take(self, raw_query: bytes) -> tuple[bytes, str | None]:
        """Separate the broker's parameter from a query, so that it is neither parsed nor forwarded."""
        if _PREFIX not in raw_query:
            return raw_query, None
        pairs = raw_query.split(b"&")
        ours = [pair for pair in pairs if pair.startswith(_PREFIX)]
        rest = b"&".join(pair for pair in pairs if not pair.startswith(_PREFIX))
        return rest, ours[0].removeprefix(_PREFIX).decode("ascii", "replace") if ours else ""

    def follow(self, page: Interaction, link: str, family: str) -> Interaction:
        """Give a page the needs of its search. Raises `UninterpretableInteraction` for a link that is not ours."""
        needs, _, mac = link.partition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(family, needs, page).encode()):
            raise UninterpretableInteraction("a page link that was changed, or made for another authorization")
        return replace(page, needs=_load_needs(needs))

    def _mac(self, family: str, needs: str, page: Interaction) -> str:
        return self.keyed_hash("page", f"{family}\0{needs}\0{page.path}?{page.query}")[:_MAC_LENGTH]


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


def _dump_needs(needs: tuple[Need, ...]) -> str:
    plain = [[need.type, need.letter, need.parameters] for need in needs]
    return base64.urlsafe_b64encode(json.dumps(plain, separators=(",", ":")).encode()).rstrip(b"=").decode()


def _load_needs(text: str) -> tuple[Need, ...]:
    plain = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return tuple(Need(type_, letter, tuple((name, value) for name, value in pairs)) for type_, letter, pairs in plain)
