"""`[[app]]`: a client of the broker, and what it may have."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from broker.origins import origin
from broker.settings.fields import Identifier, OperationName, Origin, ScopeText, Table, Url, burst_fault
from broker.settings.limits import LimitSettings
from broker.settings.proof import (
    CERTIFICATE_METHODS,
    MOST_SECRETS,
    PROOFS,
    AppAuthentication,
    AppSecret,
    DistinguishedName,
    DnsName,
    PublicKeys,
    Thumbprint,
    Workload,
    misfit,
    thumbprints,
)


class Access(Table):
    """`[[app.access]]`: one registration the app may use, and the most it may have there. Nothing else is reachable."""

    registration: Identifier
    scopes: ScopeText
    operations: tuple[OperationName, ...] = ()
    """Operations whose reach the broker does not know: `$graphql`, `Observation/$stats`."""
    limits: LimitSettings | None = None
    """Further limits there, beside the app's own."""


class AppSettings(Table):
    """`[[app]]`: a client of the broker."""

    id: Identifier
    name: str = ""
    authentication: AppAuthentication
    secret: tuple[AppSecret, ...] = Field(default=(), max_length=MOST_SECRETS)
    """Two, so that a new one can be handed out before the old one ends."""
    jwks: PublicKeys | None = None
    """The app's public JWK Set, inline (RFC 7517 §5)."""
    jwks_uri: Url | None = None
    tls_client_auth_subject_dn: DistinguishedName | None = None
    """The subject of the app's certificate (RFC 8705 §2.1.2), compared exactly."""
    tls_client_auth_san_dns: DnsName | None = None
    tls_client_auth_san_uri: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9+.-]*:[!-~]{1,1000}$")
    certificate_thumbprints: tuple[Thumbprint, ...] = ()
    """SHA-256 of certificates that the app made itself, in base64url: `x5t#S256` (RFC 8705 §2.2)."""
    workload: Workload | None = None
    dpop: Literal["optional", "required"] = "optional"
    """Whether its handles must be bound to a key of the app (RFC 9449), or are where it sends a proof (HB-03)."""
    certificate_bound: bool = False
    """Bind its handles to the client certificate that it authenticates by (RFC 8705 §3, HB-03)."""
    redirect_uris: tuple[Url, ...] = ()
    origins: tuple[Origin, ...] | None = None
    """Whose pages may read answers meant for this app (CORS, CO-01). By default those of `redirect_uris`."""
    launch_uri: Url | None = None
    handle_lifetime: int = Field(default=300, ge=10, le=3600)
    """Seconds."""
    refresh_lifetime: int = Field(default=8 * 3600, ge=60, le=90 * 86400)
    """Seconds a refresh handle lives unused."""
    refresh_grace: int = Field(default=0, ge=0, le=60)
    """Seconds in which a spent refresh handle is forgiven once, if the answer was lost; 0: never."""
    requests_per_minute: int | None = Field(default=60_000, ge=1, le=6_000_000)
    """Requests at `/fhir` that the app may send in the long run, over all replicas; denied ones count, too."""
    burst: int | None = Field(default=None, ge=1)
    """Requests that it may send at once after a pause; None: a quarter of a minute's."""
    exchange_from: tuple[Identifier, ...] = ()
    """The apps whose handles this one may exchange for its own (RFC 8693)."""
    limits: LimitSettings | None = None
    """What each of its handles is held to, whatever its scopes allow."""
    access: tuple[Access, ...] = ()

    @property
    def browser_origins(self) -> tuple[str, ...]:
        """The origins that are meant, as browsers write them."""
        return tuple(filter(None, map(origin, self.redirect_uris))) if self.origins is None else self.origins

    @property
    def known_certificates(self) -> frozenset[str]:
        """The `x5t#S256` of the certificates that the app made itself."""
        return frozenset(self.certificate_thumbprints) | thumbprints(self.jwks or {})

    @field_validator("access")
    @classmethod
    def _named_once(cls, access: tuple[Access, ...]) -> tuple[Access, ...]:
        if len({entry.registration for entry in access}) != len(access):
            raise ValueError("one registration is named twice")
        return access

    @model_validator(mode="before")
    @classmethod
    def _former_key(cls, table: Any) -> Any:
        if isinstance(table, dict) and "secret_hash" in table:
            raise ValueError(
                "secret_hash has become a table. Fix: put what `broker apps secret` prints, [[app.secret]]"
            )
        return table

    @model_validator(mode="after")
    def _consistent(self) -> "AppSettings":
        if (fault := burst_fault("burst", self.burst, "requests_per_minute", self.requests_per_minute)) is not None:
            raise ValueError(fault)
        given = {key for keys in PROOFS.values() for key in keys if getattr(self, key)}
        if (fault := misfit(self.authentication, given)) is not None:
            raise ValueError(fault)
        if len({secret.name for secret in self.secret}) != len(self.secret):
            raise ValueError("two secrets have the same id or the same hash")
        if self.certificate_bound and self.authentication not in CERTIFICATE_METHODS:
            raise ValueError(
                f"certificate_bound = true needs authentication = {' or '.join(map(repr, sorted(CERTIFICATE_METHODS)))}"
            )
        if self.authentication == "self_signed_tls_client_auth" and not self.known_certificates:
            raise ValueError("no key in jwks has a certificate: x5t#S256 or x5c")
        return self
