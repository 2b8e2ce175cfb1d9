"""What `broker.toml` may say. Unknown keys are refused; every default that matters for safety is written out here."""

import re
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from broker.errors import InvalidScope
from broker.scopes import Scopes
from broker.secret import Secret

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
AppAuthentication = Literal["none", "client_secret_basic", "private_key_jwt"]
EhrAuthentication = Literal["none", "client_secret_basic", "private_key_jwt"]


def _scopes(text: str) -> str:
    try:
        return str(Scopes.parse(text))
    except InvalidScope as error:
        raise ValueError(error.detail) from None


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"https", "http"} or not parts.hostname or "@" in parts.netloc or parts.port == 0:
        raise ValueError("must be an absolute https URL without user name or password")
    if parts.fragment or re.search(r"[\s<>\"\\^`{|}]", text):
        raise ValueError("must have no fragment, blanks or characters that a URL cannot hold")
    return text


def _base_url(text: str) -> str:
    if urlsplit(_url(text)).query:
        raise ValueError("must have no query")
    return text.rstrip("/")


ScopeText = Annotated[str, AfterValidator(_scopes)]
Url = Annotated[str, AfterValidator(_url)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine's loopback, by name or address."""
    return urlsplit(url).hostname in LOOPBACK


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True)


class EhrSettings(_Table):
    """`[[ehr]]`: a FHIR base URL and the authorization server behind it; the base is the key, not the issuer."""

    id: Identifier
    name: str = ""
    fhir_base: BaseUrl
    refresh_tokens: Literal["rotating", "reusable"] = "rotating"
    """`reusable`: the EHR accepts the same refresh token again, so a refresh whose answer was lost may be repeated."""
    token_timeout: float = Field(default=10.0, gt=0, le=30)
    """Seconds the token endpoint may take."""
    fhir_timeout: float = Field(default=30.0, gt=0, le=300)
    """Seconds the FHIR server may be silent."""


class RegistrationSettings(_Table):
    """`[[registration]]`: the broker's client registration at one EHR."""

    id: Identifier
    ehr: Identifier
    flow: Literal["launch", "backend"]
    client_id: str = Field(min_length=1, max_length=512)
    authentication: EhrAuthentication = "private_key_jwt"
    client_secret: Secret | None = None
    """A reference, `env:NAME` or `file:PATH`; required with, and only with, client_secret_basic."""
    signing_algorithm: Literal["ES384", "RS384"] = "ES384"
    scopes: ScopeText
    app: Identifier | None = None
    """The app that an EHR launch at `/launch/{registration}` opens."""

    @model_validator(mode="after")
    def _consistent(self) -> "RegistrationSettings":
        if (self.authentication == "client_secret_basic") != (self.client_secret is not None):
            raise ValueError("client_secret is needed with authentication = 'client_secret_basic', and only with it")
        if self.flow == "backend" and self.authentication != "private_key_jwt":
            raise ValueError("flow = 'backend' needs authentication = 'private_key_jwt' (SMART Backend Services)")
        if self.flow == "backend" and self.app is not None:
            raise ValueError("app belongs to flow = 'launch'; a backend registration is never launched")
        if not self.scopes:
            raise ValueError("scopes is empty: a registration without scopes can get no token")
        return self


class Access(_Table):
    """`[[app.access]]`: one registration the app may use, and the most it may have there. Nothing else is reachable."""

    registration: Identifier
    scopes: ScopeText


class AppSettings(_Table):
    """`[[app]]`: a client of the broker."""

    id: Identifier
    name: str = ""
    authentication: AppAuthentication
    secret_hash: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """What `broker apps secret` printed beside the secret; only generated 256-bit secrets exist."""
    jwks: dict[str, Any] | None = None
    """The app's public JWK Set, inline (RFC 7517 §5)."""
    jwks_uri: Url | None = None
    redirect_uris: tuple[Url, ...] = ()
    launch_uri: Url | None = None
    handle_lifetime: int = Field(default=300, ge=10, le=3600)
    """Seconds."""
    refresh_lifetime: int = Field(default=8 * 3600, ge=60, le=90 * 86400)
    """Seconds a refresh handle lives unused."""
    access: tuple[Access, ...] = ()

    @field_validator("jwks")
    @classmethod
    def _public_keys(cls, jwks: dict[str, Any] | None) -> dict[str, Any] | None:
        keys = jwks.get("keys") if jwks is not None else []
        is_public = isinstance(keys, list) and all(
            isinstance(key, dict) and key.get("kty") in {"RSA", "EC"} and "d" not in key for key in keys
        )
        if not is_public or jwks == {"keys": []}:
            raise ValueError("must be a JWK Set of public RSA or EC keys; a private key never stands in this file")
        return jwks

    @field_validator("access")
    @classmethod
    def _named_once(cls, access: tuple[Access, ...]) -> tuple[Access, ...]:
        if len({entry.registration for entry in access}) != len(access):
            raise ValueError("one registration is named twice")
        return access

    @model_validator(mode="after")
    def _consistent(self) -> "AppSettings":
        if (self.authentication == "client_secret_basic") != (self.secret_hash is not None):
            raise ValueError("secret_hash is needed with authentication = 'client_secret_basic', and only with it")
        if (self.authentication == "private_key_jwt") != ((self.jwks is None) != (self.jwks_uri is None)):
            raise ValueError("exactly one of jwks and jwks_uri goes with authentication = 'private_key_jwt'")
        if self.authentication != "private_key_jwt" and (self.jwks or self.jwks_uri):
            raise ValueError("jwks and jwks_uri go with authentication = 'private_key_jwt' only")
        return self


class Settings(_Table):
    """The whole of `broker.toml`, checked."""

    public_url: BaseUrl
    """Where apps and EHRs reach the broker; FHIR bases, redirect URIs and JWKS URLs are built from it."""
    tenant: Identifier = "default"
    allow_loopback_http: bool = False
    """Accept `http://` for loopback hosts, for a sandbox on this machine. Any other `http://` URL is always refused."""
    ehr: tuple[EhrSettings, ...]
    registration: tuple[RegistrationSettings, ...]
    app: tuple[AppSettings, ...] = ()
