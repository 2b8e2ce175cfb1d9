"""From where and from when on an app may trade in a handle, or ask about it: what is told of one that was found.

A public app proves nothing by its name, so outside the network that its handle is limited to it is told nothing: or a
handle that was found would say whose record it is for.
"""

from dataclasses import replace

from broker.apps import App
from broker.limits import Arrival, Limits, require_met


def require_arrived(app: App, limits: Limits | None, arrival: Arrival) -> None:
    """Raises `InvalidHandle` before the time of what has these limits; for a public app, also outside their network.

    An app that authenticates may ask from elsewhere than it reads from.
    """
    if limits is not None:
        is_public = app.settings.authentication == "none"
        require_met(limits if is_public else replace(limits, network=None), arrival)
