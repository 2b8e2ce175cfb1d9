"""The file of a backup opens whole and unchanged, or not at all."""

import io
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.backups import ArchiveWriter, Entry, read_entries, read_head
from broker.backups.archive import FRAME_BYTES, MAGIC
from broker.errors import BackupUnreadable

KEY = bytes(range(32))
HEAD = {"tenant": "default", "taken_at": "2026-11-29T06:00:00Z"}
FIELDS = st.dictionaries(st.binary(max_size=20), st.binary(max_size=200), max_size=5)
SCORES = st.dictionaries(st.binary(max_size=20), st.floats(allow_nan=False, allow_infinity=False), max_size=5)
ENTRIES = st.one_of(
    st.builds(Entry, st.text(max_size=30), st.just("string"), st.binary(max_size=300), st.integers(0, 2**50)),
    st.builds(Entry, st.text(max_size=30), st.just("hash"), FIELDS, st.integers(0, 2**50)),
    st.builds(Entry, st.text(max_size=30), st.just("zset"), SCORES, st.integers(0, 2**50)),
)


def written(entries: list[Entry], key: bytes = KEY) -> bytes:
    file = io.BytesIO()
    writer = ArchiveWriter(file, HEAD, key)
    for entry in entries:
        writer.add(entry)
    writer.finish()
    assert writer.count == len(entries)
    return file.getvalue()


def entry(number: int, size: int = 100) -> Entry:
    return Entry(f"sb:{{{number}}}:grant", "hash", {b"tokens": bytes(size)}, 1000)


@given(st.lists(ENTRIES, max_size=20))
def test_what_is_written_is_read(entries: list[Entry]) -> None:
    file = io.BytesIO(written(entries))

    assert list(read_entries(file, KEY)) == entries
    file.seek(0)
    assert read_head(file) == HEAD


def test_many_records_take_many_frames_of_bounded_size() -> None:
    entries = [entry(number, 2000) for number in range(100)]
    text = written(entries)
    longest, at = 0, len(MAGIC) + 4 + len(json.dumps(HEAD))
    while at < len(text):
        length = int.from_bytes(text[at : at + 4], "big")
        longest, at = max(longest, length), at + 4 + length

    assert longest <= FRAME_BYTES + 16
    assert list(read_entries(io.BytesIO(text), KEY)) == entries


MANY = written([entry(number, 20_000) for number in range(12)])
HEAD_END = len(MAGIC) + 4 + len(json.dumps(HEAD))
FIRST_END = HEAD_END + 4 + int.from_bytes(MANY[HEAD_END : HEAD_END + 4], "big")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda _: b"", "does not begin"),
        (lambda text: b"PK" + text, "does not begin"),
        (lambda text: text[: len(MAGIC) + 10], "head is damaged"),
        (lambda text: MAGIC + b"\xff\xff\xff\xff" + text, "head is damaged"),
        (lambda _: MAGIC + b"\x00\x00\x00\x02[]", "head is damaged"),
        (lambda text: text[:HEAD_END], "ends before its last frame"),
        (lambda text: text[:FIRST_END], "ends before its last frame"),
        (lambda text: text[:-1], "ends before its last frame"),
        (lambda text: text + b"x", "follows its last frame"),
        (lambda text: text.replace(b"default", b"another", 1), "does not open"),
        (lambda text: text[:HEAD_END] + text[FIRST_END:], "does not open"),
        (lambda text: text[:FIRST_END] + text[HEAD_END:], "does not open"),
        (lambda text: text[:-1] + bytes([text[-1] ^ 1]), "does not open"),
        (lambda text: text[:HEAD_END] + written([], b"\x01" * 32)[HEAD_END:], "does not open"),
    ],
)
def test_a_file_that_was_cut_or_changed_is_refused(change: Callable[[bytes], bytes], cause: str) -> None:
    with pytest.raises(BackupUnreadable, match=cause):
        list(read_entries(io.BytesIO(change(MANY)), KEY))


def test_another_key_opens_nothing() -> None:
    with pytest.raises(BackupUnreadable, match="frame 0 does not open"):
        list(read_entries(io.BytesIO(MANY), KEY[::-1]))
