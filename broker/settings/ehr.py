"""`[[ehr]]`: a FHIR base URL and the authorization server behind it."""

from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from broker.profiles import Profile, profile, profile_names
from broker.profiles.profile import GENERIC
from broker.settings.fields import BaseUrl, Host, Identifier, Origin, Table, Url, burst_fault

Environment = Literal["production", "non_production"]


class EhrSettings(Table):
    """`[[ehr]]`: the FHIR base is the key, not the issuer (OR-01)."""

    id: Identifier
    name: str = ""
    fhir_base: BaseUrl
    aliases: tuple[BaseUrl, ...] = ()
    """The FHIR base as proxies and the EHR's own machines spell it in answers (PX-06). No request goes there, so they
    may be plain http."""
    rewrite_attachments: bool = True
    """Turn URLs of Binaries to the broker, too. Whoever checks signatures of resources needs them as they are."""
    enabled: bool = True
    """Imported EHRs start disabled: being listed is no permission to use them (BR-05)."""
    environment: Environment = "production"
    """A registration for one environment is not used in the other (EP-02)."""
    profile: Profile
    """In the file: the name of the profile, and beside it any of its settings that this EHR has otherwise."""
    token_endpoint: Url | None = None
    """In place of the one that discovery finds (OR-02)."""
    authorization_endpoint: Url | None = None
    """As above."""
    token_timeout: float = Field(default=10.0, gt=0, le=30)
    """Seconds the token endpoint may take."""
    token_concurrency: int = Field(default=64, ge=2, le=1000)
    """Requests to the token endpoint that all replicas together have under way; background work takes three quarters
    of them at most."""
    token_requests_per_minute: int = Field(default=6000, ge=6, le=1_000_000)
    """Requests to the token endpoint that all replicas together send in any minute; a quarter of them at once at most,
    and background work three quarters of that."""
    token_failures: int = Field(default=5, ge=1, le=1000)
    """Requests in a row that fail before the EHR is left alone for some seconds."""
    token_longest_pause: float = Field(default=900.0, ge=0, le=3600)
    """Seconds of its `Retry-After` that the EHR is left alone for by everybody; a single grant, for all of it."""
    fhir_timeout: float = Field(default=30.0, gt=0, le=300)
    """Seconds the FHIR server may be silent."""
    fhir_requests_per_minute: int | None = Field(default=None, ge=1, le=6_000_000)
    """Requests to the FHIR server that all replicas together send in the long run; None: no limit."""
    fhir_burst: int | None = Field(default=None, ge=1)
    """Requests that they may send at once after a pause; None: a quarter of a minute's."""
    fhir_concurrency: int = Field(default=200, ge=2, le=1000)
    """Requests to the FHIR server that each replica has under way; one app three quarters of them at most, and so has
    work that nobody waits for."""
    fhir_longest_pause: float = Field(default=60.0, ge=0, le=3600)
    """Seconds of the FHIR server's `Retry-After` that nobody asks it for."""
    bulk_jobs: int = Field(default=0, ge=0, le=100)
    """Bulk exports that one registration may have running here (OR-08); the others wait in line. 0: until the EHR
    refuses one."""
    bulk_file_hosts: tuple[Origin, ...] = ()
    """Origins beside the FHIR base's that may get the token, for the files and the status of bulk exports (BD-11)."""
    bulk_abandon_seconds: int = Field(default=86_400, ge=60, le=2_592_000)
    """How long after the time that its app was told to come again a bulk export is ended that it no longer asks for."""
    ca_file: Path | None = None
    """PEM, relative to `broker.toml`: certificates that are believed at this EHR's hosts, in place of all others."""
    certificate: Path | None = None
    """A reference, `file:PATH`, to PEM: what the broker shows at this EHR's hosts, with its key. A registration with a
    certificate of its own shows that one, where it proves itself."""
    certificate_key: Path | None = None
    tls_hosts: tuple[Host, ...] = ()
    """The hosts that these files are for, besides those of the URLs in this table."""

    @property
    def hosts(self) -> frozenset[str]:
        """The hosts that the operator has named as this EHR's."""
        urls = filter(None, (self.fhir_base, self.token_endpoint, self.authorization_endpoint))
        return frozenset(self.tls_hosts) | {str(urlsplit(url).hostname).removesuffix(".") for url in urls}

    @property
    def tls_files(self) -> tuple[Path | None, Path | None, Path | None]:
        """What TLS with these hosts is done by, in place of what it is done by with others."""
        return self.ca_file, self.certificate, self.certificate_key

    @model_validator(mode="after")
    def _consistent(self) -> "EhrSettings":
        if (self.certificate is None) != (self.certificate_key is None):
            raise ValueError("certificate and certificate_key are needed together, or neither")
        fault = burst_fault("fhir_burst", self.fhir_burst, "fhir_requests_per_minute", self.fhir_requests_per_minute)
        if fault is not None:
            raise ValueError(fault)
        if self.tls_hosts and not any(self.tls_files):
            raise ValueError("tls_hosts belongs to ca_file, or to certificate and certificate_key")
        return self

    @model_validator(mode="before")
    @classmethod
    def _merge_profile(cls, table: Any) -> Any:
        """Lay what this table says over what its profile says."""
        if not isinstance(table, dict):
            return table
        name, said = table.get("profile", GENERIC), {key: table[key] for key in table if key in Profile.model_fields}
        try:
            known = profile(name if isinstance(name, str) else "")
        except KeyError:
            fix = f"known: {', '.join(profile_names())}"
            raise ValueError(f"there is no profile {str(name)[:64]!r}; {fix}") from None
        whole = {**known.model_dump(), **said} if said else known
        return {**{key: table[key] for key in table if key not in said}, "profile": whole}
