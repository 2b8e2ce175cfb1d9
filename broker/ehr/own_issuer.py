"""Whether the issuer that an EHR names is its own, where credentials depend on it (CB-07, Q3; RFC 8414 §3.3).

One registration at several EHRs may tell them apart by `iss` alone (RFC 9207), or name the issuer as audience of its
assertions. An EHR that claims another's issuer would then get that one's codes, or assertions that are good there. So
its endpoints have to be at the issuer's origin, or be named by the issuer itself.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from broker.clock import Clock
from broker.egress import Egress
from broker.ehr.documents import find_openid_configuration
from broker.ehr.endpoints import Endpoints, parse_smart_configuration
from broker.ehr.site import Site
from broker.errors import EhrMisbehaved
from broker.origins import origin

REFUSED_SECONDS: Final = 60.0
"""Not more often than this is an issuer asked that does not know the endpoints."""
_TIMEOUT_SECONDS: Final = 3.0
_NEVER_SENT_TO: Final = frozenset({"jwks_uri", "management_endpoint"})
_DOCUMENTS: Final[tuple[Literal["openid-configuration", "oauth-authorization-server"], ...]] = (
    "openid-configuration",
    "oauth-authorization-server",
)


class OwnIssuer:
    """Asks issuers, and remembers what they said: a yes until the EHR's documents change, a no for a minute."""

    def __init__(self, egress: Egress, clock: Clock) -> None:
        self._egress = egress
        self._clock = clock
        self._named: dict[str, Endpoints] = {}
        self._refused: dict[str, tuple[Endpoints, float]] = {}

    async def require(self, site: Site, endpoints: Endpoints) -> None:
        """Raises `EhrMisbehaved` when the issuer does not stand for the endpoints, `EhrUnreachable`.

        An EHR without issuer passes: then it is not used.
        """
        strange = strangers(endpoints, {}) if endpoints.issuer is not None else []
        if not strange or self._named.get(site.key) == endpoints:
            return
        refused, until = self._refused.get(site.key, (None, 0.0))
        if refused != endpoints or self._clock() >= until:
            if await self._is_named(site, endpoints):
                self._named[site.key] = endpoints
                return
            self._refused[site.key] = (endpoints, self._clock() + REFUSED_SECONDS)
        raise EhrMisbehaved(f"EHR {site.ehr} names an issuer that does not name its {', '.join(strange)} (CB-07, Q3)")

    async def _is_named(self, site: Site, endpoints: Endpoints) -> bool:
        issuer = str(endpoints.issuer)
        for name in _DOCUMENTS:
            try:
                document = await find_openid_configuration(
                    self._egress,
                    issuer,
                    place=site.profile.metadata_path,
                    timeout=_TIMEOUT_SECONDS,
                    document_name=name,
                )
            except EhrMisbehaved:  # it is not there; the other may be
                continue
            if not strangers(endpoints, _named_by(issuer, document)):
                return True
        return False


def strangers(endpoints: Endpoints, named: Mapping[str, str]) -> list[str]:
    """Return the members that are neither at the issuer's origin nor where `named` has the same member. Pure."""
    home = origin(str(endpoints.issuer))
    return [
        name
        for name, url in endpoints.urls().items()
        if name not in _NEVER_SENT_TO and origin(url) not in {home, origin(named.get(name, ""))} - {""}
    ]


def _named_by(issuer: str, document: Mapping[str, Any]) -> dict[str, str]:
    """Return the addresses in an issuer's own document; none if it calls itself otherwise."""
    if document.get("issuer") != issuer:
        return {}
    try:
        return parse_smart_configuration(document, issuer).urls()
    except EhrMisbehaved:
        return {}
