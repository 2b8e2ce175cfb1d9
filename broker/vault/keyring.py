"""Key-encryption keys held by this process: from a file only its owner can read, or from the environment."""

import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.clock import Entropy, system_entropy
from broker.errors import ConfigurationError, KeyUnavailable, SealBroken

KEY_BYTES = 32
KEY_ID_BYTES = 8
NONCE_BYTES = 12
WRAPPED_KEY_BYTES = NONCE_BYTES + KEY_BYTES + 16


class KeyEncryptionKeys(Protocol):
    """What wraps data keys. Local keys answer at once; a KMS answers over the network, hence `async`."""

    async def wrap(self, data_key: bytes, associated_data: bytes) -> tuple[bytes, bytes]:
        """Return the wrapping key's id (8 bytes) and the wrapped data key (60 bytes)."""
        ...

    async def unwrap(self, key_id: bytes, wrapped: bytes, associated_data: bytes) -> bytes:
        """Return the data key (32 bytes). Raises `KeyUnavailable` or `SealBroken`."""
        ...


class LocalKeyring:
    """One or more 256-bit keys; the first one wraps, every one unwraps, so a new key can be put in front."""

    def __init__(self, keys: Sequence[bytes], entropy: Entropy = system_entropy) -> None:
        if not keys:
            raise ConfigurationError("the keyring is empty: set BROKER_KEK_FILE (a file of mode 0600) or BROKER_KEK")
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}
        self._active = _key_id(keys[0])
        self._entropy = entropy

    def __repr__(self) -> str:
        return f"LocalKeyring({len(self._ciphers)} keys, active {self._active.hex()})"

    async def wrap(self, data_key: bytes, associated_data: bytes) -> tuple[bytes, bytes]:
        """Wrap under the active key; the key's own id is bound in as well."""
        nonce = self._entropy(NONCE_BYTES)
        sealed = self._ciphers[self._active].encrypt(nonce, data_key, self._active + associated_data)
        return self._active, nonce + sealed

    async def unwrap(self, key_id: bytes, wrapped: bytes, associated_data: bytes) -> bytes:
        """Unwrap with the key of that id."""
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise KeyUnavailable(f"key-encryption key {key_id.hex()} is not on the keyring")
        try:
            return cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], key_id + associated_data)
        except InvalidTag:
            raise SealBroken("the data key does not unwrap in this context") from None


def parse_keys(text: str, source: str) -> list[bytes]:
    """Read one base64 key of 32 bytes per line; blank lines and lines that start with `#` are skipped."""
    lines = [line.strip() for line in text.splitlines()]
    return [_parse_key(line, source) for line in lines if line and not line.startswith("#")]


def read_key_file(path: Path) -> list[bytes]:
    """Read a keyring file; refuses one that anybody but its owner can read or write (HB-04)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        with os.fdopen(descriptor, encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise ConfigurationError(f"{path} has mode {mode:04o}: others could read it. Fix: chmod 600 {path}")
            return parse_keys(file.read(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read ({type(error).__name__}); it should hold a key") from None


def generate_key_file(path: Path, entropy: Entropy = system_entropy) -> None:
    """Write a new random key to a new file of mode 0600. Raises `FileExistsError` rather than replace one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(entropy(KEY_BYTES)) + b"\n")


def _parse_key(line: str, source: str) -> bytes:
    try:
        key = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(
            f"{source}: a key-encryption key is 32 random bytes in base64, one a line. Fix: openssl rand -base64 32"
        )
    if len(set(key)) == 1:
        raise ConfigurationError(
            f"{source}: this key-encryption key is one byte repeated. Fix: openssl rand -base64 32"
        )
    return key


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"smart-token-broker key id\0" + key).digest()[:KEY_ID_BYTES]
