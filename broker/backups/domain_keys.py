"""How the domain keys of a backup come into a store that has some. Pure."""

from collections.abc import Mapping

from broker.vault.domain_key import DomainKey

_KEY, _ACTIVE = b"key:", b"active:"


def merged(store: Mapping[bytes, bytes], backup: Mapping[bytes, bytes], now: float) -> dict[bytes, bytes]:
    """Return the fields to write, of one record, so that the backup's grants open and nothing else changes.

    A key that was shredded stays so. One that was destroyed at the end of a rotation comes back to open, and does not
    seal where another one does: rotate again, and its records move. `now` is in seconds.
    """
    active = {name: value for name, value in store.items() if name.startswith(_ACTIVE)}
    written: dict[bytes, bytes] = {}
    for name, value in backup.items():
        if name.startswith(_KEY):
            written |= _key(name, store.get(name), value, active, now)
        elif not name.startswith(_ACTIVE) and name not in store:
            written[name] = value
    keys = {name: DomainKey.decode(value) for name, value in {**store, **written}.items() if name.startswith(_KEY)}
    for name, value in backup.items():
        key = keys.get(_KEY + value) if name.startswith(_ACTIVE) and name not in store else None
        if key is not None and key.state == "active":
            written[name] = value
    return written


def _key(
    name: bytes, found: bytes | None, value: bytes, active: Mapping[bytes, bytes], now: float
) -> dict[bytes, bytes]:
    mine, theirs = (DomainKey.decode(found) if found is not None else None), DomainKey.decode(value)
    if mine is not None and (mine.wrapped is not None or mine.ended_by == "shred" or theirs.wrapped is None):
        return {}
    seals_already = f"{_ACTIVE.decode()}{theirs.domain}".encode() in active
    opens_only = theirs.retired(now) if seals_already and theirs.state == "active" else theirs
    return {name: opens_only.encode()}
