"""What an operator enters in an EHR's own form for a registration, character by character (RG-01, RG-02, RG-03)."""

from dataclasses import dataclass
from typing import Any

from broker.apps import Directory
from broker.ehr.discovery import Discovery
from broker.ehr.dynamic_client import REGISTER_SCOPE
from broker.ehr.scope_words import ScopeWords
from broker.errors import BrokerError
from broker.keys.signing import SigningKeys
from broker.scopes import Scopes
from broker.settings import RegistrationSettings


@dataclass(frozen=True, slots=True)
class DescribeRegistration:
    """Puts together what the broker will say of itself at the EHR; no request has another address or scope."""

    directory: Directory
    discovery: Discovery
    scope_words: ScopeWords
    signing_keys: SigningKeys

    async def __call__(self, registration_id: str, *, with_keys: bool) -> dict[str, Any]:
        """Return the values; `with_keys` adds the public keys for a form that takes no URL. Raises `NotFound`.

        The secret is not among them: it came from the EHR.
        """
        registration = self.directory.registration(registration_id)
        keyed = registration.authentication in {"private_key_jwt", "self_signed_tls_client_auth"}
        signs = registration.authentication == "private_key_jwt"
        shown: dict[str, Any] = {
            "launch_url": f"{self.directory.public_url}/launch/{registration.id}" if registration.app else None,
            "redirect_uris": self._redirect_uris(registration),
            "jwks_url": self.signing_keys.jwks_uri(registration) if keyed else None,
            "signing_alg": registration.signing_algorithm if signs else None,
            "scopes": {ehr_id: await self._scopes(registration, ehr_id) for ehr_id in registration.ehr},
        }
        return shown | ({"jwks": await self.signing_keys.public_jwks(registration)} if with_keys else {})

    def _redirect_uris(self, registration: RegistrationSettings) -> list[str]:
        if registration.flow != "launch":
            return []
        return list(dict.fromkeys(self.directory.callback_uri(registration, ehr_id) for ehr_id in registration.ehr))

    async def _scopes(self, registration: RegistrationSettings, ehr_id: str) -> str:
        """Return them as this EHR writes them (Q9), or why that cannot be said now."""
        try:
            site = self.directory.site(self.directory.ehr(ehr_id), registration)
            endpoints = await self.discovery.endpoints(site)
            said = (await self.scope_words.say(Scopes.parse(registration.scopes), site, endpoints)).text
        except BrokerError as error:
            return f"unknown: {error.code}"
        return f"{said} {REGISTER_SCOPE}" if registration.dynamic_client else said
