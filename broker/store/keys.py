"""Names of keys in Redis. Everything of one grant shares its routing tag in braces, so it lies in one cluster slot."""

import zlib
from typing import Final, Literal

ANY_GRANT: Final = "sb:{*}:grant"
ANY_DOMAIN: Final = "sb:domain:{*}"
PARTS: Final = 16
"""Of each EHR's schedule. Another number would leave behind what is planned."""

WITNESS: Final = "sb:witness"
"""A hash: the store's name, the latest time (seconds) that a replica left there, and when it last went back."""

UNTOLD: Final = "sb:untold"
"""A sorted set: the tags of grants whose health may be news, by the time in seconds to look at it."""

SWEPT: Final = "sb:swept"
"""A string: the marks of grants were swept a moment ago."""

ANY_UNTOLD: Final = "sb:{*}:untold"

BULK_DUE: Final = "sb:bulk"
"""A sorted set: the bulk exports there are, by the time in seconds when their apps will have abandoned them."""

RESTORING: Final = "sb:restoring"
"""A string: the id of the backup that is being put into this store."""


def grant(tag: str) -> str:
    """A hash: the grant's state and generation, and its sealed terms and tokens."""
    return f"sb:{{{tag}}}:grant"


def part(tag: str) -> int:
    """Return the part of the schedule that a grant is in."""
    return zlib.crc32(tag.encode()) % PARTS


def due(part: int, ehr: str) -> str:
    """A sorted set: the tags of an EHR's grants, by the time in seconds to look at them. One part shares a slot."""
    return f"sb:due:{{{part}}}:{ehr}"


def lease(tag: str) -> str:
    """A string: who refreshes the grant at the moment."""
    return f"sb:{{{tag}}}:lease"


def gate(ehr: str) -> str:
    """A hash: what holds requests to an EHR's token endpoint back, and until when."""
    return f"sb:gate:{{{ehr}}}"


def gate_slots(ehr: str) -> str:
    """A sorted set: the requests under way to that endpoint, by when their slots are free in any case, in seconds."""
    return f"sb:gate:{{{ehr}}}:slots"


def pace(of: Literal["app", "ehr"], name: str) -> str:
    """A hash: up to when the requests of an app, or to an EHR's FHIR server, are paid for, and until when to wait."""
    return f"sb:pace:{of}:{{{name}}}"


def untold(tag: str) -> str:
    """A string: a mark that the grant's health has changed since webhooks were told."""
    return f"sb:{{{tag}}}:untold"


def webhook_due(webhook: str) -> str:
    """A sorted set: the events that a webhook is still to be told of, by the time in seconds of the next try."""
    return f"sb:webhook:{{{webhook}}}:due"


def webhook_dead(webhook: str) -> str:
    """A sorted set: the events that a webhook could not be told of, by the time in seconds when that was given up."""
    return f"sb:webhook:{{{webhook}}}:dead"


def webhook_event(webhook: str, event: str) -> str:
    """A string: one event, as it is sent, and what became of it so far."""
    return f"sb:webhook:{{{webhook}}}:event:{event}"


def ends(ehr: str) -> str:
    """A sorted set: how old refresh tokens were that an EHR no longer took, by when that was, in seconds."""
    return f"sb:ends:{{{ehr}}}"


def bulk_job(ehr: str, job: str) -> str:
    """A hash: a bulk export at an EHR, sealed, its version, and when the EHR may be asked about it again."""
    return f"sb:bulk:{{{ehr}}}:job:{job}"


def bulk_files(ehr: str, page: str) -> str:
    """A string: some of the files that a bulk export's manifest lists, sealed."""
    return f"sb:bulk:{{{ehr}}}:files:{page}"


def bulk_list(ehr: str, kind: str, registration: str) -> str:
    """A sorted set of a registration's bulk exports (`app:id`).

    `jobs`, all of them by until when their apps are waited for; `waiting`, those in line by when they came; `running`.
    And `turns`: apps, by when their last one began. `held`, a string: until when the EHR takes no more.
    """
    return f"sb:bulk:{{{ehr}}}:{kind}:{registration}"


def introspected(tag: str) -> str:
    """A string: the grant's token was introspected a moment ago."""
    return f"sb:{{{tag}}}:introspected"


def handles(tag: str) -> str:
    """A sorted set: what was handed out for the grant (`family:kind:hash`), by its end in milliseconds."""
    return f"sb:{{{tag}}}:handles"


def issued(tag: str, kind: str, digest: str) -> str:
    """A handle, refresh handle, code or launch under its keyed hash; or the mark of an ended family.

    Beside a handle: `uses`, how many times it still works, and `exchanged`, the handles that were exchanged for it.
    `reauthorize` is a link by which the grant is authorized again, and `begun` the launches that it began.
    """
    return f"sb:{{{tag}}}:{kind}:{digest}"


def launch(digest: str) -> str:
    """A string: a launch in progress at an EHR, sealed, under the keyed hash of its `state`."""
    return f"sb:launch:{{{digest}}}"


def backend(digest: str) -> str:
    """A string: the routing tag of the backend grant for one registration and scope set."""
    return f"sb:backend:{{{digest}}}"


def backend_lease(digest: str) -> str:
    """A string: who asks for that grant now."""
    return f"sb:backend:{{{digest}}}:lease"


def asked(app: str) -> str:
    """A sorted set: the new backend grants an app had asked for of late, by time in milliseconds."""
    return f"sb:asked:{{{app}}}"


def pin(digest: str) -> str:
    """A string: where an EHR's credentials may go, sealed, under the keyed hash of its FHIR base."""
    return f"sb:pin:{{{digest}}}"


def domain(slot: str) -> str:
    """A hash: the keys that a tenant's and EHR's records are sealed under, wrapped."""
    return f"sb:domain:{{{slot}}}"


def sealed_key(name: str) -> str:
    """A string: one of the broker's own keys, sealed."""
    return f"sb:key:{{{name}}}"


def replay(digest: str) -> str:
    """A string: a `jti` that was seen."""
    return f"sb:jti:{{{digest}}}"


def secret_used(app: str, secret: str) -> str:
    """A string: when an app's secret was last used, in seconds."""
    return f"sb:used:{{{app}}}:{secret}"
