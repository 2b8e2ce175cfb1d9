"""When a refresh is answered, and whether the refresh token changes: the habits of vendors (RF-03, RF-07, OR-04)."""

import math

from sandbox.oauth.errors import OAuthError, invalid_grant, invalid_scope
from sandbox.oauth.ledger import Authorization, Ledger, RefreshToken
from sandbox.settings import RefreshRule, Settings


def check(settings: Settings, ledger: Ledger, authorization: Authorization, asked: tuple[str, ...], now: float) -> None:
    """Raise `OAuthError` when a live refresh token may not be used for this now; it stays good."""
    if not {*asked} <= {*authorization.scopes}:
        raise invalid_scope("scope is wider than what was granted (RF-11)")
    if settings.refresh_while_alive and not ledger.has_live_access(authorization):
        raise invalid_grant("the access token has expired, and the refresh token with it (RF-07)")
    wait = authorization.refreshed_at + settings.refresh_interval - now
    if wait > 0:
        after = {"Retry-After": str(math.ceil(wait))}
        raise OAuthError("slow_down", "refreshes are too close together (OR-04)", 429, after)


def rotates(rule: RefreshRule, token: RefreshToken | None) -> bool:
    """Say whether using this refresh token gives a new one; `sometimes` is every second time."""
    return rule == "rotate" or (rule == "sometimes" and token is not None and token.authorization.refreshes % 2 == 1)
