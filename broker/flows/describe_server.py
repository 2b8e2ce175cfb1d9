"""What the broker says of itself as an authorization server: per EHR as SMART wants it, and as a whole.

Every document names the same endpoints, and lists what is true for the registrations and apps in `broker.toml`. What
only the EHR can provide is listed if the EHR lists it, too.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from broker.apps import Directory
from broker.clock import Clock
from broker.dpop import ALGORITHMS as DPOP_ALGORITHMS
from broker.ehr.discovery import Discovery
from broker.errors import EhrError, Unavailable
from broker.flows.authorization_details import TYPE
from broker.flows.server_metadata import (
    Use,
    authentication_methods,
    binds_certificates,
    capabilities,
    grant_types,
    scopes,
)
from broker.keys.identity import ALGORITHM
from broker.settings import EhrSettings

_SSO: Final = "sso-openid-connect"
_FAILED_SECONDS: Final = 60.0
"""Anybody may ask for the documents, so an EHR that does not answer is left in peace for a while."""


@dataclass(frozen=True, slots=True)
class DescribeServer:
    """Answers `.well-known/smart-configuration` for each FHIR base, and the metadata of RFC 8414 and OpenID Connect."""

    directory: Directory
    discovery: Discovery
    clock: Clock
    failed: dict[str, float] = field(default_factory=dict)
    """When an EHR was last asked in vain."""
    _uses: Mapping[str, Collection[Use]] = field(init=False, repr=False)
    """By EHR. Nothing in `broker.toml` changes, and anybody may ask, as often as they like."""
    _whole: Mapping[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        every = [Use(app, allowance) for app in self.directory.apps for allowance in app.allowances]
        object.__setattr__(self, "_uses", _by_ehr(every))
        enabled = {ehr.id for ehr in self.directory.ehrs if ehr.enabled}
        alive = [use for use in every if not enabled.isdisjoint(use.allowance.registration.ehr)]
        object.__setattr__(self, "_whole", self._describe_whole(alive))

    async def smart_configuration(self, ehr_id: str) -> dict[str, Any]:
        """Return the façade's SMART configuration (SMART 2.2, DS-03 to DS-06). Raises `NotFound`, `Unavailable`."""
        ehr = self.directory.ehr(ehr_id)
        uses = self._uses.get(ehr.id, ())
        offered = capabilities(uses, await self._at_ehr(ehr))
        methods = [method for method in authentication_methods(uses) if method != "none"]  # SMART: client-public
        return {
            **self._endpoints(uses),
            **(self._identity() if _SSO in offered else {}),
            **_authentication(methods),
            "grant_types_supported": grant_types(uses),
            "scopes_supported": scopes(uses, identity=_SSO in offered),
            "authorization_details_types_supported": [TYPE],
            "capabilities": offered,
        }

    def authorization_server(self) -> dict[str, Any]:
        """Return the metadata of the server as a whole (RFC 8414 §2, OpenID Connect Discovery §3)."""
        return dict(self._whole)

    def _describe_whole(self, uses: Collection[Use]) -> dict[str, Any]:
        return {
            **self._endpoints(uses),
            **self._identity(),
            **_authentication(authentication_methods(uses)),
            "grant_types_supported": grant_types(uses),
            "scopes_supported": scopes(uses, identity=True),
            "response_modes_supported": ["query"],
            "authorization_details_types_supported": [TYPE],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
            "claims_supported": ["iss", "sub", "aud", "exp", "iat", "nonce", "fhirUser", "profile"],
            "request_uri_parameter_supported": False,  # OpenID Connect takes it for true where it is not said
        }

    def _endpoints(self, uses: Collection[Use]) -> dict[str, Any]:
        oauth = f"{self.directory.public_url}/oauth"
        # DS-04: who cannot be launched needs no authorization endpoint.
        authorize = {"authorization_endpoint": f"{oauth}/authorize"} if any(use.launches for use in uses) else {}
        return {
            **authorize,
            "token_endpoint": f"{oauth}/token",
            "introspection_endpoint": f"{oauth}/introspect",
            "revocation_endpoint": f"{oauth}/revoke",
            "response_types_supported": ["code"] if authorize else [],
            "code_challenge_methods_supported": ["S256"],
            "dpop_signing_alg_values_supported": list(DPOP_ALGORITHMS),
            **({"tls_client_certificate_bound_access_tokens": True} if binds_certificates(uses) else {}),
        }

    def _identity(self) -> dict[str, Any]:
        """Return who signs (DS-05), and that every authorization response says so (RFC 9207 §3)."""
        url = self.directory.public_url
        return {
            "issuer": url,
            "jwks_uri": f"{url}/oauth/jwks",
            "authorization_response_iss_parameter_supported": True,
        }

    async def _at_ehr(self, ehr: EhrSettings) -> set[str] | None:
        """Return the capabilities that the EHR lists, to whichever client; None where it lists none, or is down."""
        if self.clock() < self.failed.get(ehr.id, float("-inf")) + _FAILED_SECONDS:
            return None
        listed: set[str] = set()
        try:
            for site in self.directory.sites(ehr):
                endpoints = await self.discovery.endpoints(site)
                listed |= set(endpoints.capabilities) - ({_SSO} if endpoints.sso_off else set())
        except (EhrError, Unavailable):
            self.failed[ehr.id] = self.clock()
            return None
        return listed or None


def _by_ehr(uses: Collection[Use]) -> Mapping[str, Collection[Use]]:
    found: defaultdict[str, list[Use]] = defaultdict(list)
    for use in uses:
        for ehr in use.allowance.registration.ehr:
            found[ehr].append(use)
    return found


def _authentication(methods: list[str]) -> dict[str, Any]:
    algorithms = {"token_endpoint_auth_signing_alg_values_supported": ["ES384", "RS384"]}
    return {
        "token_endpoint_auth_methods_supported": methods,
        **(algorithms if "private_key_jwt" in methods else {}),
    }
