"""What arrived and what was issued, without a single secret: the witness tests call."""

import dataclasses
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.marks import MARK, digest

LIMIT = 20_000
"""Entries kept; the counts go on."""

SHOWN_PARAMETERS = frozenset({
    "aud", "client_assertion_type", "client_id", "code_challenge_method", "grant_type", "login_hint", "prompt",
    "redirect_uri", "resource", "response_mode", "response_type", "scope", "token_type_hint",
})  # fmt: skip
SHOWN_HEADERS = frozenset({
    "accept", "accept-encoding", "content-length", "content-type", "epic-client-id", "host", "if-match",
    "if-modified-since", "if-none-exist", "if-none-match", "prefer", "user-agent", "x-request-id",
})  # fmt: skip
NAMES = (
    "authorize", "brands", "client_jwks_fetches", "code_replays", "endpoints", "fhir", "introspect", "jwks",
    "metadata", "openid_configuration", "par", "register", "reuse_alarms", "revoke", "smart_configuration",
    "storage", "storage.authorization", "token", "token.authorization_code", "token.client_credentials",
    "token.refresh_token",
)  # fmt: skip
"""Numbers that are always there, 0 included."""


def fingerprint(secret: str) -> str:
    """Return the first 16 hex digits of a secret's SHA-256: enough to say "the same one", too little to use."""
    return digest(secret)[:16]


def redact(parameters: Iterable[tuple[str, str]], shown: frozenset[str] | None) -> dict[str, str]:
    """Return parameters with the value of each not listed in `shown` replaced by its fingerprint; None lists all.

    A marked secret is never shown, wherever it stands.
    """
    return {
        name: value if (shown is None or name in shown) and MARK not in value else f"sha256:{fingerprint(value)}"
        for name, value in parameters
    }


@dataclass(slots=True, kw_only=True)
class Arrival:
    """One request; `status` stays None when no answer was given."""

    time: float
    kind: str
    method: str
    path: str
    parameters: dict[str, str]
    headers: dict[str, str | None]
    """Every header's name; the value only where it cannot hold a secret."""
    authorization: bool
    bearer: str | None
    """The fingerprint of the bearer token presented."""
    client_id: str | None = None
    grant_type: str | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """One secret issued; `sha256` is the hash of all of it, in hex."""

    time: float
    token: str
    sha256: str
    client_id: str | None
    patient: str | None
    kind: str = field(default="issued", init=False)


class Journal:
    """The entries in the order of their arrival, and numbers by kind."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: deque[Arrival | Issue] = deque(maxlen=LIMIT)
        self._counts: Counter[str] = Counter()

    def arrived(
        self, kind: str, method: str, path: str, query: Iterable[tuple[str, str]], headers: Mapping[str, str]
    ) -> Arrival:
        """Record a request before it is processed; the answer's status is filled in later."""
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        arrival = Arrival(
            time=self._clock(),
            kind=kind,
            method=method,
            path=path,
            # A FHIR query is synthetic data and shown whole, so that tests can compare it with what was sent.
            parameters=redact(query, None if kind == "fhir" else SHOWN_PARAMETERS),
            headers={name: value if name in SHOWN_HEADERS else None for name, value in headers.items()},
            authorization="authorization" in headers,
            bearer=fingerprint(credentials.strip()) if scheme.lower() in {"bearer", "dpop"} else None,
        )
        self._entries.append(arrival)
        self._counts[kind] += 1
        return arrival

    def issued(self, token: str, sha256: str, client_id: str | None, patient: str | None) -> None:
        """Record a secret of the kind `token` by its SHA-256."""
        self._entries.append(
            Issue(time=self._clock(), token=token, sha256=sha256, client_id=client_id, patient=patient)
        )
        self._counts[f"issued.{token}"] += 1

    def count(self, name: str) -> None:
        """Add one to a number."""
        self._counts[name] += 1

    def entries(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the entries, oldest first, or those of one kind (`issued` among them)."""
        return [dataclasses.asdict(entry) for entry in self._entries if kind in {None, entry.kind}]

    def counts(self) -> dict[str, int]:
        """Return the numbers by name."""
        return dict(sorted({**dict.fromkeys(NAMES, 0), **self._counts}.items()))

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._counts.clear()
