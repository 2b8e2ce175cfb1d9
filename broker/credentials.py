"""The format of what the broker itself hands out. No I/O.

    sbh_ 12 × base62  43 × base62  6 × base62        handle, refresh handle (sbr_), code (sbc_), launch (sbl_),
         routing tag  256 bits     CRC-32             link to re-authorize (sba_)

    sbs_              43 × base62  6 × base62        app secret: belongs to no grant, so no tag

The prefix and the fixed length let a scanner find a leaked one; the checksum lets the broker refuse a mistyped or
invented one without a look-up. The routing tag names the grant's slot in Redis, so one round trip finds the record and
its grant, also in a cluster; it is random, not secret, and opens nothing. Guessing one takes 2^256 tries (HB-01).
"""

import base64
import hashlib
import hmac
import re
import string
import zlib
from dataclasses import dataclass
from typing import Final

from broker.clock import Entropy
from broker.secret import Secret

HANDLE: Final = "sbh_"
REFRESH_HANDLE: Final = "sbr_"
CODE: Final = "sbc_"
LAUNCH: Final = "sbl_"
REAUTHORIZATION: Final = "sba_"
APP_SECRET: Final = "sbs_"  # noqa: S105  # a prefix

TAG_LENGTH: Final = 12
SECRET_BYTES: Final = 32
_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SECRET_LENGTH: Final = 43  # 62^43 > 2^256
_CHECKSUM_LENGTH: Final = 6  # 62^6 > 2^32
_TAGGED: Final = re.compile(rf"(sb[hrcla]_)([0-9A-Za-z]{{{TAG_LENGTH}}})[0-9A-Za-z]{{49}}")
_UNTAGGED: Final = re.compile(rf"(sbs_)()[0-9A-Za-z]{{{_SECRET_LENGTH}}}[0-9A-Za-z]{{6}}")


@dataclass(frozen=True, slots=True)
class Presented:
    """A credential that is well-formed; whether it is valid only the store can say."""

    prefix: str
    tag: str
    secret: Secret


class KeyedHash:
    """HMAC-SHA-256 under a key that is itself kept sealed: what stands in Redis cannot be tried out offline (HB-04)."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "KeyedHash()"

    def __call__(self, purpose: str, secret: Secret | str) -> str:
        """Return 64 hexadecimal digits; the same text under another purpose hashes differently."""
        text = secret.reveal() if isinstance(secret, Secret) else secret
        return hmac.digest(self._key, f"{purpose}\0{text}".encode(), hashlib.sha256).hex()


def mint(prefix: str, tag: str, entropy: Entropy) -> Secret:
    """Make a new credential of 256 random bits."""
    body = prefix + tag + _base62(int.from_bytes(entropy(SECRET_BYTES), "big"), _SECRET_LENGTH)
    return Secret(body + _checksum(body))


def new_tag(entropy: Entropy) -> str:
    """Make a random routing tag (71 bits) for a new grant."""
    return _base62(int.from_bytes(entropy(16), "big") % 62**TAG_LENGTH, TAG_LENGTH)


def present(prefix: str, text: str) -> Presented | None:
    """Check prefix, length, alphabet and checksum; None for anything that cannot be one of ours."""
    match = (_UNTAGGED if prefix == APP_SECRET else _TAGGED).fullmatch(text)
    if match is None or match[1] != prefix or _checksum(text[:-_CHECKSUM_LENGTH]) != text[-_CHECKSUM_LENGTH:]:
        return None
    return Presented(prefix, match[2], Secret(text))


def random_text(entropy: Entropy) -> str:
    """Return 256 random bits as 43 base64url characters: `state`, `nonce`, PKCE verifier, cookies (AL-10, OA-16)."""
    return base64.urlsafe_b64encode(entropy(SECRET_BYTES)).rstrip(b"=").decode()


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
