"""Launches, codes and tokens: what was issued, to whom, and whether it is still good. Only hashes are kept."""

import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from sandbox.journal import Journal
from sandbox.marks import PLAIN, Entropy, Form, Kind, digest, mint
from sandbox.oauth.compact import unpadded
from sandbox.oauth.errors import invalid_grant, invalid_request
from sandbox.oauth.users import User

_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """An EHR launch in progress: the context one client may pick up once (AL-01)."""

    client_id: str
    patient: str
    encounter: str | None
    user: User
    expires_at: float


@dataclass(slots=True, kw_only=True)
class Authorization:
    """What was allowed to one client: the family all its tokens belong to. Ending it ends them all."""

    client_id: str
    scopes: tuple[str, ...]
    patient: str | None = None
    encounter: str | None = None
    user: User | None = None
    nonce: str | None = None
    from_ehr: bool = False
    refresh_ends_at: float = math.inf
    refreshes: int = 0
    refreshed_at: float = -math.inf
    proof_key: str | None = None
    """The thumbprint of the only DPoP key its code, and of a public client its refresh tokens, may be used with."""
    ended: bool = False


@dataclass(slots=True)
class Code:
    """An authorization code; it stays on file when spent, so that a replay is noticed."""

    authorization: Authorization
    redirect_uri: str
    code_challenge: str
    expires_at: float
    spent: bool = False


@dataclass(slots=True)
class AccessToken:
    """An access token; its scopes may be fewer than its authorization's (RF-02)."""

    authorization: Authorization
    scopes: tuple[str, ...]
    issued_at: float
    expires_at: float
    proof_key: str | None
    """The thumbprint of the DPoP key it is bound to (RFC 9449 §6)."""


@dataclass(slots=True)
class RefreshToken:
    """A refresh token; it stays on file when spent, so that a reuse is noticed (RF-15)."""

    authorization: Authorization
    spent: bool = False


