"""Tell an app who signed in: the broker's own id_token (OIDC Core §2), made from what an EHR's verified one said.

The EHR's id_token itself reaches no app (ID-09). `sub` is pairwise (OIDC Core §8.1): two apps that compare what they
know of a person find nothing in common, and nobody learns the subject that the EHR uses.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from broker.apps import Directory
from broker.clock import Clock
from broker.credentials import KeyedHash
from broker.grants import Grant, LaunchContext
from broker.keys.identity import IdentityKey
from broker.scopes import Scopes

LIFETIME_SECONDS: Final = 300
"""An id_token is read at once; it is no session (ID-09)."""
_USER: Final = frozenset({"fhirUser", "profile"})


@dataclass(frozen=True, slots=True)
class TellIdentity:
    """Makes id_tokens, and the claims that introspection shares with them."""

    directory: Directory
    identity_key: IdentityKey
    keyed_hash: KeyedHash
    clock: Clock

    def claims(self, app: str, grant: Grant, scopes: Scopes) -> dict[str, Any]:
        """Return `iss`, `sub` and `fhirUser` as far as the scopes promise them and the EHR vouched for them."""
        context = grant.terms.context
        claims: dict[str, Any] = {}
        if "openid" in promised(scopes.others, context):
            person = json.dumps([app, context.issuer, context.subject])
            claims |= {"iss": self.directory.public_url, "sub": self.keyed_hash("subject", person)}
        if (user := self.fhir_user(grant, scopes)) is not None:
            claims["fhirUser"] = user
        return claims

    def fhir_user(self, grant: Grant, scopes: Scopes) -> str | None:
        """Return the absolute URL of the person's resource, at the broker (ID-06); None unless it may be told."""
        if not promised(scopes.others, grant.terms.context) & _USER:
            return None
        return f"{self.directory.fhir_base(grant.terms.ehr)}/{grant.terms.context.fhir_user}"

    async def id_token(self, app: str, grant: Grant, scopes: Scopes, nonce: str | None) -> str | None:
        """Return the signed id_token; None unless `openid` was granted. Raises `Unavailable`.

        It comes with the code exchange alone: a refresh shows nobody anew (OIDC Core §12.2).
        """
        claims = self.claims(app, grant, scopes)
        if "sub" not in claims:
            return None
        now = int(self.clock())
        claims |= {"aud": app, "iat": now, "exp": now + LIFETIME_SECONDS}
        if nonce is not None:
            claims["nonce"] = nonce
        if "profile" in scopes.others and "fhirUser" in claims:
            claims["profile"] = claims["fhirUser"]
        return await self.identity_key.sign(claims)


def promised(words: frozenset[str], context: LaunchContext) -> frozenset[str]:
    """Leave out the scopes that promise an identity which the EHR did not vouch for."""
    unknown = set() if context.subject is not None and context.issuer is not None else {"openid"}
    return words - unknown - (_USER if context.fhir_user is None else set())
