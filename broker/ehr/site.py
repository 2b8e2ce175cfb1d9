"""An EHR as discovery needs to know it: settings are read above this room, so what matters here is passed in."""

from dataclasses import dataclass, replace

from broker.ehr.endpoints import Endpoints
from broker.profiles import Profile


@dataclass(frozen=True, slots=True)
class Site:
    """One FHIR base as one client sees it: the key is the base, never the issuer (OR-01)."""

    ehr: str
    """Its id, for listings, the log and the audit trail."""
    fhir_base: str
    """Without a trailing slash."""
    profile: Profile
    client_id: str | None = None
    """Only where the EHR answers each client differently (EP-08); else one answer serves all registrations."""
    token_endpoint: str | None = None
    """In place of the one that discovery finds (OR-02)."""
    authorization_endpoint: str | None = None
    """As above."""
    relies_on_issuer: bool = False
    """Whether credentials go astray where the EHR says another's issuer is its own (CB-07, Q3)."""

    @property
    def key(self) -> str:
        """What discovery's answers are kept under."""
        return f"{self.fhir_base}\0{self.client_id or ''}"

    @property
    def overrides(self) -> dict[str, str]:
        """The endpoints that the operator has said otherwise."""
        said = {"token_endpoint": self.token_endpoint, "authorization_endpoint": self.authorization_endpoint}
        return {name: url for name, url in said.items() if url is not None}

    def headers(self, accept: str) -> dict[str, str]:
        """Return the headers that its documents are asked for with (DS-02, EP-08, EP-09)."""
        header: str = self.profile.client_id_header
        return {"Accept": accept, header: self.client_id} if self.client_id and header else {"Accept": accept}

    def apply(self, found: Endpoints) -> Endpoints:
        """Return the endpoints with the operator's in place of the EHR's, and of its aliases for them (OR-02)."""
        aliases = {name: url for name, url in found.mtls_endpoint_aliases.items() if name not in self.overrides}
        return replace(found, mtls_endpoint_aliases=aliases, **self.overrides)  # type: ignore[arg-type]  # only URLs
