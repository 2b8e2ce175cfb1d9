"""What a backup keeps, and how it comes back. Pure.

Kept is what cannot be made again: grants of launches, apps' refresh handles on them, the broker's own keys, domain
keys, pins. What lives for minutes, counts, or is asked for again by itself is left out: a handle that somebody revoked
since must not come back, and a backend grant is one token request away.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from broker.backups.archive import Entry, Kind
from broker.grants.records import restored_fields

_GRANT: Final = re.compile(r"sb:\{[^}]+\}:grant")
_HANDLES: Final = re.compile(r"sb:\{[^}]+\}:handles")
_DOMAIN: Final = re.compile(r"sb:domain:\{.+\}")
KEPT: Final[Mapping[re.Pattern[str], Kind]] = {
    _GRANT: "hash",
    _HANDLES: "zset",
    re.compile(r"sb:\{[^}]+\}:refresh:.+"): "hash",
    re.compile(r"sb:pin:\{.+\}"): "string",
    re.compile(r"sb:key:\{.+\}"): "string",
    _DOMAIN: "hash",
    re.compile(r"sb:ends:\{.+\}"): "zset",
}
"""By the name of the key, with Redis's word for what it holds. A test compares this with every name that there is."""
LEFT_OUT: Final = (
    re.compile(r"sb:\{[^}]+\}:(lease|introspected|untold)"),
    re.compile(r"sb:\{[^}]+\}:(handle|exchanged|uses|proof|code|ended|launch|reauthorize|begun):.+"),
    re.compile(r"sb:(launch|backend|asked|jti):\{[^}]+\}(:lease)?"),
    re.compile(r"sb:used:\{.+\}:.+"),
    re.compile(r"sb:(audit|witness|restoring|untold|swept)"),
    re.compile(r"sb:gate:\{[^}]+\}(:slots)?"),
    re.compile(r"sb:pace:(app|ehr):\{[^}]+\}"),
    re.compile(r"sb:due:.+"),
    re.compile(r"sb:webhook:.+"),
    re.compile(r"sb:bulk.*"),
)


def kind_of(key: str) -> Kind | None:
    """Return what a record that goes into a backup holds; None for one that does not."""
    return next((kind for pattern, kind in KEPT.items() if pattern.fullmatch(key)), None)


def merges(key: str) -> bool:
    """Whether a record comes back into the one that is there, as `merged` says: it holds domain keys."""
    return _DOMAIN.fullmatch(key) is not None


def restored(entry: Entry, *, taken_at: str) -> Entry | None:
    """Return what is written back for a record; None where nothing is.

    A grant comes back uncertain and with its access token at its end: its refresh token may have been replaced since,
    and may have been revoked, so nothing uses it until the EHR or an operator has said that it is good. What was
    granted without a refresh token has ended by now.
    """
    if _GRANT.fullmatch(entry.key):
        return _restored_grant(entry, taken_at)
    if _HANDLES.fullmatch(entry.key):
        lasting = {member: score for member, score in _members(entry).items() if b":refresh:" in member}
        return replace(entry, value=lasting) if lasting else None
    return entry


def _restored_grant(entry: Entry, taken_at: str) -> Entry | None:
    cause = f"restored from a backup of {taken_at}: the refresh token may have been replaced since"
    fields = restored_fields(
        {name: value for name, value in _members(entry).items() if isinstance(value, bytes)}, cause
    )
    return replace(entry, value=fields) if fields is not None else None


def _members(entry: Entry) -> Mapping[bytes, bytes | float]:
    return entry.value if isinstance(entry.value, Mapping) else {}
