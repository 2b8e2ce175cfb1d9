"""A request, or an entry of a Bundle, taken apart; and the interaction that is made of it once it is understood."""

from dataclasses import dataclass, field

from broker.interactions.headers import RequestHeaders
from broker.interactions.interaction import Interaction, Need, Pairs
from broker.interactions.search import NOWHERE, Reach
from broker.interactions.syntax import encode_pairs, is_id


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked, not yet understood."""

    method: str
    segments: tuple[str, ...]
    query: Pairs = field(repr=False)
    headers: RequestHeaders
    form: Pairs | None = field(default=None, repr=False)
    body: bytes | None = field(default=None, repr=False)
    """Of an operation by POST, where it decides."""

    @property
    def pairs(self) -> Pairs:
        """Those of the URL and then of the form."""
        return self.query + (self.form or ())


def letters_on(type_: str, letters: str) -> tuple[Need, ...]:
    """Return the needs for some letters on one type; `*` is every type."""
    return tuple(Need(type_, letter) for letter in letters)


def interaction_of(
    request: Request,
    kind: str,
    type_: str = "*",
    id_: str | None = None,
    *,
    needs: tuple[Need, ...] = (),
    reach: Reach = NOWHERE,
) -> Interaction:
    """Return the interaction that a request is, rebuilt from its parts, with every patient that it names."""
    in_path = request.segments[1:2] if request.segments[:1] == ("Patient",) else ()
    return Interaction(
        kind=kind,
        method=request.method,
        path="/".join(request.segments),
        query=encode_pairs(request.query),
        type=None if type_ == "*" else type_,
        id=id_,
        needs=tuple(dict.fromkeys(needs + reach.needs)),
        parameters=request.pairs,
        patients=tuple(dict.fromkeys((*filter(is_id, in_path), *reach.patients))),
        safe=request.method in ("GET", "HEAD") or request.form is not None,
        body=None if request.form is None else encode_pairs(request.form).encode(),
        unlisted=reach.unlisted,
        returns=request.headers.returns,
    )
