"""What limits refuse, each refusal naming the limit, and the search as the cap of its pages lets it go on."""

from broker.errors import InsufficientScope, InvalidHandle
from broker.interactions import Interaction
from broker.limits.arrival import Arrival
from broker.limits.counting import capped, require_capped
from broker.limits.limits import Limits
from broker.limits.networks import is_within

_READING = frozenset("rs")


def require_met(limits: Limits, arrival: Arrival | None) -> None:
    """Raises `InvalidHandle` where a request comes too early, or not from the network; also where that is not known."""
    if limits.not_before is not None and (arrival is None or arrival.at < limits.not_before):
        raise InvalidHandle("limit not_before: it is too early", public="The access token is not valid yet.")
    if limits.network is None:
        return
    address = arrival.address if arrival else None
    if address is None or not is_within(address, limits.network):
        where = "the caller's address is not known" if address is None else "the caller is elsewhere"
        raise InvalidHandle(
            f"limit network: {where}", public="The access token is not valid for requests from this address."
        )


def applied(limits: Limits, interaction: Interaction) -> Interaction:
    """Return what may go on: the interaction itself, or with a smaller `_count`. Raises `InsufficientScope`.

    Of a Bundle each entry is held to all limits (SC-09), and none is changed.
    """
    for part in interaction.entries or (interaction,):
        _require_within(limits, part)
    if limits.max_count is None:
        return interaction
    for entry in interaction.entries:
        require_capped(entry, limits.max_count)
    return interaction if interaction.entries else capped(interaction, limits.max_count)


def _require_within(limits: Limits, part: Interaction) -> None:
    if limits.interactions is not None and part.code not in limits.interactions:
        raise beyond("interactions", f"{part.code} is not among them")
    for need in part.needs:
        if limits.types is not None and need.type not in limits.types:
            raise beyond("types", f"{need.type}.{need.letter} is of none of them")
        if limits.read_only and need.letter not in _READING:
            raise beyond("read_only", f"{need.type}.{need.letter} is no reading")


def beyond(limit: str, why: str) -> InsufficientScope:
    """Return the refusal of what goes beyond a limit, which is named to the app, too."""
    return InsufficientScope(
        f"limit {limit}: {why}", public=f"The access token does not allow this interaction: its limit is {limit}."
    )
