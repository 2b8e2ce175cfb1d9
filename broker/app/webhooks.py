"""What webhooks take."""

from broker.app.rooms import Rooms
from broker.webhooks import Delivering, Gathering, Outbox, Telling


def telling_of(rooms: Rooms) -> Telling:
    """Build the work that tells webhooks."""
    webhooks, outbox = rooms.settings.webhook, Outbox(rooms.redis)
    gathering = Gathering(rooms.redis, rooms.grants, outbox, webhooks, rooms.keyed_hash, rooms.clock)
    deliveries = (
        Delivering(webhook, outbox, rooms.egress, rooms.audit, rooms.clock, rooms.entropy) for webhook in webhooks
    )
    return Telling(outbox, gathering, tuple(deliveries))
