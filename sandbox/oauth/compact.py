"""JWTs as they arrive: three base64url parts, of which nothing may be believed yet."""

import base64
import json
from collections.abc import Mapping
from typing import Any


def unverified(compact: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return header and claims of a compact JWS, or raise ValueError."""
    header, claims, _signature = compact.split(".")
    return _json_object(header), _json_object(claims)


def base64url(text: str) -> bytes:
    """Return what base64url without padding says, or raise ValueError."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def unpadded(data: bytes) -> str:
    """Return bytes as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _json_object(part: str) -> Mapping[str, Any]:
    try:
        return {**json.loads(base64url(part))}
    except TypeError:
        raise ValueError("a part is not a JSON object") from None
