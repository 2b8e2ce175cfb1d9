"""`client_secret_basic`: the broker keeps hashes only, of at most two secrets that each have an end.

`client_secret_post` is not offered: a body is logged and forwarded more often than a header is.
"""

import hashlib
import hmac

from broker.apps import App
from broker.credentials import APP_SECRET, present
from broker.errors import InvalidClient
from broker.settings.proof import AppSecret


def check_secret(app: App, presented: str | None, *, now: float) -> AppSecret:
    """Return the secret that was presented. Raises `InvalidClient`."""
    if presented is None or present(APP_SECRET, presented) is None:
        raise InvalidClient("no secret, or one that this broker never made")
    digest = "sha256:" + hashlib.sha256(presented.encode()).hexdigest()
    found = [secret for secret in app.settings.secret if hmac.compare_digest(digest, secret.hash)]
    if not found:
        raise InvalidClient("wrong secret")
    if now >= found[0].expires_at:
        raise InvalidClient(f"secret {found[0].name} of app {app.id} has expired")
    return found[0]
