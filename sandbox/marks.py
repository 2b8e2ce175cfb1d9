"""Secrets that can be found again: everything secret the sandbox issues begins with `canary-`.

Whoever searches a log, a trace, a database dump or a page for `canary-` finds every leak.
"""

import base64
import hashlib
from collections.abc import Callable
from typing import Literal, TypeAlias

MARK = "canary-"
"""What every secret of the sandbox begins with."""
Kind: TypeAlias = Literal["at", "rt", "code", "launch", "secret"]
Entropy: TypeAlias = Callable[[int], bytes]
"""Given a count, that many unpredictable bytes."""


def mint(kind: Kind, entropy: Entropy, size: int = 32) -> str:
    """Return a new URL-safe secret: the marker of its kind and `size` random bytes (HB-01)."""
    return f"{MARK}{kind}-{base64.urlsafe_b64encode(entropy(size)).rstrip(b'=').decode()}"


def digest(secret: str) -> str:
    """Return the SHA-256 of a secret in hex: what tables and the journal hold instead of it."""
    return hashlib.sha256(secret.encode()).hexdigest()
