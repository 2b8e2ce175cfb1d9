r"""The file of a backup: a head in clear, then sealed frames, the last of which says that it is the last.

    "SMART broker backup 1\n"
    4 bytes    length of the head, big-endian
    head       JSON: tenant, when it was taken, the sealed key of this file, and the domain keys that open it, wrapped
    frames     4 bytes length, then AES-256-GCM: nonce = number of the frame (11 bytes), 1 if it is the last (1 byte);
               associated data = SHA-256 of everything before the first frame

The key is used for this file alone, so no nonce repeats. A file that was cut, put together from two, or changed
anywhere does not open.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Literal, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.errors import BackupUnreadable

MAGIC: Final = b"SMART broker backup 1\n"
MOST_HEAD_BYTES: Final = 64 * 1024 * 1024
FRAME_BYTES: Final = 64 * 1024
"""About how much of the records' text goes into one frame."""
MOST_FRAME_BYTES: Final = 16 * 1024 * 1024
_TAG_BYTES: Final = 16

Value: TypeAlias = bytes | Mapping[bytes, bytes | float]
"""What a key holds: a string, a hash, or a sorted set (its members with their scores)."""

Kind: TypeAlias = Literal["string", "hash", "zset"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the store, as it is there: sealed where it is sealed."""

    key: str
    kind: Kind
    value: Value
    lives: int
    """Milliseconds that it had to live when it was read; 0: for ever."""


class ArchiveWriter:
    """Writes a file, record by record: it holds one frame at a time in memory."""

    def __init__(self, file: BinaryIO, head: Mapping[str, Any], key: bytes) -> None:
        text = json.dumps(dict(head)).encode()
        before = MAGIC + len(text).to_bytes(4, "big") + text
        file.write(before)
        self._file = file
        self._cipher = AESGCM(key)
        self._bound_to = hashlib.sha256(before).digest()
        self._lines: list[bytes] = []
        self._size = self._number = 0
        self.count = 0

    def add(self, entry: Entry) -> None:
        """Write one more record."""
        line = _line(entry)
        if self._size + len(line) > FRAME_BYTES and self._lines:
            self._write_frame(last=False)
        self._lines.append(line)
        self._size += len(line)
        self.count += 1

    def finish(self) -> None:
        """Write the last frame: without it nothing of the file is read."""
        self._write_frame(last=True)

    def _write_frame(self, *, last: bool) -> None:
        sealed = self._cipher.encrypt(_nonce(self._number, last=last), b"\n".join(self._lines), self._bound_to)
        self._file.write(len(sealed).to_bytes(4, "big") + sealed)
        self._lines, self._size, self._number = [], 0, self._number + 1


def read_head(file: BinaryIO) -> dict[str, Any]:
    """Return the head, and leave the file at the first frame. Raises `BackupUnreadable`."""
    if file.read(len(MAGIC)) != MAGIC:
        raise BackupUnreadable("it does not begin as a backup of this broker does")
    length = int.from_bytes(file.read(4), "big")
    text = file.read(length) if length <= MOST_HEAD_BYTES else b""
    try:
        head = json.loads(text)
    except ValueError:
        head = None
    if len(text) != length or not isinstance(head, dict):
        raise BackupUnreadable("its head is damaged")
    return head


def read_entries(file: BinaryIO, key: bytes) -> Iterator[Entry]:
    """Yield the records of a file from its beginning. Raises `BackupUnreadable` where it is damaged or was cut.

    What was yielded before that is sound, and not all: read to the end once before doing anything with it.
    """
    file.seek(0)
    read_head(file)
    length = file.tell()
    file.seek(0)
    cipher, bound_to = AESGCM(key), hashlib.sha256(file.read(length)).digest()
    number, last = 0, False
    while not last:
        last, text = _read_frame(file, cipher, bound_to, number)
        yield from map(_entry, filter(None, text.split(b"\n")))
        number += 1
    if file.read(1):
        raise BackupUnreadable("something follows its last frame")


def _read_frame(file: BinaryIO, cipher: AESGCM, bound_to: bytes, number: int) -> tuple[bool, bytes]:
    length = int.from_bytes(file.read(4), "big")
    sealed = file.read(length) if _TAG_BYTES <= length <= MOST_FRAME_BYTES else b""
    if not sealed or len(sealed) != length:
        raise BackupUnreadable(f"it ends before its last frame (frame {number})")
    for last in (False, True):
        try:
            return last, cipher.decrypt(_nonce(number, last=last), sealed, bound_to)
        except InvalidTag:
            continue
    raise BackupUnreadable(f"frame {number} does not open: it is damaged, or of another file")


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _line(entry: Entry) -> bytes:
    return json.dumps([entry.key, entry.kind, _dump(entry.value), entry.lives]).encode()


def _dump(value: Value) -> Any:
    if isinstance(value, bytes):
        return _text(value)
    return [[_text(name), _text(field) if isinstance(field, bytes) else field] for name, field in value.items()]


def _entry(line: bytes) -> Entry:
    key, kind, value, lives = json.loads(line)
    if kind == "string":
        return Entry(key, kind, base64.b64decode(value), lives)
    if kind == "zset":
        return Entry(key, kind, {base64.b64decode(name): float(score) for name, score in value}, lives)
    return Entry(key, kind, {base64.b64decode(name): base64.b64decode(field) for name, field in value}, lives)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
