"""`[[app]]`: a client of the broker, and what it may have."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from broker.settings.fields import Identifier, ScopeText, Table, Url

AppAuthentication = Literal["none", "client_secret_basic", "private_key_jwt"]


class Access(Table):
    """`[[app.access]]`: one registration the app may use, and the most it may have there. Nothing else is reachable."""

    registration: Identifier
    scopes: ScopeText


class AppSettings(Table):
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
