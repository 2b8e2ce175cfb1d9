"""Key-encryption keys held by this process: from a file only its owner can read, or from the environment."""

import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.clock import Entropy, system_entropy
from broker.errors import ConfigurationError, KeyUnavailable, SealBroken
from broker.vault.kek import KEY_BYTES, Destroyed, Domain, WrappedKey

NONCE_BYTES = 12
PREFIX: Final = "local:"
"""Begins the name of each of its keys."""
OF_ALL_BUT_ITS_OWNER: Final = 0o077
OF_OTHERS: Final = 0o037
"""What is forbidden in a directory of systemd's, which nobody else may enter: there the bits of the group are the mask
of the access list by which the service's user reads the file."""


class LocalKeyring:
    """One or more 256-bit keys for all domains: the first wraps, each unwraps, so a new one can be put in front."""

    def __init__(self, keys: Sequence[bytes], entropy: Entropy = system_entropy) -> None:
        if not keys:
            raise ConfigurationError("the keyring is empty: set BROKER_KEK_FILE (a file of mode 0600) or BROKER_KEK")
        self._ciphers = {kek_name(key): AESGCM(key) for key in keys}
        self._active = kek_name(keys[0])
        self._entropy = entropy

    def __repr__(self) -> str:
        return f"LocalKeyring({len(self._ciphers)} keys, active {self._active})"

    @property
    def keks(self) -> tuple[str, ...]:
        """The names of the keys, in the order in which they stand."""
        return tuple(self._ciphers)

    async def wrap(self, domain: Domain, key: bytes, bound_to: bytes) -> WrappedKey:
        """Wrap under the first key; the key's own name is bound in as well."""
        nonce = self._entropy(NONCE_BYTES)
        sealed = self._ciphers[self._active].encrypt(nonce, key, _bound(self._active, domain, bound_to))
        return WrappedKey(self._active, nonce + sealed)

    async def unwrap(self, domain: Domain, wrapped: WrappedKey, bound_to: bytes) -> bytes:
        """Unwrap with the key of that name. Raises `KeyUnavailable` when it is not on the keyring, `SealBroken`."""
        cipher = self._ciphers.get(wrapped.kek)
        if cipher is None:
            raise KeyUnavailable(f"key-encryption key {wrapped.kek} is not on the keyring")
        nonce, sealed = wrapped.blob[:NONCE_BYTES], wrapped.blob[NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, sealed, _bound(wrapped.kek, domain, bound_to))
        except (InvalidTag, ValueError):  # ValueError: too short for a nonce
            raise SealBroken(f"a key of {domain} does not unwrap in its place") from None

    async def current(self, domain: Domain) -> str:  # noqa: ARG002  # one keyring for all domains
        """Return the name of the first key."""
        return self._active

    async def rotate(self, domain: Domain) -> str:  # noqa: ARG002  # one keyring for all domains
        """Return the name of the first key: who holds the file puts a new one in front."""
        return self._active

    async def destroy(self, domain: Domain) -> tuple[Destroyed, ...]:  # noqa: ARG002  # no domain has one of its own
        """Destroy nothing: a line leaves the keyring by the hand of whoever holds it."""
        return ()

    async def check(self) -> None:
        """Do nothing: keys in the process always answer."""

    async def close(self) -> None:
        """Do nothing: there are no connections."""


def parse_keys(text: str, source: str) -> list[bytes]:
    """Read one base64 key of 32 bytes per line; blank lines and lines that start with `#` are skipped."""
    lines = [line.strip() for line in text.splitlines()]
    return [_parse_key(line, source) for line in lines if line and not line.startswith("#")]


def read_key_file(path: Path, *, forbidden: int = OF_ALL_BUT_ITS_OWNER) -> list[bytes]:
    """Read a keyring file; refuses one with any of the `forbidden` mode bits (HB-04). Raises `ConfigurationError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        with os.fdopen(descriptor, encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & forbidden:
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


def kek_name(key: bytes) -> str:
    """Return what a local key is called: the first 64 bits of a hash of it."""
    return f"{PREFIX}{hashlib.sha256(b'smart-token-broker key id' + bytes(1) + key).hexdigest()[:16]}"


def _bound(kek: str, domain: Domain, bound_to: bytes) -> bytes:
    return bytes.fromhex(kek.removeprefix(PREFIX)) + domain.associated_data() + bound_to
