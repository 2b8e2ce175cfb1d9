"""The authorization server's parts, put together."""

from collections.abc import Callable
from dataclasses import dataclass, field

import httpx2

from sandbox.access import Access
from sandbox.faults import Faults
from sandbox.journal import Journal
from sandbox.marks import PLAIN, Entropy, Form
from sandbox.oauth import dpop
from sandbox.oauth.assertions import Replays
from sandbox.oauth.authentication import ClientAuthentication
from sandbox.oauth.clients import Client
from sandbox.oauth.errors import OAuthError
from sandbox.oauth.id_tokens import SigningKey
from sandbox.oauth.key_sets import KeySets
from sandbox.oauth.ledger import Authorization, Ledger
from sandbox.oauth.parameters import Parameters
from sandbox.oauth.presented import Presented
from sandbox.oauth.pushed import PushedRequests
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
    instances: dict[str, Authorization] = field(default_factory=dict)
    """What dynamic clients were registered with, by their client ids (EP-17)."""
    ledger: Ledger = field(init=False)
    key_sets: KeySets = field(init=False)
    proofs: dpop.Proofs = field(init=False)
    pushed: PushedRequests = field(init=False)
    authentication: ClientAuthentication = field(init=False)

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop all launches, codes, tokens, dynamic clients, assertions and proofs seen, and key sets fetched."""
        for client_id in self.instances:
            self.clients.pop(client_id, None)
        self.instances = {}
        self.ledger = Ledger(self.clock, self.entropy, self.journal)
        self.key_sets = KeySets(self.http, self.clock, self.journal, lambda: self.settings.jwks_lag)
        self.proofs = dpop.Proofs(self.entropy)
        self.pushed = PushedRequests(self.clock, self.entropy)
        self.authentication = ClientAuthentication(lambda: self.settings, self.clients, self.key_sets, Replays())

    async def authenticate(self, form: Parameters, presented: Presented, endpoint: str) -> Client:
        """Return the client that asks an endpoint, or raise `OAuthError`."""
        return await self.authentication.authenticate(form, presented, endpoint, self.clock())

    def access(self, authorization: str | None) -> Access | None:
        """Return what an Authorization header value allows now, or None (PX-01).

        A token bound to a DPoP key needs the `DPoP` scheme, any other `Bearer` (RFC 9449 §7.1, §7.2); whether the
        proof beside it is good is for `proof_refusal` to say.
        """
        scheme, _, value = (authorization or "").partition(" ")
        token = self.ledger.access_token(value.strip())
        if token is None or scheme.lower() != ("dpop" if token.proof_key else "bearer"):
            return None
        return Access(token.authorization.client_id, frozenset(token.scopes), token.authorization.patient)

    def proof_refusal(self, presented: Presented) -> OAuthError | None:
        """Return why the proof of a FHIR request is not good, or None when it is, or none is needed."""
        value = presented.token("dpop")
        token = self.ledger.access_token(value) if value else None
        if token is None or token.proof_key is None:
            return None
        try:
            if self.proof_key(presented, token.authorization.client_id, value) != token.proof_key:
                return dpop.invalid_proof("the token is bound to another key (RFC 9449 §7.1)")
        except OAuthError as error:
            return error
        return None

    def proof_key(self, presented: Presented, client_id: str, access_token: str | None = None) -> str:
        """Return the thumbprint of the key a request proves to have, or raise `OAuthError` (RFC 9449 §4.3)."""
        now = self.clock()
        proof = dpop.verify(presented, now=now, access_token=access_token)
        renew = self.faults.next("dpop.nonce", client_id) is not None
        self.proofs.use(proof, now, demand_nonce=self.settings.dpop_nonce, renew=renew)
        return proof.thumbprint

    def form(self, point: str, client_id: str) -> Form:
        """Return what the next secret looks like, by the settings and the faults at `point` (EP-19)."""
        size = self.faults.next(f"{point}.size", client_id)
        ending = self.faults.next(f"{point}.ending", client_id)
        jwt = self.faults.next(f"{point}.jwt", client_id) is not None
        return Form(
            size=size.parameters["bytes"] if size else PLAIN.size,
            jwt=jwt or self.settings.token_shape == "jwt",  # noqa: S105  # a shape, not a token
            ending=ending.parameters["ending"] if ending else "",
        )
