"""Who outside is told when the health of a grant changes: what is said, kept until it was heard, signed, sent."""

from broker.webhooks.delivering import Delivering, told_of
from broker.webhooks.gathering import Gathering
from broker.webhooks.outbox import Event, Outbox
from broker.webhooks.telling import Telling

__all__ = ["Delivering", "Event", "Gathering", "Outbox", "Telling", "told_of"]
