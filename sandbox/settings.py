"""What one run of the sandbox is told, and the URLs that follow from it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one run. Lifetimes are in seconds."""

    public_url: str
    """The origin under which browsers and clients reach the sandbox, without a trailing slash."""
    auto_approve: bool = False
    """Skip the login, patient and approval pages."""
    patients: int = 200
    seed: int = 7
    access_token_lifetime: int = 3600
    code_lifetime: int = 60
    launch_lifetime: int = 300
    session_lifetime: int = 28_800
    """How long refresh tokens of `online_access` live; those of `offline_access` do not expire."""
    lenient_aud: bool = False
    """Accept an `aud` that differs from the FHIR base by a trailing slash (AL-11)."""
    response_iss: bool = False
    """Advertise and send `iss` in authorization responses (RFC 9207)."""

    @property
    def fhir_base(self) -> str:
        """The FHIR base URL, which is also the only `aud` accepted."""
        return f"{self.public_url}/api/FHIR/R4"

    @property
    def issuer(self) -> str:
        """The OIDC issuer; as at Epic it is not the FHIR base (EP-01)."""
        return f"{self.public_url}/oauth2"

    @property
    def authorization_endpoint(self) -> str:
        """RFC 6749 §3.1."""
        return f"{self.issuer}/authorize"

    @property
    def token_endpoint(self) -> str:
        """RFC 6749 §3.2; also the audience of every client assertion (CA-05)."""
        return f"{self.issuer}/token"

    @property
    def introspection_endpoint(self) -> str:
        """RFC 7662 §2."""
        return f"{self.issuer}/introspect"

    @property
    def revocation_endpoint(self) -> str:
        """RFC 7009 §2."""
        return f"{self.issuer}/revoke"

    @property
    def jwks_uri(self) -> str:
        """Where the id_token key is published."""
        return f"{self.issuer}/jwks"

    @property
    def smart_style_url(self) -> str:
        """The SMART styling document (CX-07)."""
        return f"{self.public_url}/static/smart-style-v1.json"
