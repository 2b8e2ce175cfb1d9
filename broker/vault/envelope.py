"""Seal and open one record.

    byte 0        format version (1)
    bytes 1–8     id of the key-encryption key
    bytes 9–68    data key, wrapped: nonce (12) + ciphertext (32) + tag (16)
    bytes 69–80   nonce of the record
    bytes 81–     ciphertext + tag (16)

A data key seals one record once, so its nonce is never used twice.
"""

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.clock import Entropy, system_entropy
from broker.errors import SealBroken
from broker.vault.context import FORMAT_VERSION, RecordContext
from broker.vault.kek import Domain, KeyEncryptionKeys, WrappedKey
from broker.vault.keyring import KEY_BYTES, NONCE_BYTES

_KEY_ID_END = 9
_WRAPPED_END = _KEY_ID_END + NONCE_BYTES + KEY_BYTES + 16
_NONCE_END = _WRAPPED_END + NONCE_BYTES


class Vault:
    """Seals bytes under a context and opens them only under the same one."""

    def __init__(
        self,
        keys: KeyEncryptionKeys,
        *,
        report_broken: Callable[[RecordContext, str], None],
        entropy: Entropy = system_entropy,
    ) -> None:
        self._keys = keys
        self._report_broken = report_broken
        self._entropy = entropy

    async def seal(self, context: RecordContext, plaintext: bytes, *, ehr: str = "") -> bytes:  # noqa: ARG002  # one key for all EHRs
        """Return the envelope of `plaintext`, 97 bytes longer than it."""
        bound_to = context.associated_data()
        data_key = self._entropy(KEY_BYTES)
        wrapped = await self._keys.wrap(Domain(context.tenant), data_key, bound_to)
        key_id = bytes.fromhex(wrapped.kek.removeprefix("local:"))
        nonce = self._entropy(NONCE_BYTES)
        header = bytes([FORMAT_VERSION]) + key_id + wrapped.blob + nonce
        return header + AESGCM(data_key).encrypt(nonce, plaintext, header + bound_to)

    async def open(self, context: RecordContext, sealed: bytes) -> bytes:
        """Return the plaintext. Raises `SealBroken`, after reporting it, or `KeyUnavailable`."""
        try:
            return await self._open(context, sealed)
        except SealBroken as broken:
            self._report_broken(context, broken.detail)
            raise

    async def _open(self, context: RecordContext, sealed: bytes) -> bytes:
        if len(sealed) < _NONCE_END or sealed[0] != FORMAT_VERSION:
            raise SealBroken(f"a {context.kind} record is not an envelope of format {FORMAT_VERSION}")
        bound_to = context.associated_data()
        wrapped = WrappedKey(f"local:{sealed[1:_KEY_ID_END].hex()}", sealed[_KEY_ID_END:_WRAPPED_END])
        data_key = await self._keys.unwrap(Domain(context.tenant), wrapped, bound_to)
        header, nonce, body = sealed[:_NONCE_END], sealed[_WRAPPED_END:_NONCE_END], sealed[_NONCE_END:]
        try:
            return AESGCM(data_key).decrypt(nonce, body, header + bound_to)
        except InvalidTag:
            raise SealBroken(f"a {context.kind} record does not open in its context") from None
