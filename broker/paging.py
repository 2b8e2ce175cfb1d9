"""Next links that no longer say what they search (PX-07): `{base}?_getpages=…` names no type to check a scope for.

The broker adds to such a link what the search it belongs to needed, under a keyed hash that binds it to the query and
to the app's authorization. Following it needs the same scopes again; nobody else can use it, and nobody can make one.
"""

import base64
import hmac
import json
from dataclasses import dataclass, replace
from typing import Final

from broker.credentials import KeyedHash
from broker.errors import UninterpretableInteraction
from broker.interactions import Interaction, Need, parse_interaction
from broker.policy import Permit

PARAMETER: Final = "_sbpage"
_PREFIX: Final = f"{PARAMETER}=".encode()
_MAC_LENGTH: Final = 32


@dataclass(frozen=True, slots=True)
class PageLinks:
    """Makes page links and reads them back."""

    keyed_hash: KeyedHash

    def extend(self, permit: Permit, query: str) -> str:
        """Return what to append to a link's query; nothing unless it goes on with a search that was just permitted."""
        if not permit.interaction.kind.startswith("search-") and permit.interaction.kind != "operation":
            return ""
        try:
            page = parse_interaction("GET", b"", query.encode(), (), None)
        except (UninterpretableInteraction, UnicodeEncodeError):
            return ""
        if page.kind != "search-page":
            return ""
        needs = _dump_needs(permit.interaction.needs)
        return f"&{PARAMETER}={needs}.{self._mac(permit.handle.family, needs, page.query)}"

    def take(self, raw_query: bytes) -> tuple[bytes, str | None]:
        """Separate the broker's parameter from a query, so that it is neither parsed nor forwarded."""
        if _PREFIX not in raw_query:
            return raw_query, None
        pairs = raw_query.split(b"&")
        ours = [pair for pair in pairs if pair.startswith(_PREFIX)]
        rest = b"&".join(pair for pair in pairs if not pair.startswith(_PREFIX))
        return rest, ours[0].removeprefix(_PREFIX).decode("ascii", "replace") if ours else ""

    def restore(self, interaction: Interaction, link: str | None, family: str) -> Interaction:
        """Give a page the needs of its search. Raises `UninterpretableInteraction` for a link that is not ours."""
        if link is None:
            return interaction
        needs, _, mac = link.partition(".")
        if interaction.kind != "search-page" or not hmac.compare_digest(
            mac.encode(), self._mac(family, needs, interaction.query).encode()
        ):
            raise UninterpretableInteraction("a page link that was changed, or made for another authorization")
        return replace(interaction, needs=_load_needs(needs))

    def _mac(self, family: str, needs: str, query: str) -> str:
        return self.keyed_hash("page", f"{family}\0{needs}\0{query}")[:_MAC_LENGTH]


def _dump_needs(needs: tuple[Need, ...]) -> str:
    plain = [[need.type, need.letter, need.parameters] for need in needs]
    return base64.urlsafe_b64encode(json.dumps(plain, separators=(",", ":")).encode()).rstrip(b"=").decode()


def _load_needs(text: str) -> tuple[Need, ...]:
    plain = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return tuple(Need(type_, letter, tuple((name, value) for name, value in pairs)) for type_, letter, pairs in plain)
