"""What one run of the sandbox is told, and the URLs that follow from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

AudRule: TypeAlias = Literal["exact", "slash-optional", "slash-required", "optional", "refused"]
DialectRule: TypeAlias = Literal["asked", "v1", "v2"]
EncodingRule: TypeAlias = Literal["rfc6749", "raw"]
ErrorRule: TypeAlias = Literal["full", "bare", "null", "uri", "text"]
FormatRule: TypeAlias = Literal["xml", "json"]
IntrospectionRule: TypeAlias = Literal["any", "client", "bearer"]
PageLinks: TypeAlias = Literal["opaque", "session-id", "page-context"]
PushRule: TypeAlias = Literal["off", "offered", "required"]
RefreshRule: TypeAlias = Literal["rotate", "keep", "repeat", "sometimes", "none"]
RevocationRule: TypeAlias = Literal["family", "refresh-token", "off"]
TokenShape: TypeAlias = Literal["opaque", "jwt"]


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
    response_iss: bool = False
    """Advertise and send `iss` in authorization responses (RFC 9207)."""
    aud: AudRule = "exact"
    """What `aud` of an authorization request must be: the FHIR base (AL-11), or what some vendors want (Q7, OT-02)."""
    refuse_standalone_post: bool = False
    """Take a posted authorization request in an EHR launch only (EP-11)."""
    pushed_requests: PushRule = "off"
    """Whether authorization requests may or must be pushed first (RFC 9126)."""
    dpop: bool = False
    """Bind tokens to the key of a DPoP proof where one is sent, and advertise it (RFC 9449)."""
    dpop_nonce: bool = False
    """Demand the server's nonce in every DPoP proof (RFC 9449 §8)."""
    dynamic_clients: bool = False
    """Let a client register instances of itself, each with its own key, as Epic does (EP-17)."""
    client_ca: Path | None = None
    """The certificates that client certificates are checked against; with it the mTLS endpoints exist (RFC 8705)."""
    introspection: IntrospectionRule = "any"
    """What authorizes introspection: client authentication, a bearer token as at Epic (EP-20), or either (IN-03)."""
    revocation: RevocationRule = "family"
    """What revoking a refresh token ends: all its tokens, itself alone (IN-08); or there is no endpoint (IN-07)."""
    refresh: RefreshRule = "rotate"
    """What a refresh gives to clients that were registered without saying (RF-03)."""
    refresh_interval: int = 0
    """A refresh this soon after the one before is answered 429 (OR-04)."""
    jwks_lag: int = 0
    """Go on with a client's JWK Set this long, although it lacks the key that signed (EP-06)."""
    clock_ahead: int = 0
    """How far the sandbox's clock is ahead of the machine's: a test that moves time moves it here, too."""
    refresh_while_alive: bool = False
    """Refuse a refresh once the access token has expired (RF-07)."""
    token_errors: ErrorRule = "full"  # noqa: S105  # a style, not a token
    """How the token endpoint says no: with a sentence, with the code alone, with `error_description` null (EP-17),
    with an `error_uri` and nothing else (OR-03), or in plain text (OA-04)."""
    scope_dialect: DialectRule = "asked"
    """The SMART version in which granted scopes are written (Q9)."""
    token_shape: TokenShape = "opaque"  # noqa: S105  # a shape, not a token
    """What launches, codes and access tokens look like (EP-19)."""
    personality: str = "generic"
    """Whose documents the sandbox shows: a name of `sandbox.personalities.PERSONALITIES`."""
    oauth_path: str = "/oauth2"
    """Where the OAuth endpoints are advertised; `/oauth2` works as well."""
    issuer_path: str = "/oauth2"
    """The path of the OIDC issuer; as at Epic it is not the FHIR base (EP-01)."""
    issuer_on_other_host: bool = False
    """Put the issuer on the loopback's other name, as athenahealth has it on another host (OT-01)."""
    metadata_format: FormatRule = "xml"
    """What the CapabilityStatement is when nothing is asked for: XML at Epic (EP-09), JSON elsewhere."""
    page_links: PageLinks = "opaque"
    """How links to search pages are written: as HAPI's, which name no type, as Epic's, or as Oracle's (PX-07)."""
    basic_encoding: EncodingRule = "rfc6749"
    """What `client_secret_basic` does to id and secret, for clients that were registered without saying (Q1)."""
    refuse_v2_scopes: bool = False
    """Grant no scope of SMART v2, although permission-v2 is advertised (Q9)."""
    refuse_wildcards: bool = False
    """Grant no scope with a wildcard type (OR-06)."""
    one_bulk_job: bool = False
    """Answer 429 to a client whose bulk export is still running (OR-08)."""
    bulk_files: int = 0
    """Files of made-up Observations that each bulk export holds besides; they are made as they are sent."""
    bulk_lines: int = 1000
    """Observations in each of them, of a kilobyte each."""

    @property
    def fhir_base(self) -> str:
        """The FHIR base URL, which is also the only `aud` accepted."""
        return f"{self.public_url}/api/FHIR/R4"

    @property
    def issuer(self) -> str:
        """The OIDC issuer."""
        return f"{self.other_origin if self.issuer_on_other_host else self.public_url}{self.issuer_path}"

    @property
    def other_origin(self) -> str:
        """The same server under the loopback's other name; the public URL again where that is no loopback."""
        url = urlsplit(self.public_url)
        name = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}.get(url.hostname or "")
        return f"{url.scheme}://{name}" + (f":{url.port}" if url.port else "") if name else self.public_url

    @property
    def oauth_root(self) -> str:
        """What the OAuth endpoints have in common."""
        return f"{self.public_url}{self.oauth_path}"

    @property
    def authorization_endpoint(self) -> str:
        """RFC 6749 §3.1."""
        return f"{self.oauth_root}/authorize"

    @property
    def token_endpoint(self) -> str:
        """RFC 6749 §3.2; also the audience of every client assertion (CA-05)."""
        return f"{self.oauth_root}/token"

    @property
    def introspection_endpoint(self) -> str:
        """RFC 7662 §2."""
        return f"{self.oauth_root}/introspect"

    @property
    def revocation_endpoint(self) -> str:
        """RFC 7009 §2."""
        return f"{self.oauth_root}/revoke"

    @property
    def pushed_authorization_request_endpoint(self) -> str:
        """RFC 9126 §5."""
        return f"{self.oauth_root}/par"

    @property
    def registration_endpoint(self) -> str:
        """Where a dynamic client is registered (EP-17, RFC 7591 §3)."""
        return f"{self.oauth_root}/register"

    @property
    def mtls_endpoint_aliases(self) -> dict[str, str]:
        """The endpoints that look at client certificates, by the name of those that do not (RFC 8705 §5)."""
        endpoints = {
            "token_endpoint": self.token_endpoint,
            "introspection_endpoint": self.introspection_endpoint,
            "revocation_endpoint": self.revocation_endpoint,
            "pushed_authorization_request_endpoint": self.pushed_authorization_request_endpoint,
        }
        return {name: url.replace(self.oauth_root, f"{self.public_url}/oauth2/mtls") for name, url in endpoints.items()}

    @property
    def jwks_uri(self) -> str:
        """Where the id_token key is published."""
        return f"{self.oauth_root}/jwks"

    @property
    def smart_style_url(self) -> str:
        """The SMART styling document (CX-07)."""
        return f"{self.public_url}/static/smart-style-v1.json"
