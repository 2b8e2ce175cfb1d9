"""`[[registration]]`: the broker's client registration at an EHR."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from broker.secret import Secret
from broker.settings.ehr import Environment
from broker.settings.fields import Identifier, Origin, ScopeText, Table

EhrAuthentication = Literal[
    "none",
    "client_secret_basic",
    "client_secret_post",
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
]
WITH_SECRET: Final = frozenset({"client_secret_basic", "client_secret_post"})
MOST_SECRETS: Final = 3
"""Each one may be tried within one request, while a refresh's lease lasts."""
WITH_CERTIFICATE: Final = frozenset({"tls_client_auth", "self_signed_tls_client_auth"})


class RegistrationSettings(Table):
    """`[[registration]]`: the broker's client registration at one EHR, or at one vendor's many."""

    id: Identifier
    ehr: tuple[Identifier, ...]
    """In the file: one id, or a list of them; `catalog:FILE` stands for a catalog's enabled EHRs, if there are any."""
    environment: Environment = "production"
    flow: Literal["launch", "backend"]
    client_id: str = Field(min_length=1, max_length=512)
    authentication: EhrAuthentication = "private_key_jwt"
    client_secret: tuple[Secret, ...] = Field(default=(), max_length=MOST_SECRETS)
    """In the file: a reference, `env:NAME` or `file:PATH`, or a list of them, the one to try first first.

    Required with, and only with, client_secret_basic and _post.
    """
    secret_for_backend: bool = False
    """Let `flow = "backend"` prove itself with a secret, which SMART does not intend (RG-09); Oracle does (OR-06)."""
    signing_algorithm: Literal["ES384", "RS384"] = "ES384"
    signing: Literal["broker", "kms"] = "broker"
    """Where the signing key is: sealed in the store, or in the service of `BROKER_KMS` for good (RG-07)."""
    key_rotation_days: int | None = Field(default=None, ge=1, le=3650)
    """After how many days a new signing key begins by itself (RG-11); None: with `broker keys rotate` alone."""
    secret_max_age_days: int | None = Field(default=None, ge=1, le=3650)
    """After how many days a client secret is too old, which is warned of."""
    dpop: bool = False
    """Bind each grant's tokens to a key of its own (RFC 9449). An EHR that does not is then refused (OA-23)."""
    dynamic_client: bool = False
    """Register a client for each grant, with a key by `signing_algorithm`, which then asks for its tokens (EP-17)."""
    send_jku: bool = False
    """Name the JWK Set URL in assertions (CA-03)."""
    certificate: Path | None = None
    """A reference, `file:PATH`, to PEM; it and the next are required with, and only with, the tls methods (OA-19)."""
    certificate_key: Path | None = None
    scopes: ScopeText
    app: Identifier | None = None
    """The app that an EHR launch at `/launch/{registration}` opens."""
    callback: Literal["own", "shared"] | None = None
    """A redirect URI for each EHR, or one for all, where each must announce `iss` in callbacks (CB-07).

    By default several EHRs, and those of a catalog, have their own.
    """
    frame_ancestors: tuple[Origin, ...] = ()
    """Whose pages may show a launch in a frame (CB-11); such a launch also works without cookies (AL-22)."""

    @property
    def has_own_callbacks(self) -> bool:
        """Whether the path of the redirect URI tells which EHR is meant."""
        return self.callback == "own" or (self.callback is None and len(self.ehr) > 1)

    @property
    def shares_callback(self) -> bool:
        """Whether only `iss` tells which EHR is meant."""
        return self.callback == "shared"

    @model_validator(mode="before")
    @classmethod
    def _one_or_many(cls, table: Any) -> Any:
        one = isinstance(table, dict) and isinstance(table.get("ehr"), str)
        return {**table, "ehr": (table["ehr"],)} if one else table

    @model_validator(mode="after")
    def _consistent(self) -> "RegistrationSettings":
        if fault := next(self._faults(), None):
            raise ValueError(fault)
        return self

    def _faults(self) -> Iterator[str]:
        if (self.authentication in WITH_SECRET) != bool(self.client_secret):
            yield "client_secret is needed with authentication = 'client_secret_basic' or '…_post', and only with them"
        files = (self.certificate, self.certificate_key)
        if not all(files) if self.authentication in WITH_CERTIFICATE else any(files):
            yield "certificate and certificate_key are needed with authentication = '…tls_client_auth', and only then"
        if self.send_jku and self.authentication != "private_key_jwt":
            yield "send_jku belongs to authentication = 'private_key_jwt'"
        if self.signing == "kms" and self.authentication != "private_key_jwt":
            yield "signing = 'kms' belongs to authentication = 'private_key_jwt'"
        if self.key_rotation_days is not None and self.authentication != "private_key_jwt":
            yield "key_rotation_days belongs to authentication = 'private_key_jwt'"
        if self.secret_max_age_days is not None and self.authentication not in WITH_SECRET:
            yield "secret_max_age_days belongs to authentication = 'client_secret_basic' or '…_post'"
        if self.dynamic_client and (self.flow != "launch" or self.authentication not in {"private_key_jwt", "none"}):
            yield "dynamic_client belongs to flow = 'launch' with authentication = 'private_key_jwt' or 'none' (EP-17)"
        if self.dynamic_client and self.dpop:
            yield "dynamic_client and dpop exclude each other: the one-time token is used as a bearer's (RFC 7591 §3)"
        yield from self._backend_faults() if self.flow == "backend" else ()
        if not self.scopes:
            yield "scopes is empty: a registration without scopes can get no token"

    def _backend_faults(self) -> Iterator[str]:
        if self.authentication in WITH_SECRET and not self.secret_for_backend:
            yield (
                "flow = 'backend' is not meant for secrets (RG-09). Fix: authentication = 'private_key_jwt', "
                "or secret_for_backend = true where the vendor wants one"
            )
        if self.authentication == "none":
            yield "flow = 'backend' needs authentication = 'private_key_jwt' (SMART Backend Services)"
        if self.app is not None:
            yield "app belongs to flow = 'launch'; a backend registration is never launched"
        if self.frame_ancestors:
            yield "frame_ancestors belongs to flow = 'launch'; a backend registration is never launched"
