"""`[[webhook]]`: who outside is told when the health of a grant changes."""

import base64
import binascii
from typing import Final, Literal

from pydantic import Field, field_validator

from broker.secret import Secret
from broker.settings.fields import Identifier, Table, Url

ToldHealth = Literal["healthy", "degraded", "uncertain", "needs_reauth", "suspended", "revoked"]
MOST_SECRETS: Final = 3
PREFIX: Final = "whsec_"
"""How Standard Webhooks writes a secret: this, and base64 of 24 to 64 random bytes."""


class WebhookSettings(Table):
    """`[[webhook]]`: one address, signed to as Standard Webhooks says."""

    id: Identifier
    url: Url
    secret: tuple[Secret, ...] = Field(min_length=1, max_length=MOST_SECRETS)
    """In the file: a reference, `env:NAME` or `file:PATH`, or a list of them. Each signs, so that one can follow."""
    events: tuple[ToldHealth, ...] = ("healthy", "degraded", "uncertain", "needs_reauth", "suspended", "revoked")
    """Which health is told of, when a grant gets it."""

    @field_validator("url")
    @classmethod
    def _no_place_in_it(cls, url: str) -> str:
        if "?" in url:
            raise ValueError("must have no query: a secret in it would be in logs on the way")
        return url

    @field_validator("secret")
    @classmethod
    def _standard(cls, secrets: tuple[Secret, ...]) -> tuple[Secret, ...]:
        for secret in secrets:
            if not secret.matches("") and not 24 <= len(signing_key(secret)) <= 64:  # empty: told of already
                raise ValueError(
                    f"must be {PREFIX} and base64 of 24 to 64 random bytes. "
                    f'Fix: printf {PREFIX}%s "$(openssl rand -base64 32)"'
                )
        return secrets


def signing_key(secret: Secret) -> bytes:
    """Return the bytes of a secret; empty for one that is not written as Standard Webhooks does."""
    text = secret.reveal()
    try:
        return base64.b64decode(text.removeprefix(PREFIX), validate=True) if text.startswith(PREFIX) else b""
    except binascii.Error:
        return b""
