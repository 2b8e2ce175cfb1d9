"""What a JWT says before anything is verified: for finding its key, or for refusing by, never for believing (ID-08)."""

import base64
from typing import Any

from broker.ehr.endpoints import parse_json_object
from broker.secret import Secret


def unverified_header(token: Secret) -> dict[str, Any] | None:
    """Return the header of a signed JWT, or None if it is none."""
    return _part(token, 0)


def unverified_claims(token: Secret) -> dict[str, Any] | None:
    """Return what a signed JWT claims, or None if it is none."""
    return _part(token, 1)


def _part(token: Secret, index: int) -> dict[str, Any] | None:
    parts = token.reveal().split(".")
    if len(parts) != 3:
        return None
    try:
        return parse_json_object(base64.urlsafe_b64decode(parts[index] + "=" * (-len(parts[index]) % 4)))
    except ValueError:
        return None
