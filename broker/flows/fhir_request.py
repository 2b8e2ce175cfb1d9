"""A FHIR request as it arrived, and what of it goes on to the EHR."""

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

from broker.ehr.fhir_server import request_headers
from broker.errors import InvalidHandle, InvalidRequest, TooLarge
from broker.flows.relay import accept_for, takes_packed
from broker.interactions import Interaction, wants_body
from broker.policy import FindArrival, Permit

DECIDED_BODY_BYTES: Final = 4 << 20
"""Most that a body may be which has to be read before deciding."""
_CONDITIONS: Final = frozenset({"if-match", "if-modified-since", "if-none-match"})
_TOKEN_IN_URL: Final = re.compile(rb"access_token|(?<![0-9A-Za-z_-])sb[hr]_[0-9A-Za-z]{12}")
"""Not within a longer word: the text of a page link is random, and may hold the like."""


@dataclass(frozen=True, slots=True)
class FhirRequest:
    """What arrived at `/fhir/{ehr}/{path}`."""

    ehr: str
    handle: str = field(repr=False)
    method: str
    raw_path: bytes = field(repr=False)
    """Relative to the FHIR base, as received, still percent-encoded."""
    raw_query: bytes = field(repr=False)
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    body: AsyncIterator[bytes] | None = field(repr=False)
    """What follows the head. It is read once the handle is known to be good: whole where it has to be decided on (a
    search form, a batch), else on its way through."""
    request_id: str
    tell_app: Callable[[str], None] = field(default=lambda _app: None, repr=False)
    """Is told whose handle it is, once that is known."""
    find_arrival: FindArrival | None = field(default=None, repr=False)
    """Tells when and from where it came."""
    path: str = field(default="", repr=False)
    """The whole path, as received: what a DPoP proof has to be about."""
    proofs: tuple[str, ...] | None = field(default=None, repr=False)
    """The DPoP headers where the handle came by that scheme; None where it came as a bearer's."""

    def require_sound(self) -> None:
        """Raise unless there is a handle where it belongs, none where the EHR would log it, and at most one length."""
        if not self.handle:
            raise InvalidHandle("no bearer token, or two")
        if _TOKEN_IN_URL.search(unquote_to_bytes(self.raw_query)):
            raise InvalidRequest("a token in the URL", public="The access token belongs in the Authorization header.")

        names = {name.lower() for name, _ in self.headers}
        if {b"content-length", b"transfer-encoding"} <= names:
            raise InvalidRequest("two lengths", public="Content-Length and Transfer-Encoding do not go together.")

    async def decided_body(self) -> bytes | None:
        """Read the body if it has to be decided on. Raises `TooLarge`."""
        if self.body is None or not wants_body(self.method, self.raw_path):
            return None
        whole = bytearray()
        async for chunk in self.body:
            whole += chunk
            if len(whole) > DECIDED_BODY_BYTES:
                raise TooLarge(f"a body to be decided on of more than {DECIDED_BODY_BYTES} bytes")
        return bytes(whole)

    def headers_for_ehr(self, permit: Permit) -> dict[str, str]:
        """Return what goes on, with what the broker itself asks. Raises `InvalidRequest`, `NotAcceptable`."""
        accept = accept_for(permit.interaction, self.headers)
        kept = request_headers(self.headers, accept=accept, preferences=preferences(permit))
        if (
            permit.checks is not None
        ):  # what is checked has to be answered: 304 or 412 would tell of what may not be read
            kept = {name: value for name, value in kept.items() if name not in _CONDITIONS}
        elif takes_packed(permit.interaction, self.headers):
            kept["accept-encoding"] = "gzip"
        return kept | self._announced_length(permit.interaction)

    def _announced_length(self, interaction: Interaction) -> dict[str, str]:
        """Keep the length of a body that passes through: else it would go on in chunks, which some EHRs refuse."""
        lengths = [value.decode("latin-1") for name, value in self.headers if name.lower() == b"content-length"]
        passes = self.body is not None and interaction.body is None
        return {"content-length": lengths[0]} if passes and len(lengths) == 1 and lengths[0].isdigit() else {}


def require_no_token(interaction: Interaction) -> None:
    """Raise for a token among the search parameters, of the URL or of a form: it would go on to the EHR."""
    if any(name.lower() == "access_token" for name, _ in interaction.parameters):
        raise InvalidRequest("a token among the parameters", public="The token belongs in the header alone.")


def preferences(permit: Permit) -> list[str]:
    """Return what the EHR is asked by `Prefer`: to honour what was relied on, to show nothing that may not be read.

    What else the app asked to be answered with goes on in FHIR's spelling.
    """
    interaction = permit.interaction
    is_blind = any(_is_blind(part) for part in interaction.entries or (interaction,))
    returns = "minimal" if is_blind else interaction.returns
    return [*(["handling=strict"] if permit.relies_on_search else []), *([f"return={returns}"] if returns else [])]


def _is_blind(interaction: Interaction) -> bool:
    """Whether it changes or finds what others wrote, by somebody who may not read that."""
    tells = interaction.kind == "conditional-create" or interaction.kind.endswith("patch")
    return tells and not any(need.letter == "r" for need in interaction.needs)
