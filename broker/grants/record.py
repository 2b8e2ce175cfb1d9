"""What a grant is: its terms, its tokens, its state."""

from dataclasses import dataclass, field
from typing import Literal

from broker.ehr.dynamic_client import DynamicClient
from broker.errors import ReauthorizationRequired, RelaunchRequired
from broker.grants.launch_context import LaunchContext
from broker.scopes import Scopes
from broker.secret import Secret

GrantState = Literal["active", "uncertain", "needs_reauth", "suspended", "revoked"]


@dataclass(frozen=True, slots=True)
class Terms:
    """The limits of a grant. They travel inside the seal, so no other record can widen them."""

    ehr: str
    fhir_base: str
    registration: str
    flow: Literal["launch", "backend"]
    app: str | None
    """None for a backend grant, which apps share by policy."""
    scopes: Scopes
    context: LaunchContext = field(default_factory=LaunchContext, repr=False)
    scope_assumed: bool = False
    """The EHR never said what it granted, so it is taken to be what was asked (Q4)."""
    dynamic_client: bool = False
    """A client of its own asks for its tokens, without a refresh token (EP-17)."""
    no_dynamic_client: str | None = None
    """Why it has none, where its registration wants one: a sentence made from codes."""

    @property
    def context_missing(self) -> bool:
        """Whether a patient/ scope was granted without saying for whom; such calls are refused until it is (CX-10)."""
        by_patient = any(scope.level == "patient" for scope in self.scopes.resources)
        return self.flow == "launch" and by_patient and self.context.patient is None

    @property
    def ends_with_session(self) -> bool:
        """Whether the EHR ends this grant when the person leaves it (RF-10)."""
        return "online_access" in self.scopes.others and "offline_access" not in self.scopes.others


@dataclass(frozen=True, slots=True)
class TokenSet:
    """What the EHR issued."""

    access_token: Secret
    refresh_token: Secret | None
    renew_at: float
    """When to ask for the next one, in seconds; well before `expires_at`."""
    expires_at: float
    lifetime: float | None = None
    """Seconds that the EHR gave the access token; a refresh that does not say inherits them (RF-09)."""
    expected_end: float | None = None
    """When the refresh token ends, in seconds, where the EHR says so (RF-13)."""
    proof_key: Secret | None = None
    """The key that the tokens are bound to, as PEM; without it neither works (DPoP, OA-23)."""
    dynamic_client: DynamicClient | None = None
    """Who the access token was issued to, and who asks for the next one (EP-17)."""

    def by_lasting(self) -> list[tuple[Secret, str]]:
        """Return the tokens with their `token_type_hint`, first the one whose end ends the most (RFC 7009 §2.1)."""
        access = (self.access_token, "access_token")
        return [access] if self.refresh_token is None else [(self.refresh_token, "refresh_token"), access]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Refreshes that failed since the last one that did not; the grant goes on."""

    first_at: float
    last_at: float
    count: int
    code: str
    """Of the last one."""

    @classmethod
    def read(cls, text: str) -> "Trouble":
        """Read what the script writes."""
        first_at, last_at, count, code = text.split(" ", 3)
        return cls(float(first_at), float(last_at), int(count), code)


def began_at(attempt: str) -> float | None:
    """Return when an attempt to refresh began, in seconds; None where its name does not say."""
    _, _, when = attempt.partition("@")
    try:
        return float(when)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant as read: its tokens stay sealed."""

    tag: str
    terms: Terms
    state: GrantState
    generation: int
    created_at: float
    since: float
    renew_at: float
    expires_at: float
    refreshable: bool
    cause: str | None
    sealed_tokens: bytes | None = field(repr=False)
    hold_until: float = 0.0
    """No refresh before this: the EHR asked for a pause, or its profile does (OR-04)."""
    used_at: float = 0.0
    """When an app last used it, to within some minutes (RF-13)."""
    expected_end: float | None = None
    serves: bool = True
    """Whether its access token lived when it was read: an uncertain grant serves until that ends."""
    attempted_by: str | None = None
    """Whose refresh may have been sent and has not ended: one under way, or one that was cut off."""
    trouble: Trouble | None = None
    reauthorized_at: float | None = None
    """When a person last authorized it again; None where nobody had to yet."""
    told: str | None = None
    """The health that webhooks were told of last; None: that it is healthy, or nothing yet."""

    @property
    def authorized_at(self) -> float:
        """When a person last authorized it, in seconds."""
        return self.created_at if self.reauthorized_at is None else self.reauthorized_at

    @property
    def is_in_use(self) -> bool:
        """Whether an app has used it since its last renewal."""
        return self.used_at > self.since

    @property
    def lacks_context(self) -> bool:
        """Whether the patient is missing, and a refresh has not been tried for it yet (CX-11)."""
        return self.terms.context_missing and self.generation == 1

    def require_usable(self) -> None:
        """Raises `ReauthorizationRequired` unless the grant is active, or uncertain with a token that lives.

        `RelaunchRequired` when its session ended.
        """
        if self.state == "active" or (self.state == "uncertain" and self.serves):
            return
        ended = RelaunchRequired if self.state == "needs_reauth" and self.terms.ends_with_session else None
        raise (ended or ReauthorizationRequired)(f"grant {self.tag} is {self.state}: {self.cause}")
