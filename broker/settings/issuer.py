"""`[[issuer]]`: who vouches for workloads, and how far its word is taken."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from broker.settings.fields import Identifier, Table, Url
from broker.settings.proof import PublicKeys

IssuerAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
_SOURCES: Final = ("jwks", "jwks_uri", "jwks_file")


class IssuerSettings(Table):
    """`[[issuer]]`: an OpenID issuer or SPIFFE trust domain whose tokens may stand for an app (`[app.workload]`)."""

    id: Identifier
    issuer: str | None = Field(default=None, min_length=1, max_length=512)
    """The `iss` of its tokens, compared exactly."""
    trust_domain: str | None = Field(default=None, pattern=r"^[a-z0-9._-]{1,255}$")
    """SPIFFE instead: its tokens need no `iss`; `sub` is a SPIFFE ID of this trust domain."""
    audience: str = Field(min_length=1, max_length=512)
    """The one `aud` that its tokens must have: a token made for anybody else proves nothing here."""
    jwks: PublicKeys | None = None
    jwks_uri: Url | None = None
    jwks_file: Path | None = None
    """A JWK Set or SPIFFE bundle on disk, relative to `broker.toml`; read again when it may have changed."""
    algorithms: tuple[IssuerAlgorithm, ...] = Field(default=("RS256",), min_length=1)
    max_lifetime: Annotated[int, Field(ge=60, le=90_000)] = 3600
    """Most seconds between `iat` and `exp`: such a token can be used again until then."""

    @model_validator(mode="after")
    def _pinned(self) -> "IssuerSettings":
        if (self.issuer is None) == (self.trust_domain is None):
            raise ValueError("exactly one of issuer and trust_domain is needed")
        sources = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(sources) > 1:
            raise ValueError(f"{' and '.join(sources)}: the keys come from one place")
        if not sources and self.discovered_at is None:
            raise ValueError("where are its keys? Fix: jwks, jwks_uri or jwks_file, or an https issuer with discovery")
        return self

    @property
    def discovered_at(self) -> str | None:
        """The issuer whose openid-configuration names the keys, where nothing else says where they are."""
        if self.jwks or self.jwks_uri or self.jwks_file or self.issuer is None:
            return None
        return self.issuer if self.issuer.startswith(("https://", "http://")) else None