class Ledger:
    """All of them, by SHA-256. Each redemption is one step without a pause, so two at once cannot both succeed."""

    def __init__(self, clock: Callable[[], float], entropy: Entropy, journal: Journal) -> None:
        self._clock = clock
        self._entropy = entropy
        self._journal = journal
        self._launches: dict[str, Launch] = {}
        self._codes: dict[str, Code] = {}
        self._access: dict[str, AccessToken] = {}
        self._refresh: dict[str, RefreshToken] = {}

    def issue_launch(self, launch: Launch, form: Form = PLAIN) -> str:
        """Return a new one-time launch value."""
        value, key = self._mint("launch", "launch", launch.client_id, launch.patient, form)
        self._launches[key] = launch
        return value

    def redeem_launch(self, value: str, client_id: str) -> Launch:
        """Return the launch and forget it, or raise `OAuthError` (invalid_request)."""
        launch = self._launches.get(digest(value))
        if launch is None or launch.client_id != client_id:
            raise invalid_request("launch was not issued to this client, or was already used")
        del self._launches[digest(value)]
        if launch.expires_at <= self._clock():
            raise invalid_request("launch has expired")
        return launch

    def issue_code(
        self, authorization: Authorization, redirect_uri: str, code_challenge: str, lifetime: int, form: Form = PLAIN
    ) -> str:
        """Return a new code that lives for `lifetime` seconds."""
        value, key = self._mint("code", "code", authorization.client_id, authorization.patient, form)
        self._codes[key] = Code(authorization, redirect_uri, code_challenge, self._clock() + lifetime)
        return value

    def redeem_code(self, value: str, client_id: str, redirect_uri: str, code_verifier: str) -> Authorization:
        """Return what the code stands for, once, or raise `OAuthError` (invalid_grant).

        A second use also ends everything the first one gave (RFC 6749 §4.1.2, CB-03).
        """
        code = self._codes.get(digest(value))
        if code is None or code.authorization.client_id != client_id:
            raise invalid_grant("the code was not issued to this client")
        if code.spent:
            code.authorization.ended = True
            self._journal.count("code_replays")
            raise invalid_grant("the code was already used; everything it gave has ended")
        code.spent = True
        if code.expires_at <= self._clock():
            raise invalid_grant("the code has expired")
        if code.redirect_uri != redirect_uri:
            raise invalid_grant("redirect_uri differs from that of the authorization request")
        if not _proves(code_verifier, code.code_challenge):
            raise invalid_grant("code_verifier does not match code_challenge (RFC 7636 §4.6)")
        return code.authorization

    def issue_access(
        self, authorization: Authorization, scopes: tuple[str, ...], lifetime: float, form: Form, proof_key: str | None
    ) -> str:
        """Return a new access token that lives for `lifetime` seconds, bound to a DPoP key if there is one."""
        value, key = self._mint("at", "access_token", authorization.client_id, authorization.patient, form)
        now = self._clock()
        self._access[key] = AccessToken(authorization, scopes, now, now + lifetime, proof_key)
        return value

    def issue_refresh(self, authorization: Authorization) -> str:
        """Return a new refresh token."""
        value, key = self._mint("rt", "refresh_token", authorization.client_id, authorization.patient)
        self._refresh[key] = RefreshToken(authorization)
        return value

    def redeem_refresh(self, value: str, client_id: str, *, rotate: bool) -> Authorization:
        """Return what the refresh token stands for, or raise `OAuthError` (invalid_grant).

        With `rotate` it is spent; using a spent one ends the family and sounds the alarm (RF-15, RFC 9700 §4.14.2).
        """
        token = self._refresh.get(digest(value))
        if token is None or token.authorization.client_id != client_id:
            raise invalid_grant("the refresh token was not issued to this client")
        if token.spent:
            token.authorization.ended = True
            self._journal.count("reuse_alarms")
            raise invalid_grant("the refresh token was already used; the authorization has ended")
        if token.authorization.ended or token.authorization.refresh_ends_at <= self._clock():
            raise invalid_grant("the authorization has ended")
        token.spent = rotate
        token.authorization.refreshes += 1
        token.authorization.refreshed_at = self._clock()
        return token.authorization

    def access_token(self, value: str) -> AccessToken | None:
        """Return a live access token, or None."""
        token = self._access.get(digest(value))
        if token is None or token.authorization.ended or token.expires_at <= self._clock():
            return None
        return token

    def refresh_token(self, value: str) -> RefreshToken | None:
        """Return a live refresh token, or None."""
        token = self._refresh.get(digest(value))
        if token is None or token.spent or token.authorization.ended:
            return None
        return token if token.authorization.refresh_ends_at > self._clock() else None

    def has_live_access(self, authorization: Authorization) -> bool:
        """Say whether any access token of an authorization is still good."""
        now = self._clock()
        return any(token.authorization is authorization and token.expires_at > now for token in self._access.values())

    def revoke(self, value: str, *, family: bool) -> None:
        """End an access token, or a refresh token, alone or with its whole family (RFC 7009 §2.1)."""
        if access := self.access_token(value):
            access.expires_at = self._clock()
        if refresh := self.refresh_token(value):
            if family:
                refresh.authorization.ended = True
            else:
                refresh.authorization.refresh_ends_at = self._clock()

    def expire_access_tokens(self) -> int:
        """Let every live access token expire now; return how many there were."""
        now = self._clock()
        live = [token for token in self._access.values() if token.expires_at > now]
        for token in live:
            token.expires_at = now
        return len(live)

    def _mint(self, mark: Kind, token: str, client_id: str, patient: str | None, form: Form = PLAIN) -> tuple[str, str]:
        value = mint(mark, self._entropy, form)
        key = digest(value)
        self._journal.issued(token, key, client_id, patient)
        return value, key


def _proves(code_verifier: str, code_challenge: str) -> bool:
    """Verify PKCE S256 (OA-16)."""
    if not _VERIFIER.fullmatch(code_verifier):
        return False
    return unpadded(hashlib.sha256(code_verifier.encode()).digest()) == code_challenge
