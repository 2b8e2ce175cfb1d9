"""What a backup keeps is decided for every kind of record, and what comes back is not trusted."""

import re
from pathlib import Path

import pytest

from broker.backups import Entry, kind_of, restored
from broker.backups.selection import KEPT, LEFT_OUT

ROOT = Path(__file__).parents[2]
GRANT = {
    b"state": b"active",
    b"generation": b"7",
    b"life": b"100.0 200.0 300.0 1",
    b"hold_until": b"150.0",
    b"terms": b"sealed",
    b"tokens": b"sealed, too",
}


def documented_keys() -> list[str]:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(sb:[^`]+)` \|", text, re.MULTILINE)


def test_every_kind_of_record_is_either_kept_or_left_out() -> None:
    names = documented_keys()
    assert len(names) > 15

    for name in names:
        decided = [pattern for pattern in (*KEPT, *LEFT_OUT) if pattern.fullmatch(name)]
        assert len(decided) == 1, name


@pytest.mark.parametrize("key", ["", "sb:", "other", "sb:{a}:grant:more", "xsb:{a}:grant", "sb:{a}:handle:h"])
def test_nothing_else_is_kept(key: str) -> None:
    assert kind_of(key) is None


def test_a_grant_comes_back_uncertain_with_its_generation_and_nothing_to_use_unasked() -> None:
    """RF-15."""
    entry = restored(Entry("sb:{t}:grant", "hash", GRANT, 5), taken_at="2026-11-29T06:00:00Z")

    assert entry is not None
    assert entry.value == {
        **GRANT,
        b"state": b"uncertain",
        b"cause": b"restored from a backup of 2026-11-29T06:00:00Z: the refresh token may have been replaced since",
        b"life": b"0.0 0.0 300.0 1",
        b"hold_until": b"0.0",
    }


@pytest.mark.parametrize("state", [b"needs_reauth", b"suspended", b"revoked", b"uncertain"])
def test_a_grant_that_had_ended_comes_back_as_it_was(state: bytes) -> None:
    fields = {**GRANT, b"state": state, b"cause": b"because"}

    entry = restored(Entry("sb:{t}:grant", "hash", fields, 5), taken_at="then")

    assert entry is not None
    assert entry.value == fields


def test_a_grant_without_a_refresh_token_does_not_come_back() -> None:
    assert restored(Entry("sb:{t}:grant", "hash", {**GRANT, b"life": b"100.0 200.0 0.0 0"}, 5), taken_at="then") is None


def test_of_what_was_handed_out_the_refresh_handles_come_back() -> None:
    index: dict[bytes, bytes | float] = {b"f:handle:h1": 1.0, b"f:refresh:r1": 2.0, b"f:uses:h1": 1.0}

    entry = restored(Entry("sb:{t}:handles", "zset", index, 5), taken_at="then")

    assert entry is not None
    assert entry.value == {b"f:refresh:r1": 2.0}
    assert restored(Entry("sb:{t}:handles", "zset", {b"f:handle:h1": 1.0}, 5), taken_at="then") is None


@pytest.mark.parametrize("key", ["sb:{t}:refresh:r", "sb:pin:{h}", "sb:key:{hash}"])
def test_what_else_is_kept_comes_back_as_it_was(key: str) -> None:
    entry = Entry(key, kind_of(key) or "string", {b"a": b"b"}, 5)

    assert restored(entry, taken_at="then") == entry
