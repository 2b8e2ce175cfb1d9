"""Signatures as Standard Webhooks 1.0 has them, with symmetric keys. Pure."""

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping

from broker.secret import Secret
from broker.settings.webhook import signing_key


def signed_headers(secrets: Iterable[Secret], event: str, body: bytes, *, now: float) -> Mapping[str, str]:
    """Return the headers of one try at `now` (seconds): the event's id, the time, a signature by each secret.

    The id is the same at each try, the time is not.
    """
    timestamp = str(int(now))
    signed = b".".join((event.encode(), timestamp.encode(), body))
    signatures = (hmac.digest(signing_key(secret), signed, hashlib.sha256) for secret in secrets)
    return {
        "webhook-id": event,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{base64.b64encode(one).decode()}" for one in signatures),
    }
