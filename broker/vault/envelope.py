"""The format of a sealed record. No I/O.

    byte 0        format version (2)
    bytes 1–8     id of the domain key
    bytes 9–68    data key, wrapped: nonce (12) + ciphertext (32) + tag (16)
    bytes 69–80   nonce of the record
    bytes 81–     ciphertext + tag (16)

A data key seals one record once, so the record's nonce is never used twice. The data key is bound to the domain key's
id alone, and the record to its place alone: so the first 69 bytes can be replaced, under another domain key, without
opening the record and without knowing its place. They fit no other record, because no other one has this data key.
"""

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.clock import Entropy
from broker.errors import SealBroken
from broker.vault.context import FORMAT_VERSION, RecordContext
from broker.vault.domain_key import ID_BYTES
from broker.vault.kek import KEY_BYTES

NONCE_BYTES: Final = 12
_VERSION: Final = bytes([FORMAT_VERSION])
_TAG_BYTES: Final = 16
_ID_END: Final = 1 + ID_BYTES
HEADER_BYTES: Final = _ID_END + NONCE_BYTES + KEY_BYTES + _TAG_BYTES
_NONCE_END: Final = HEADER_BYTES + NONCE_BYTES
LEAST_BYTES: Final = _NONCE_END + _TAG_BYTES


def seal(cipher: AESGCM, key_id: bytes, context: RecordContext, plaintext: bytes, entropy: Entropy) -> bytes:
    """Return the envelope of `plaintext`, 97 bytes longer than it, under the domain key of that id."""
    data_key, nonce = entropy(KEY_BYTES), entropy(NONCE_BYTES)
    body = AESGCM(data_key).encrypt(nonce, plaintext, context.associated_data())
    return _wrap(cipher, key_id, data_key, entropy) + nonce + body


def key_id_of(sealed: bytes) -> bytes | None:
    """Return the id of the domain key of an envelope, or of its first bytes; None for what is no envelope."""
    return sealed[1:_ID_END] if len(sealed) >= HEADER_BYTES and sealed[:1] == _VERSION else None


def open_with(cipher: AESGCM, context: RecordContext, sealed: bytes) -> bytes:
    """Return the plaintext of an envelope. Raises `SealBroken`."""
    data_key = _unwrap(cipher, sealed)
    nonce, body = sealed[HEADER_BYTES:_NONCE_END], sealed[_NONCE_END:]
    try:
        return AESGCM(data_key).decrypt(nonce, body, context.associated_data())
    except (InvalidTag, ValueError):  # ValueError: too short for a nonce
        raise SealBroken(f"a {context.kind} record does not open in its place") from None


def rewrap(header: bytes, old: AESGCM, new: AESGCM, new_id: bytes, entropy: Entropy) -> bytes:
    """Return what to put in place of an envelope's first 69 bytes. Raises `SealBroken`."""
    return _wrap(new, new_id, _unwrap(old, header), entropy)


def is_readable(header: bytes, cipher: AESGCM) -> bool:
    """Tell whether the data key in an envelope's first 69 bytes unwraps: without it the record cannot be opened."""
    try:
        _unwrap(cipher, header)
    except SealBroken:
        return False
    return True


def _wrap(cipher: AESGCM, key_id: bytes, data_key: bytes, entropy: Entropy) -> bytes:
    head, nonce = _VERSION + key_id, entropy(NONCE_BYTES)
    return head + nonce + cipher.encrypt(nonce, data_key, head)


def _unwrap(cipher: AESGCM, sealed: bytes) -> bytes:
    nonce, wrapped = sealed[_ID_END : _ID_END + NONCE_BYTES], sealed[_ID_END + NONCE_BYTES : HEADER_BYTES]
    try:
        return cipher.decrypt(nonce, wrapped, sealed[:_ID_END])
    except (InvalidTag, ValueError):
        raise SealBroken("the data key of a record does not unwrap") from None
