"""What the kits' clients do that the stage's app does not: sign requests, read JWTs, come from an origin."""

import base64
import json
from typing import Any, Final

from tests.refusals.keys import Keys, proof
from tests.stage import App, BrokerStage
from tests.stage.app import ORIGIN

CONFIDENTIAL: Final = "reports"
KEYED: Final = "keyed"
BACKEND: Final = "nightly"
TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
LIMITED: Final = "limited"
FROM_APP: Final = {"Origin": ORIGIN}
FROM_LIMITED: Final = {"Origin": "https://limited.example"}
FROM_NOBODY: Final = {"Origin": "https://nobody.example"}


def decoded(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a JWT, unverified."""
    header, claims, _ = (part + "=" * (-len(part) % 4) for part in token.split("."))
    return dict(json.loads(base64.urlsafe_b64decode(header))), dict(json.loads(base64.urlsafe_b64decode(claims)))


def code_form(app: App, code: str, **changes: str | None) -> dict[str, str]:
    """Return a good code exchange with parameters replaced, or removed (None)."""
    good = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": app.redirect_uri,
        "code_verifier": app.verifier,
        **changes,
    }
    return {name: value for name, value in good.items() if value is not None}


def backend_form(stage: BrokerStage, keys: Keys, *, assertion: dict[str, Any] | None = None) -> dict[str, str]:
    """Return a good request of the backend app; `assertion` are arguments of `Keys.assertion`."""
    audience = f"{stage.public_url}/oauth/token"
    signed = proof(keys.assertion(BACKEND, audience, **(assertion or {})))
    return {"grant_type": "client_credentials", "scope": "system/Patient.rs", "resource": stage.base, **signed}


async def fresh_code(app: App, **changes: str | None) -> str:
    """Authorize standalone; returns the code."""
    landing = await app.authorize(**changes)  # type: ignore[arg-type]  # scope is never None here
    return landing.parameters["code"]
