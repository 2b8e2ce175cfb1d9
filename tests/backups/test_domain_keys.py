"""Domain keys of a backup beside those of the store: what is gone for good stays gone, what is needed comes back."""

from dataclasses import replace

import pytest

from broker.backups import merged
from broker.vault import Domain, WrappedKey
from broker.vault.domain_key import DomainKey

EPIC = Domain("t", "epic")
NOW = 9.0
OLD = DomainKey(bytes(8), EPIC, "active", WrappedKey("local:a", b"wrapped"), 1.0, 1.0, ("local:a",))
NEW = replace(OLD, id=bytes(7) + b"\1", created_at=2.0, since=2.0)


def record(*keys: DomainKey, seals: DomainKey | None) -> dict[bytes, bytes]:
    fields = {b"key:" + key.id.hex().encode(): key.encode() for key in keys}
    return fields | ({b"active:t/epic": seals.id.hex().encode()} if seals else {})


@pytest.mark.parametrize(
    ("store", "backup", "after"),
    [
        pytest.param({}, record(OLD, seals=OLD), record(OLD, seals=OLD), id="an empty store"),
        pytest.param(record(OLD, seals=OLD), record(OLD, seals=OLD), record(OLD, seals=OLD), id="the same"),
        pytest.param(
            record(OLD.ended(3.0, "shred"), seals=None),
            record(OLD, seals=OLD),
            record(OLD.ended(3.0, "shred"), seals=None),
            id="shredded since",
        ),
        pytest.param(
            record(OLD.ended(3.0, "shred"), NEW, seals=NEW),
            record(OLD, seals=OLD),
            record(OLD.ended(3.0, "shred"), NEW, seals=NEW),
            id="shredded since, and in use anew",
        ),
        pytest.param(
            record(OLD.ended(3.0, "rotation"), NEW, seals=NEW),
            record(OLD, seals=OLD),
            record(OLD.retired(NOW), NEW, seals=NEW),
            id="rotated since: the backup's records are under the old one",
        ),
        pytest.param(
            record(OLD.retired(3.0), NEW, seals=NEW),
            record(OLD, seals=OLD),
            record(OLD.retired(3.0), NEW, seals=NEW),
            id="being rotated",
        ),
        pytest.param(
            record(OLD, seals=OLD),
            record(OLD.ended(3.0, "rotation"), NEW, seals=NEW),
            record(OLD, NEW.retired(NOW), seals=OLD),
            id="an older store",
        ),
        pytest.param(
            record(NEW, seals=NEW), record(OLD, seals=OLD), record(OLD.retired(NOW), NEW, seals=NEW), id="another store"
        ),
        pytest.param(
            {},
            record(OLD.ended(3.0, "rotation"), NEW, seals=NEW),
            record(OLD.ended(3.0, "rotation"), NEW, seals=NEW),
            id="a rotated one into an empty store",
        ),
        pytest.param(
            {b"seals:0": b"7"}, {b"seals:0": b"5", b"seals:1": b"2"}, {b"seals:0": b"7", b"seals:1": b"2"}, id="counts"
        ),
    ],
)
def test_keys_come_back_as_they_are_needed(
    store: dict[bytes, bytes], backup: dict[bytes, bytes], after: dict[bytes, bytes]
) -> None:
    assert store | merged(store, backup, NOW) == after


def test_a_backup_that_was_taken_during_a_rotation_names_both_keys_and_one_seals() -> None:
    """Its first record of the domain is from before, its last one from after."""
    store = merged({}, record(OLD, seals=OLD), NOW)

    store |= merged(store, record(OLD.ended(3.0, "rotation"), NEW, seals=NEW), NOW)

    assert store == record(OLD, NEW.retired(NOW), seals=OLD)
