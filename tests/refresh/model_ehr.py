"""A small EHR that knows the truth: which refresh token is current, and whether one was ever sent twice."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qs

from broker.egress import Answer

Kind = Literal["strict", "grace", "reusable", "telling"]
Fate = Literal["ok", "ended", "503", "429", "dropped", "lost", "late", "garbled"]
"""What becomes of a token request. `ended`: the EHR has ended the authorization and says invalid_grant. `dropped`: the
EHR never sees it. `lost`: done, and the answer goes astray. `late`: the same, and it is done a while after the sender
has given up. `garbled`: done, and the answer cannot be read."""

BASE: Final = "https://ehr.example"
LIFETIME: Final = 300
GRACE_SECONDS: Final = 300
LATE_SECONDS: Final = 20
"""How long after its arrival a request may still be carried out: less than the engine waits before it asks."""


@dataclass(eq=False)
class Request:
    """One token request that left a broker."""

    token: str
    sent_at: float
    by_operator: bool
    told: bool = False
    """Whether its sender was told that it changed nothing."""


@dataclass
class ModelEhr:
    """One authorization at one EHR."""

    kind: Kind
    fates: list[Fate] = field(default_factory=list)
    """Of the next requests; then all goes well."""
    requests: list[Request] = field(default_factory=list)
    used_at: dict[str, float] = field(default_factory=dict)
    """When a refresh token was first used, where it rotates."""
    valid: set[str] = field(default_factory=set)
    """The refresh token that is current, if any."""
    ends: dict[str, float] = field(default_factory=dict)
    """When each access token ends."""
    alive: bool = True
    alarms: list[str] = field(default_factory=list)
    """Refresh tokens that came a second time."""
    active_at: int = 0
    """How many requests had been sent when introspection last said that the token is active."""
    _late: list[tuple[float, Request]] = field(default_factory=list)
    _number: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def issue(self, now: float, *, keep: str | None = None) -> dict[str, object]:
        """Make a token answer; `keep` is the refresh token of an EHR that does not replace it."""
        number = next(self._number)
        self.ends[f"at-{number}"] = now + LIFETIME
        self.valid.add(keep or f"rt-{number}")
        return {
            "access_token": f"at-{number}",
            "refresh_token": keep or f"rt-{number}",
            "token_type": "Bearer",
            "expires_in": LIFETIME,
            "scope": "patient/*.rs offline_access",
            "patient": "p",
        }

    def may_be_sent(self, request: Request) -> bool:
        """Whether what the broker can know makes it safe to send this now, after what was sent before."""
        earlier = [r for r in self.requests if r.token == request.token and not r.told]
        if not earlier or self.kind == "reusable" or request.by_operator or any(r.by_operator for r in earlier):
            return True
        if self.kind == "grace":
            return request.sent_at - earlier[0].sent_at < GRACE_SECONDS
        return self.kind == "telling" and all(self.requests.index(r) < self.active_at for r in earlier)

    def take(self, request: Request, now: float) -> Answer | None:
        """Carry out a token request as fate will have it; None where its sender hears nothing."""
        fate = self.fates.pop(0) if self.fates else "ok"
        if fate == "ended":
            self.alive = False
        if fate in {"503", "429"}:
            return Answer(int(fate), {"retry-after": "20"} if fate == "429" else {}, b"{}")
        if (
            fate == "late" and self.kind != "grace"
        ):  # a grace is of use only where what is repeated is not still on its way
            self._late.append((now + LATE_SECONDS, request))
        if fate in {"dropped", "late"}:
            return None
        answer = self._carry_out(request, now)
        if fate == "lost":
            return None
        return Answer(200, {}, b"{}") if fate == "garbled" and answer.status == 200 else answer

    def tick(self, now: float) -> None:
        """Carry out what was late."""
        due, self._late = [(at, r) for at, r in self._late if at <= now], [(at, r) for at, r in self._late if at > now]
        for at, request in due:
            self._carry_out(request, at)

    def introspect(self, token: str) -> Answer:
        """Say whether a refresh token is current."""
        active = self.alive and token in self.valid
        if active:
            self.active_at = len(self.requests)
        return _json(200, {"active": active})

    def revoke(self) -> Answer:
        """End the authorization."""
        self.alive = False
        return Answer(200, {}, b"")

    def _carry_out(self, request: Request, now: float) -> Answer:
        token = request.token
        if not self.alive or token not in {*self.valid, *self.used_at}:
            return _json(400, {"error": "invalid_grant"})
        if self.kind == "reusable":
            return _json(200, self.issue(now, keep=token))
        first = self.used_at.setdefault(token, now)
        in_grace = self.kind == "grace" and now - first < GRACE_SECONDS
        if token not in self.valid and not in_grace:
            self.alarms.append(token)
            self.alive = False
            return _json(400, {"error": "invalid_grant"})
        self.valid.clear()  # also what an earlier sending of the same token has led to
        return _json(200, self.issue(now))


def token_of(content: bytes | None, name: str) -> str:
    """Return the token that a form names."""
    return parse_qs((content or b"").decode())[name][0]


def document() -> Answer:
    """Return the SMART configuration."""
    return _json(
        200,
        {
            "authorization_endpoint": f"{BASE}/authorize",
            "token_endpoint": f"{BASE}/token",
            "introspection_endpoint": f"{BASE}/introspect",
            "revocation_endpoint": f"{BASE}/revoke",
            "grant_types_supported": ["authorization_code"],
            "code_challenge_methods_supported": ["S256"],
            "capabilities": ["permission-v2"],
        },
    )


def _json(status: int, content: Mapping[str, object]) -> Answer:
    return Answer(status, {"content-type": "application/json"}, json.dumps(content).encode())
