"""The authorization server's parts, put together."""

from collections.abc import Callable
from dataclasses import dataclass, field

import httpx2

from sandbox.access import Access
from sandbox.faults import Faults
from sandbox.journal import Journal
from sandbox.marks import Entropy
from sandbox.oauth.assertions import Replays
from sandbox.oauth.authentication import ClientAuthentication
from sandbox.oauth.clients import Client
from sandbox.oauth.id_tokens import SigningKey
from sandbox.oauth.key_sets import KeySets
from sandbox.oauth.ledger import Ledger
from sandbox.settings import Settings


@dataclass(slots=True)
class AuthorizationServer:
    """Everything the endpoints work with; one per run."""

    settings: Settings
    clock: Callable[[], float]
    entropy: Entropy
    http: httpx2.AsyncClient
    """Fetches the clients' JWK Sets, and nothing else."""
    journal: Journal
    signing_key: SigningKey
    faults: Faults = field(default_factory=Faults)
    clients: dict[str, Client] = field(default_factory=dict)
    ledger: Ledger = field(init=False)
    key_sets: KeySets = field(init=False)
    authentication: ClientAuthentication = field(init=False)

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop all launches, codes, tokens, assertions seen and key sets fetched."""
        self.ledger = Ledger(self.clock, self.entropy, self.journal)
        self.key_sets = KeySets(self.http, self.clock, self.journal)
        self.authentication = ClientAuthentication(self.clients, self.key_sets, Replays())

    def access(self, authorization: str | None) -> Access | None:
        """Return what an `Authorization: Bearer` header value allows now, or None (PX-01)."""
        scheme, _, value = (authorization or "").partition(" ")
        token = self.ledger.access_token(value.strip()) if scheme.lower() == "bearer" else None
        if token is None:
            return None
        return Access(token.authorization.client_id, frozenset(token.scopes), token.authorization.patient)
