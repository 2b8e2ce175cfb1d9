"""Secrets that can be found again: everything secret the sandbox issues carries `canary-`.

Whoever searches a log, a trace, a database dump or a page for `canary-` finds every leak.
"""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

MARK = "canary-"
"""What every secret of the sandbox begins with, or its signature where it looks like a JWT."""
Kind: TypeAlias = Literal["at", "rt", "code", "launch", "secret", "request", "nonce", "storage"]
Entropy: TypeAlias = Callable[[int], bytes]
"""Given a count, that many unpredictable bytes."""
_HEADER = b'{"alg":"RS256","typ":"JWT"}'
_CLAIMS = b'{"iss":"https://issuer.invalid","client_id":"not-for-clients"}'


@dataclass(frozen=True, slots=True)
class Form:
    """What a secret looks like: how many random bytes it has, whether it looks like a JWT, and how it ends (EP-19)."""

    size: int = 32
    jwt: bool = False
    ending: str = ""


PLAIN = Form()


def mint(kind: Kind, entropy: Entropy, form: Form = PLAIN) -> str:
    """Return a new secret: the marker of its kind and its random bytes (HB-01), URL-safe but for its ending."""
    secret = f"{MARK}{kind}-{_unpadded(entropy(form.size))}{form.ending}"
    return f"{_unpadded(_HEADER)}.{_unpadded(_CLAIMS)}.{secret}" if form.jwt else secret


def digest(secret: str) -> str:
    """Return the SHA-256 of a secret in hex: what tables and the journal hold instead of it."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
